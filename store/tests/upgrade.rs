//! Stores of older versions: after the upgrade their data is intact, and their tables equal those
//! of a new store.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use support::{file_batch, name, resumable, resumption, waiting as waiting_in};
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Kind, Quota, Usage};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Seq};
use xfer_store::embedded::{SqliteStore, StoreLock};
use xfer_store::{Batch, Changed, Committed, Missed, Resumable, Resumption, SecretHash};

const VERSION_1: &str = include_str!("stores/version-1.sql");

const VERSION_2: &str = include_str!("stores/version-2.sql");

const VERSION_3: &str = include_str!("stores/version-3.sql");

const VERSION_4: &str = include_str!("stores/version-4.sql");

const VERSION_5: &str = include_str!("stores/version-5.sql");

const VERSION_6: &str = include_str!("stores/version-6.sql");

const VERSION_7: &str = include_str!("stores/version-7.sql");

const VERSION_8: &str = include_str!("stores/version-8.sql");

const VERSIONS: [&str; 8] =
    [VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6, VERSION_7, VERSION_8];

fn old_store() -> tempfile::TempDir {
    store_of(VERSION_1)
}

fn store_of(version: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.path().join("xfer.db")).unwrap();
    db.execute_batch(version).unwrap();
    dir
}

/// A store's tables, their columns, and its indices.
fn shape(dir: &Path) -> Vec<String> {
    let db = Connection::open(dir.join("xfer.db")).unwrap();
    let sql = "SELECT s.type || ' ' || s.name || ' ' || ifnull(c.name, '') || ' ' ||
                   ifnull(c.type, '') || ' ' || ifnull(c.\"notnull\", '') || ' ' || ifnull(c.pk, '') ||
                   ' ' || iif(s.type = 'index', ifnull(s.sql, ''), '')
               FROM sqlite_schema s LEFT JOIN pragma_table_xinfo(s.name) c ON s.type = 'table'
               UNION ALL SELECT 'version ' || user_version FROM pragma_user_version
               ORDER BY 1";
    let mut statement = db.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn an_older_store_has_the_tables_of_a_new_one_after_its_upgrade() {
    let new = tempfile::tempdir().unwrap();
    SqliteStore::open(new.path()).unwrap();
    for version in VERSIONS {
        let old = store_of(version);
        assert_ne!(shape(old.path()), Vec::<String>::new());
        SqliteStore::open(old.path()).unwrap();
        assert_eq!(shape(old.path()), shape(new.path()));
    }
}

#[test]
fn an_older_store_keeps_what_is_in_it() {
    for dir in VERSIONS.iter().flat_map(|version| {
        let dir = std::rc::Rc::new(store_of(version));
        [dir.clone(), dir]
    }) {
        let store = SqliteStore::open(dir.path()).unwrap();
        let alice = store.account(&name("alice")).unwrap().unwrap();
        assert_eq!((alice.applied, alice.epoch), (Seq(12), Epoch(3)));
        let page = store.page(alice.id, Ino(2000), None, 10).unwrap();
        let names: Vec<_> = page.iter().map(|(name, ino, _)| (name.clone(), *ino)).collect();
        assert_eq!(names, [(name("one"), Ino(2001)), (name("two"), Ino(2002))]);
        assert_eq!(page[0].2.content(), Some(ContentId(3000)));
        let link = store.node(alice.id, Ino(2003)).unwrap().unwrap();
        assert!(matches!(link.kind, Kind::Symlink { target } if target == "where/it/points"));
        assert_eq!(store.garbage(None, 10).unwrap(), [ContentId(2999)]);
    }
}

#[test]
fn a_session_of_an_older_store_can_be_resumed_and_can_become_dormant() {
    let dir = store_of(VERSION_3);
    let store = SqliteStore::open(dir.path()).unwrap();
    let alice = store.account(&name("alice")).unwrap().unwrap().id;
    let known = Resumable { shown: SecretHash([1; 32]), attempt: 4, ..resumable(7, 2) };
    assert_eq!(store.resumable(alice).unwrap(), Some(known));
    let with = Resumption { attempt: 5, ..resumption(7, 1, 3) };
    let resumed = store.resume(alice, &with).unwrap().unwrap();
    assert_eq!(
        resumed.granted,
        [(5100, 6000), (6000, 7000)].map(|(first, end)| IdRange { first, end })
    );
    assert_eq!((resumed.next_id, resumed.missed), (5100, None));
    assert_eq!(resumed.quota, Quota { bytes: 8192, nodes: 8 });
    let other = store.begin_resumable(alice, &resumable(8, 1), None).unwrap();
    let batch = Batch { epoch: other.epoch, ..file_batch(alice, 13, 4000) };
    store.commit(&[batch]).unwrap();
    let with = Resumption { attempt: 6, ..resumption(7, 3, 4) };
    let missed = store.resume(alice, &with).unwrap().unwrap().missed;
    let changed = Changed::Nodes(vec![Ino::ROOT, Ino(4000)]);
    assert_eq!(missed, Some(Missed { base: Seq(12), changed }));
}

#[test]
fn a_dormant_session_of_an_older_store_learns_what_it_missed() {
    let dir = store_of(VERSION_6);
    let store = SqliteStore::open(dir.path()).unwrap();
    let alice = store.account(&name("alice")).unwrap().unwrap();
    assert!(alice.takes_passwords && alice.password.is_some());
    assert_eq!(store.keys(alice.id).unwrap(), []);
    let with = Resumption { attempt: 5, ..resumption(8, 1, 3) };
    let missed = store.resume(alice.id, &with).unwrap().unwrap().missed;
    let changed = Changed::Nodes(vec![Ino(2000), Ino(2001)]);
    assert_eq!(missed, Some(Missed { base: Seq(10), changed }));
}

#[test]
fn the_keys_of_an_older_store_still_log_in_and_its_accounts_are_enabled() {
    let dir = store_of(VERSION_7);
    let store = SqliteStore::open(dir.path()).unwrap();
    let alice = store.account(&name("alice")).unwrap().unwrap();
    assert!(!alice.takes_passwords && alice.disabled_from.is_none());
    let labels: Vec<_> = store.keys(alice.id).unwrap().into_iter().map(|key| key.label).collect();
    assert_eq!(labels, ["laptop"]);
}

#[test]
fn what_an_older_server_left_of_shared_contents_is_looked_for_after_an_upgrade() {
    let dir = old_store();
    let store = SqliteStore::open(dir.path()).unwrap();
    let trims = store.trims(0, 10).unwrap();
    assert_eq!(trims.iter().map(|trim| trim.content).collect::<Vec<_>>(), [ContentId(3000)]);
    let reached = store.reached(ContentId(3000)).unwrap().unwrap();
    assert_eq!(reached.as_slice(), std::slice::from_ref(&(0..4096)));
    store.forget_trims(&trims).unwrap();
    assert_eq!(store.trims(0, 10).unwrap(), []);
}

#[test]
fn an_upgraded_store_can_be_written() {
    let dir = old_store();
    let store = SqliteStore::open(dir.path()).unwrap();
    let alice = store.begin_session(store.account(&name("alice")).unwrap().unwrap().id).unwrap();
    let mut batch = file_batch(alice.id, 13, 4000);
    batch.epoch = alice.epoch;
    assert_eq!(store.commit(&[batch]).unwrap(), [Committed::Durable(vec![])]);
    assert!(store.node(alice.id, Ino(4000)).unwrap().is_some());
}

#[test]
fn an_upgrade_counts_what_was_not_counted_before_and_takes_nothing_away() {
    let dir = old_store();
    let store = SqliteStore::open(dir.path()).unwrap();
    for user in ["alice", "bob"] {
        let account = store.account(&name(user)).unwrap().unwrap();
        let mut nodes = BTreeMap::new();
        let mut waiting = vec![Ino::ROOT];
        while let Some(directory) = waiting.pop() {
            let node = store.node(account.id, directory).unwrap().unwrap();
            let page = store.page(account.id, directory, None, 100).unwrap();
            let names: usize = page.iter().map(|(name, _, _)| name.as_bytes().len()).sum();
            let Kind::Directory { entries, name_bytes, .. } = node.kind else { unreachable!() };
            assert_eq!((entries, name_bytes), (page.len() as u64, names as u64), "{directory:?}");
            nodes.insert(directory, node.charge());
            for (_, ino, node) in page {
                nodes.insert(ino, node.charge());
                waiting.extend(node.is_directory().then_some(ino));
            }
        }
        let usage = Usage { bytes: nodes.values().sum(), nodes: nodes.len() as u64 };
        assert_eq!(account.usage, usage, "{user}");
    }
    let alice = store.account(&name("alice")).unwrap().unwrap();
    assert_eq!(alice.usage.bytes, 8192 + 2 * 512 + 2 * 512);
    assert!(alice.usage.bytes > alice.quota.bytes, "beyond it by what was not counted");
}

#[test]
fn an_upgrade_sums_up_what_waits_and_forgets_deliveries_of_which_nothing_is_to_come() {
    let dir = old_store();
    let rows = "
        UPDATE nodes SET sent = 6002 WHERE account = 1 AND ino = 2001;
        INSERT INTO deliveries (id, from_account, to_account, items, bytes, state,
            from_name, name, sent_secs, sent_nanos, state_secs, state_nanos)
        SELECT column1, column2, column3, column4, column5, column6, x'61', x'62', 1, 0, 1, 0 FROM (VALUES
            (6000, 1, 2, 1, 100, 1),
            (6001, NULL, 2, 2, 50, 1),
            (6002, 1, NULL, 1, 70, 2),
            (6003, 1, NULL, 1, 70, 2),
            (6004, NULL, NULL, 1, 70, 3));";
    Connection::open(dir.path().join("xfer.db")).unwrap().execute_batch(rows).unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let id = |user| store.account(&name(user)).unwrap().unwrap().id;
    let (alice, bob) = (id("alice"), id("bob"));
    assert_eq!(waiting_in(&store, bob), Usage { bytes: 150, nodes: 3 });
    assert_eq!(waiting_in(&store, alice), Usage::default());
    let waiting = store.waiting_after(bob, 0, usize::MAX).unwrap();
    let waiting: Vec<_> = waiting.into_iter().map(|(_, head)| head.id.0).collect();
    assert_eq!(waiting, [6000, 6001]);
    let state = |number| store.delivery_state(alice, DeliveryId(number)).unwrap();
    assert!(matches!(state(6000), DeliveryState::Sent(_)));
    assert!(matches!(state(6002), DeliveryState::Received(_)), "its record is still there");
    assert_eq!(state(6003), DeliveryState::Unknown);
    let db = Connection::open(dir.path().join("xfer.db")).unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 3);
}

#[test]
fn an_upgrade_keeps_no_account_whose_removal_was_under_way() {
    let dir = store_of(VERSION_8);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.days_kept().unwrap(), 30);
    assert_eq!(store.removed_accounts().unwrap(), []);
    let names: Vec<_> = store.accounts().unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, [name("alice"), name("bob")]);
    assert!(store.clear_deleted(support::time(1)).unwrap());
    let db = Connection::open(dir.path().join("xfer.db")).unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 2);
    let bob = store.account(&name("bob")).unwrap().unwrap();
    assert_eq!(bob.disabled_from, Some(support::time(1_700_000_000)));
}

const STORE: &str = "XFER_TEST_STORE";

#[test]
#[ignore = "run in a process of its own by the test below"]
fn child_serves_until_its_input_ends() {
    let _lock = StoreLock::take(Path::new(&std::env::var_os(STORE).unwrap())).unwrap();
    println!("serving");
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_store_that_an_older_server_serves_is_not_upgraded_beside_it() {
    let dir = old_store();
    let before = shape(dir.path());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_serves_until_its_input_ends", "--ignored", "--nocapture"])
        .env(STORE, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("serving")));
    let refused = SqliteStore::open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains("an older version"), "{refused}");
    assert!(refused.contains(&format!("(pid {})", child.id())), "{refused}");
    assert_eq!(shape(dir.path()), before);
    drop(child.stdin.take());
    child.wait().unwrap();
    let _lock = StoreLock::take(dir.path()).unwrap();
    SqliteStore::open(dir.path()).unwrap();
}
