//! Accounts that are removed: who can do what meanwhile, and what comes back.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use xfer_tests::sending::{arrives, wait_for_state};
use xfer_tests::snapshot::{assert_same, snapshot};
use xfer_tests::world::server::Server;
use xfer_tests::{PATIENCE, World, run_within, wait_until};

use crate::invitations::{invited, word};
use crate::{at, log_in, refused, user};

/// The removed accounts in the list for programs, the last one first.
#[track_caller]
fn removed(world: &World) -> Vec<Value> {
    let list = user(world, &["list", "--removed", "--json"]).succeeded().stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    list["removed"].as_array().unwrap().clone()
}

/// Removes an account that is to be kept.
#[track_caller]
fn remove(world: &World, name: &str) {
    let done = user(world, &["remove", name, "--yes"]).succeeded();
    assert!(done.stderr.starts_with(&format!("{name} is removed, and kept until 20")), "{done}");
    assert!(done.stderr.ends_with(&format!("user restore {name}\n")), "{done}");
}

/// Starts the server again, with this option for the days that removed accounts are kept.
fn restart_keeping(world: &mut World, days: &str) {
    assert_eq!(world.server.terminate(), Some(0));
    let (store, address) = (world.server.store().to_owned(), world.server.address.to_string());
    world.server = Server::start_with(&store, &address, &["--keep-removed", days]);
}

/// The bytes of the contents in a store, also of those that were set aside.
fn stored(store: &Path) -> u64 {
    let mut waiting = vec![store.join("contents")];
    let mut bytes = 0;
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            // A content may go at any moment.
            let Ok(metadata) = entry.metadata() else { continue };
            match metadata.is_dir() {
                true => waiting.push(entry.path()),
                false => bytes += metadata.len(),
            }
        }
    }
    bytes
}

#[test]
fn a_removed_account_can_not_be_used_and_comes_back_as_it_was() {
    let world = World::new(&["alice --quota 7MiB", "bob"]);
    log_in(&world, "alice", "laptop");
    let (alice, bob) = (world.mounting("alice").by_key().start(), world.mount("bob"));
    alice.shell(
        "mkdir d && echo text > d/file && ln d/file hard && ln -s d/file soft && chmod 640 hard
         setfattr -n user.colour -v blue d/file && touch -d 2001-02-03T04:05:06.789 d/file
         truncate -s 1M hole && mkfifo pipe",
    );
    let before = snapshot(alice.root());
    let quota = || user(&world, &["quota", "alice", "--json"]).succeeded().stdout;
    alice.sync();
    let quota_before = quota();
    // What its mount still has to send is kept too.
    alice.shell("echo late > late");
    remove(&world, "alice");
    wait_until("the end of the session", PATIENCE, || !alice.is_connected());
    drop(alice);
    wait_until("alice's mailbox to go", PATIENCE, || !bob.path("outbox/alice").exists());
    let line = refused(&world, "alice", 9);
    assert!(line.ends_with(&format!("xfer login {}", at(&world, "alice"))), "{line}");
    let mount = || run_within(world.mounting("alice").command().arg("-f"), PATIENCE);
    assert!(mount().refused(9).contains("wrong user name or password"));
    let hint = "there is no user 'alice' any more; to bring back the one that was removed: \
                xfer-server user restore alice";
    assert!(user(&world, &["passwd", "alice", "--password-stdin"]).refused(7).contains(hint));
    assert!(world.server.command(&["export", "alice", "/nowhere"]).refused(7).contains(hint));
    assert!(user(&world, &["remove", "alice", "--yes"]).refused(7).contains(hint));

    let back = user(&world, &["restore", "alice"]).succeeded();
    assert!(
        back.stderr.starts_with("alice is back as it was when it was removed, at 20"),
        "{back}"
    );
    assert!(back.stderr.contains("its machines have to log in again"), "{back}");
    wait_until("alice's mailbox", PATIENCE, || bob.path("outbox/alice").is_dir());
    assert!(refused(&world, "alice", 9).contains("log in again"));
    let elsewhere = world.mount_point("elsewhere");
    let alice = world.mounting("alice").at(&elsewhere).start();
    assert_eq!(fs::read_to_string(alice.path("late")).unwrap(), "late\n");
    alice.shell("rm late");
    assert_same(&before, &snapshot(alice.root()));
    alice.sync();
    assert_eq!(quota(), quota_before);
    alice.unmount();
    bob.unmount();
    let none = user(&world, &["restore", "alice"]).refused(7);
    assert!(none.contains("no removed user 'alice' is kept"), "{none}");
}

#[test]
fn what_waited_for_a_removed_account_arrives_once_it_is_restored_under_whatever_name() {
    let world = World::new(&["alice", "bob"]);
    let bob = world.mount("bob");
    bob.shell("echo letter > outbox/alice/letter");
    wait_for_state(&bob.path("outbox/alice/letter"), "sent");
    remove(&world, "alice");
    let kept = removed(&world)[0].clone();
    assert_eq!(kept["inbox_used_items"], json!(1));
    // What waits takes up space as what is stored does.
    let list = user(&world, &["list", "--json"]).succeeded().stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    let takes = |field: &str| kept[field].as_u64().unwrap();
    assert_eq!(list["removed_bytes"], json!(takes("used_bytes") + takes("inbox_used_bytes")));
    assert!(takes("inbox_used_bytes") > 0);
    // The name belongs to another one now, who gets nothing of it.
    world.add_user("alice");
    let alice = world.mount("alice");
    assert_eq!(alice.shell("ls inbox"), "");
    alice.unmount();
    wait_for_state(&bob.path("outbox/alice/letter"), "sent");
    let back = user(&world, &["restore", "alice", "--as", "alicia"]).succeeded();
    assert!(back.stderr.starts_with("alicia is back"), "{back}");
    // The password stays, and so it is that of alice.
    fs::copy(world.password_file("alice"), world.password_file("alicia")).unwrap();
    let alicia = world.mount("alicia");
    let letter = arrives(&alicia, "inbox/bob/letter");
    assert_eq!(fs::read_to_string(letter).unwrap(), "letter\n");
    wait_for_state(&bob.path("outbox/alice/letter"), "received");
    alicia.unmount();
    bob.unmount();
}

#[test]
fn the_name_of_a_removed_account_is_free_and_several_of_one_name_are_told_apart_by_number() {
    let world = World::new(&["alice"]);
    let leave = |text: &str| {
        let alice = world.mount("alice");
        alice.shell(&format!("echo {text} > whose"));
        alice.unmount();
        remove(&world, "alice");
    };
    leave("first");
    let file = world.password_file("alice");
    let add = ["add", "alice", "--password-file", file.to_str().unwrap()];
    let added = user(&world, &add).succeeded();
    assert!(added.stderr.starts_with("a removed alice is kept until 20"), "{added}");
    leave("second");
    user(&world, &add).succeeded();
    let all = removed(&world);
    let number = |place: usize| all[place]["number"].to_string();
    assert_eq!((all.len(), all[0]["name"].clone()), (2, json!("alice")));
    assert!(all[0]["removed_secs"].as_i64() >= all[1]["removed_secs"].as_i64(), "{all:?}");
    let days =
        |one: &Value| one["gone_secs"].as_i64().unwrap() - one["removed_secs"].as_i64().unwrap();
    assert_eq!(days(&all[0]), 30 * 24 * 60 * 60);
    let line = user(&world, &["restore", "alice"]).refused(8);
    assert!(line.contains("user restore alice --as NAME"), "{line}");
    let line = user(&world, &["restore", "alice", "--number", "99"]).refused(7);
    assert!(line.contains("no removed user 'alice' with number 99 is kept"), "{line}");
    let line = user(&world, &["restore", "alice", "--as", "Alice"]).refused(2);
    assert!(line.contains("is not a user name"), "{line}");
    let table = user(&world, &["list", "--removed"]).succeeded().stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("USER   NUMBER  REMOVED") && rows.len() == 3, "{table}");
    assert!(rows[1].starts_with(&format!("alice  {}  ", number(0))), "{table}");
    // How much is kept is visible in the list of all accounts, too.
    let list = user(&world, &["list"]).succeeded();
    assert!(list.stderr.starts_with("removed users that are kept: 2, with 8 KiB; see"), "{list}");
    let list = user(&world, &["list", "--json"]).succeeded().stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list["removed_users"], &list["removed_bytes"]), (&json!(2), &json!(8192)));
    // The last one is meant unless a number is given.
    let back = user(&world, &["restore", "alice", "--as", "second"]).succeeded();
    let other = format!("another alice is kept: number {}, removed at 20", number(1));
    assert!(back.stderr.contains(&other), "{back}");
    user(&world, &["restore", "alice", "--as", "first", "--number", &number(1)]).succeeded();
    for name in ["first", "second"] {
        fs::copy(&file, world.password_file(name)).unwrap();
        let mount = world.mount(name);
        assert_eq!(mount.shell("cat whose"), name);
        mount.unmount();
    }
    assert_eq!(removed(&world), Vec::<Value>::new());
}

#[test]
fn a_removed_account_takes_its_space_until_its_days_are_over_or_it_is_deleted_before() {
    const SIZE: u64 = 1 << 20;
    let mut world = World::new(&["alice", "bob", "carol"]);
    for name in ["alice", "bob", "carol"] {
        let mount = world.mount(name);
        mount.shell("head -c 1M /dev/urandom > file");
        mount.unmount();
    }
    let is_stored = |world: &World, files: u64| {
        wait_until(&format!("{files} files"), PATIENCE, || {
            stored(world.server.store()) == files * SIZE
        });
    };
    remove(&world, "alice");
    remove(&world, "bob");
    let of_bob = removed(&world)[0].clone();
    assert_eq!((&of_bob["name"], &of_bob["used_bytes"]), (&json!("bob"), &json!(SIZE)));
    assert_eq!(stored(world.server.store()), 3 * SIZE);
    // One that was removed is deleted by its number, and only on purpose.
    let number = of_bob["number"].to_string();
    let line = user(&world, &["remove", "bob", "--yes", "--number", &number]).refused(2);
    assert!(line.contains("--now"), "{line}");
    user(&world, &["remove", "alice", "--now", "--yes", "--number", &number]).refused(7);
    let line = user(&world, &["remove", "bob", "--now", "--yes"]).refused(7);
    let command = format!("xfer-server user remove bob --now --number {number}");
    assert!(line.ends_with(&command), "{line}");
    user(&world, &["remove", "bob", "--now", "--number", &number]).refused(2);
    user(&world, &["remove", "bob", "--now", "--yes", "--number", &number]).succeeded();
    is_stored(&world, 2);
    // Or at once.
    user(&world, &["remove", "carol", "--now", "--yes"]).succeeded();
    is_stored(&world, 1);
    assert_eq!(removed(&world).len(), 1);
    // The server deletes those whose days are over.
    restart_keeping(&mut world, "1");
    let of_alice = removed(&world)[0].clone();
    let (at, gone) = (of_alice["removed_secs"].as_i64(), of_alice["gone_secs"].as_i64());
    assert_eq!(at.map(|at| at + 24 * 60 * 60), gone);
    assert_eq!(stored(world.server.store()), SIZE);
    restart_keeping(&mut world, "0");
    wait_until("alice to be gone", PATIENCE, || removed(&world).is_empty());
    is_stored(&world, 0);
    user(&world, &["restore", "alice"]).refused(7);
    // Where none is kept, a removal is for good.
    world.add_user("dave");
    let done = user(&world, &["remove", "dave", "--yes"]).succeeded();
    assert_eq!((done.stderr.as_str(), removed(&world).len()), ("dave is deleted for good\n", 0));
}

#[test]
fn what_a_deleted_account_had_is_not_set_aside_if_the_server_dies_while_it_is_deleted() {
    let mut world = World::new(&["alice"]);
    let files = world.outside().join("files");
    fs::create_dir(&files).unwrap();
    for file in 0..3000 {
        fs::write(files.join(file.to_string()), "text").unwrap();
    }
    world.server.command(&["import", "alice", files.to_str().unwrap()]).succeeded();
    let store = world.server.store().to_owned();
    assert!(stored(&store) > 0);
    user(&world, &["remove", "alice", "--now", "--yes"]).succeeded();
    world.server.kill();
    let address = world.server.address.to_string();
    world.server = Server::start_with(&store, &address, &[]);
    wait_until("all of it to be gone", PATIENCE, || stored(&store) == 0);
}

#[test]
fn an_invitation_to_a_removed_account_is_void_and_one_without_a_password_says_what_it_needs() {
    let world = World::new(&[]);
    let old = word(&invited(&world, &["add", "alice", "--invite"]));
    remove(&world, "alice");
    let back = user(&world, &["restore", "alice"]).succeeded();
    let needs = "alice cannot log in by a password; run: xfer-server user invite alice";
    assert!(back.stderr.contains(needs), "{back}");
    let password = world.password_file("alice");
    xfer_tests::world::write_secret(&password, "a new password");
    let log_in =
        |word: &str| world.xfer(&["login", word, "--password-file", password.to_str().unwrap()]);
    assert!(log_in(&old).refused(9).contains("the invitation was used already"));
    log_in(&word(&invited(&world, &["invite", "alice"]))).succeeded();
    user(&world, &["disable", "alice"]).succeeded();
    remove(&world, "alice");
    let back = user(&world, &["restore", "alice"]).succeeded();
    assert!(back.stderr.contains("alice is disabled; to undo that: xfer-server user enable alice"));
}

#[test]
fn accounts_are_removed_and_restored_without_a_server_too() {
    let mut world = World::new(&["alice"]);
    let alice = world.mount("alice");
    alice.shell("echo text > file");
    alice.unmount();
    world.server.kill();
    remove(&world, "alice");
    assert_eq!(removed(&world).len(), 1);
    world.server.restart();
    let mount = || run_within(world.mounting("alice").command().arg("-f"), PATIENCE);
    mount().refused(9);
    user(&world, &["restore", "alice"]).succeeded();
    let alice = world.mount("alice");
    assert_eq!(alice.shell("cat file"), "text");
    alice.unmount();
}
