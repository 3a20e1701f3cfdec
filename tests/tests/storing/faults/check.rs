//! `xfer-server check`: every kind of damage is found and named, and nothing else is.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xfer_tests::sending::wait_for_state;
use xfer_tests::server::command;
use xfer_tests::{World, shell};

/// The exit code if there are faults.
const FAULTY: u8 = 18;

/// A world where alice has a bit of everything, something waits for bob, and no server runs.
fn with_everything() -> World {
    let mut world = World::new(&["alice", "bob"]);
    let mount = world.mount("alice");
    mount.shell(
        "mkdir -p docs/old empty && seq 5000 > docs/numbers && ln docs/numbers docs/old/again
         cp docs/numbers copy && ln -s docs/numbers link && mkfifo pipe
         truncate -s 10M holes && echo end >> holes && setfattr -n user.note -v text copy
         echo text > file && cp copy moved && mv moved outbox/bob/copy",
    );
    wait_for_state(&mount.path("outbox/bob/copy"), "sent");
    mount.unmount();
    world.server.terminate();
    world
}

/// What is found in a store: of each fault its rule, its place, and the whole of it.
fn found_in(store: &Path) -> Vec<(String, String, Value)> {
    let looked = command(store, &["check", "--json"]);
    let found: Value = serde_json::from_str(&looked.stdout).unwrap_or_else(|_| panic!("{looked}"));
    let faults = found["faults"].as_array().unwrap();
    let code = if faults.is_empty() { 0 } else { FAULTY };
    assert_eq!(looked.code, Some(i32::from(code)), "{looked}");
    let text = |fault: &Value, key: &str| fault[key].as_str().unwrap_or_default().to_owned();
    let place = |fault: &Value| format!("{}/{}", text(fault, "user"), text(fault, "path"));
    faults.iter().map(|fault| (text(fault, "rule"), place(fault), fault.clone())).collect()
}

/// A copy of a store, with something done to it.
fn damaged(store: &Path, name: &str, script: &str) -> PathBuf {
    let copy = store.with_file_name(name);
    shell(store, &format!("cp -a . {0} && cd {0} && {script}", copy.display()));
    copy
}

#[test]
fn a_store_that_was_used_has_no_faults_beside_its_server_and_without_it() {
    let mut world = World::new(&["alice", "bob"]);
    let mount = world.mount("alice");
    mount.shell("mkdir d && seq 1000 > d/f && cp d/f outbox/bob/ && exec 9> d/open && rm d/open");
    let looked = world.server.command(&["check"]).succeeded();
    assert_eq!(looked.stdout, "");
    assert!(looked.stderr.starts_with("looked at 2 users with "), "{looked}");
    let looked = world.server.command(&["check", "alice"]).succeeded();
    assert!(looked.stderr.starts_with("looked at 1 user with "), "{looked}");
    mount.unmount();
    world.server.terminate();
    assert_eq!(found_in(world.server.store()), []);
    assert!(command(world.server.store(), &["check", "carol"]).refused(7).contains("carol"));
    let missing = world.outside().join("missing");
    assert!(command(&missing, &["check"]).refused(3).contains("check --store"));
}

#[test]
fn each_kind_of_damage_in_the_rows_is_found_and_named_and_nothing_else() {
    let world = with_everything();
    let store = world.server.store();
    assert_eq!(found_in(store), []);
    let of = |name: &str| format!("(SELECT ino FROM entries WHERE name = CAST('{name}' AS BLOB))");
    let content = "(SELECT max(content) FROM delivery_items)";
    let (docs, numbers, old) = (of("docs"), of("numbers"), of("old"));
    // What is done to the rows, and what is found: rules, each with a place.
    let cases = [
        (
            format!("UPDATE nodes SET nlink = 7 WHERE ino = {numbers}"),
            vec![("links", "alice/docs/numbers")],
        ),
        (format!("UPDATE nodes SET nlink = 7 WHERE ino = {docs}"), vec![("links", "alice/docs")]),
        (
            format!("UPDATE nodes SET entries = 3 WHERE ino = {docs}"),
            vec![("entries", "alice/docs")],
        ),
        (
            // The bytes of names count, too, in what the directory takes up.
            format!("UPDATE nodes SET name_bytes = name_bytes + 1 WHERE ino = {docs}"),
            vec![("entries", "alice/docs")],
        ),
        (
            format!("UPDATE nodes SET parent = 1 WHERE ino = {old}"),
            vec![("parent", "alice/docs/old")],
        ),
        ("UPDATE nodes SET kind = 9 WHERE kind = 4".to_owned(), vec![("row", "alice/pipe")]),
        (
            format!("DELETE FROM entries WHERE ino = {}", of("link")),
            vec![("entries", "alice/"), ("links", "alice/")],
        ),
        (
            format!("DELETE FROM nodes WHERE ino = {}", of("pipe")),
            vec![("entry", "alice/"), ("usage", "alice/")],
        ),
        (
            format!(
                "UPDATE entries SET parent = {of_link} WHERE name = CAST('empty' AS BLOB)",
                of_link = of("link")
            ),
            vec![
                ("entries", "alice/"),
                ("entry", "alice/link"),
                ("links", "alice/"),
                ("parent", "alice/link/empty"),
                ("reach", "alice/link/empty"),
            ],
        ),
        (
            "UPDATE accounts SET usage_bytes = usage_bytes + 1 WHERE name = CAST('alice' AS BLOB)"
                .to_owned(),
            vec![("usage", "alice/")],
        ),
        (
            "UPDATE accounts SET waiting_items = 0 WHERE name = CAST('bob' AS BLOB)".to_owned(),
            vec![("inbox", "bob/")],
        ),
        (
            format!("UPDATE contents SET refs = refs + 1 WHERE id = {content}"),
            vec![("owners", "/")],
        ),
        (format!("DELETE FROM contents WHERE id = {content}"), vec![("owners", "/")]),
        (format!("INSERT INTO garbage VALUES ({content})"), vec![("owners", "/")]),
        (format!("UPDATE nodes SET sealed = 0 WHERE content = {content}"), vec![("sealed", "/")]),
        ("UPDATE ids SET next = 1030".to_owned(), vec![("number", "/")]),
        ("DELETE FROM nodes WHERE ino = 1 AND account = 2".to_owned(), vec![]),
    ];
    for (at, (sql, expected)) in cases.into_iter().enumerate() {
        let copy = damaged(
            store,
            &format!("copy{at}"),
            &format!("sqlite3 xfer.db \"PRAGMA foreign_keys = 0; {sql}; SELECT changes();\""),
        );
        let found = found_in(&copy);
        let mut rules: Vec<_> = found.iter().map(|(rule, place, _)| (&**rule, &**place)).collect();
        rules.sort_unstable();
        rules.dedup();
        let is_expected = match expected.is_empty() {
            true => rules.contains(&("root", "bob/")),
            false => rules == expected,
        };
        assert!(is_expected, "{sql}: {found:#?}");
        fs::remove_dir_all(copy).unwrap();
    }
}

#[test]
fn bytes_that_are_missing_are_found_and_named_by_their_file() {
    let world = with_everything();
    let store = world.server.store();
    let largest = "\"$(find contents -type f -size -200k -size +16k -printf '%s %p\\n' |
                     sort -n | tail -n 1 | cut -d ' ' -f 2)\"";
    let shorter = damaged(store, "shorter", &format!("truncate -s 4096 {largest}"));
    let missing = damaged(store, "missing", &format!("rm {largest}"));
    for copy in [shorter, missing] {
        let found = found_in(&copy);
        assert!(!found.is_empty());
        for (rule, place, fault) in &found {
            assert_eq!(rule, "bytes");
            let is_named = ["alice/docs/numbers", "alice/docs/old/again", "alice/copy", "/"];
            let is_sent = place.starts_with("alice/outbox/bob/copy");
            assert!(is_sent || is_named.contains(&place.as_str()), "{fault}");
        }
        let looked = command(&copy, &["check"]);
        let line = looked.stdout.lines().next().unwrap().to_owned();
        assert!(line.starts_with("alice: /") && line.contains(": content "), "{looked}");
        assert_eq!(looked.code, Some(i32::from(FAULTY)), "{looked}");
        assert!(looked.stderr.contains("the store has "), "{looked}");
    }
}

#[test]
fn a_database_whose_index_has_other_rows_than_its_table_is_found() {
    let world = with_everything();
    // The index is made for other rows than those that are there, behind SQLite's back.
    let copy = damaged(
        world.server.store(),
        "index",
        "sqlite3 xfer.db \"
         PRAGMA writable_schema = 1;
         UPDATE sqlite_schema SET sql = replace(sql, 'WHERE nlink = 0', 'WHERE nlink = 1')
         WHERE name = 'orphans';\"",
    );
    let found = found_in(&copy);
    assert!(found.iter().any(|(rule, ..)| rule == "database"), "{found:#?}");
}
