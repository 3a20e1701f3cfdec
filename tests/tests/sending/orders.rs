//! Orders for files in the outbox: to send one as it is, or not to send it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use xfer_tests::files::{errno, set_xattr};
use xfer_tests::sending::{
    arrives, nothing_arrives, state, wait_for_state, with_little_room, with_small_inbox, writer,
};
use xfer_tests::{PATIENCE, World, wait_until};

fn order(path: &Path, order: &str) -> i32 {
    errno(set_xattr(path, "user.xfer.state", order.as_bytes()).map_err(Into::into))
}

#[test]
fn an_order_sends_what_is_held_or_at_rest_as_it_is() {
    let (world, alice, bob) = with_little_room();
    let mailbox = alice.path("outbox/bob");
    let path = |name: &str| mailbox.join(name);
    alice.shell("mkdir outbox/bob/album");
    // Unless this machine is so busy that it is sent already.
    assert!([0, libc::EEXIST].contains(&order(&path("album"), "send")));
    alice.shell("echo half > outbox/bob/letter.part; : > outbox/bob/empty");
    let mut killed = writer(&path("killed"));
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_for_state(&path("killed"), "held: the writing program was killed");
    let directory = alice.path("album");
    fs::create_dir(&directory).unwrap();
    let mut photo = writer(&directory.join("photo"));
    fs::rename(&directory, path("torn")).unwrap();
    photo.kill().unwrap();
    photo.wait().unwrap();
    wait_for_state(&path("torn"), "held: the writing program was killed");
    for name in ["letter.part", "empty", "killed", "torn"] {
        assert_eq!(order(&path(name), "send"), 0, "{name}: {}", state(&path(name)));
        arrives(&bob, &format!("inbox/alice/{name}"));
        wait_for_state(&path(name), "received");
    }
    arrives(&bob, "inbox/alice/album");
    assert_eq!(bob.shell("cat inbox/alice/letter.part inbox/alice/torn/photo"), "half\npart");
    bob.unmount();
    alice.unmount();
    drop(world);
}

#[test]
fn what_is_cancelled_is_not_sent_until_it_is_written_again_or_ordered() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let mailbox = alice.path("outbox/bob");
    let path = |name: &str| mailbox.join(name);
    // Made so that they wait for long enough to be cancelled.
    let names = ["letter.part", "notes~", "kept.tmp"];
    for name in names {
        alice.shell(&format!("echo one > outbox/bob/{name}"));
        assert_eq!(order(&path(name), "cancel"), 0);
        assert_eq!(state(&path(name)), "held: cancelled");
    }
    alice.shell("mkdir outbox/bob/album && echo x > outbox/bob/album/x");
    assert_eq!(order(&path("album"), "cancel"), 0);
    nothing_arrives(&bob);
    nothing_arrives(&bob);
    alice.unmount();
    let alice = world.mount("alice");
    wait_for_state(&path("album"), "held: cancelled");
    nothing_arrives(&bob);
    assert_eq!(order(&path("album"), "send"), 0);
    arrives(&bob, "inbox/alice/album/x");
    alice.shell(
        "echo two > outbox/bob/letter.part; mv outbox/bob/notes~ .; mv notes~ outbox/bob/notes",
    );
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/letter.part")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/notes")).unwrap(), "one\n");
    assert_eq!(state(&path("kept.tmp")), "held: cancelled");
    bob.unmount();
    alice.unmount();
}

#[test]
fn an_order_that_can_not_be_carried_out_says_why_and_changes_nothing() {
    let world = with_small_inbox(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let mailbox = alice.path("outbox/bob");
    let path = |name: &str| mailbox.join(name);
    alice.shell("echo text > mine; echo text > outbox/bob/sent; mkdir outbox/bob/album");
    assert_eq!(order(&alice.path("mine"), "send"), libc::EINVAL);
    arrives(&bob, "inbox/alice/sent");
    wait_for_state(&path("sent"), "received");
    assert_eq!(order(&path("sent"), "send"), libc::EEXIST);
    assert_eq!(order(&path("sent"), "cancel"), libc::EEXIST);
    let mut open = File::create(path("album/open")).unwrap();
    open.write_all(b"part").unwrap();
    assert_eq!(order(&path("album"), "send"), libc::EBUSY);
    // What a copy brings along is no order.
    for value in ["waiting: sent after 1 s without a change", "sent", "", "sending"] {
        assert_eq!(order(&path("album"), value), libc::EOPNOTSUPP, "{value:?}");
    }
    drop(open);
    bob.unmount();
    alice.shell("head -c 60000 /dev/zero > big; mv big outbox/bob/; ");
    alice.shell("head -c 9000 /dev/zero > outbox/bob/large.part");
    assert_eq!(order(&path("large.part"), "send"), libc::EDQUOT);
    wait_for_state(&path("large.part"), "waiting: the inbox of bob is full");
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/large.part");
    wait_until("all to be received", PATIENCE, || state(&path("album")).starts_with("received"));
    bob.unmount();
    alice.unmount();
}

#[test]
fn the_table_of_all_mounts_names_what_is_not_sent_and_says_to_whom() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    let table = || world.xfer(&["status"]).succeeded().stdout;
    let place = alice.root().display().to_string();
    assert!(!table().contains(&format!("{place}: not sent")), "{}", table());
    for index in 0..7 {
        let name = format!("f{index}.part");
        alice.shell(&format!("echo x > outbox/bob/{name}"));
        assert_eq!(order(&alice.path(&format!("outbox/bob/{name}")), "cancel"), 0);
    }
    let shown = table();
    assert!(shown.contains(&format!("{place}: not sent: 7 held\n")), "{shown}");
    assert!(shown.contains("\n  f4.part to bob: held: cancelled\n"), "{shown}");
    let more = format!("\n  and 2 more: xfer outbox alice@{}\n", world.server.address);
    assert!(shown.contains(&more) && !shown.contains("f5.part"), "{shown}");
    alice.unmount();
}
