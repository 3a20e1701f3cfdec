//! Directories that are moved into the outbox while programs write to files in them: each is sent
//! completely or not at all.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;

use rustix::fs::FallocateFlags;
use xfer_tests::sending::{
    arrives, nothing_arrives, status, wait_for_state, with_little_room, with_small_inbox, writer,
};
use xfer_tests::{Mount, World};

const MIB: u64 = 1 << 20;

#[test]
fn a_directory_is_sent_when_nobody_writes_to_a_file_in_it_any_more() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("mkdir album");
    let mut file = File::create(alice.path("album/photo")).unwrap();
    file.write_all(b"half, ").unwrap();
    alice.shell("mv album outbox/bob/");
    nothing_arrives(&bob);
    file.write_all(b"and whole").unwrap();
    drop(file);
    let photo = arrives(&bob, "inbox/alice/album/photo");
    assert_eq!(fs::read_to_string(photo).unwrap(), "half, and whole");
    wait_for_state(&alice.path("outbox/bob/album"), "received");
    bob.unmount();
    alice.unmount();
}

/// Moves a directory to bob while a write to a file in it fails.
fn move_a_torn_directory(alice: &Mount) {
    alice.shell("mkdir -p album/2024");
    let mut photo = File::create(alice.path("album/2024/photo")).unwrap();
    photo.write_all(b"half").unwrap();
    alice.shell("mv album outbox/bob/");
    rustix::fs::fallocate(&photo, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
}

fn is_torn(alice: &Mount, bob: &Mount, why: &str) {
    wait_for_state(&alice.path("outbox/bob/album"), why);
    alice.sync();
    nothing_arrives(bob);
    let status = status(alice);
    assert!(status.contains(&format!("outbox/bob/album: {why}")), "{status}");
}

#[test]
fn a_directory_says_that_it_waits_for_a_program_that_writes_in_it() {
    let (_world, alice, bob) = with_little_room();
    alice.shell("mkdir album");
    let mut first = File::create(alice.path("album/first")).unwrap();
    alice.shell("mv album outbox/bob/");
    wait_for_state(&alice.path("outbox/bob/album"), "writing");
    // A write that begins later delays the sending, too.
    let mut second = File::create(alice.path("outbox/bob/album/second")).unwrap();
    first.write_all(b"1").unwrap();
    drop(first);
    nothing_arrives(&bob);
    wait_for_state(&alice.path("outbox/bob/album"), "writing");
    second.write_all(b"2").unwrap();
    drop(second);
    arrives(&bob, "inbox/alice/album");
    assert_eq!(bob.shell("cat inbox/alice/album/first inbox/alice/album/second"), "12");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_of_which_a_file_could_not_be_written_is_not_sent() {
    let (world, alice, bob) = with_little_room();
    move_a_torn_directory(&alice);
    is_torn(&alice, &bob, "failed: quota exceeded");
    alice.unmount();
    let alice = world.mount("alice");
    is_torn(&alice, &bob, "failed: quota exceeded");
    // Repairing this file is not enough: an earlier mount may have left others incomplete.
    alice.shell("echo whole > outbox/bob/album/2024/photo");
    is_torn(&alice, &bob, "failed: quota exceeded");
    // Moved out and back in, it is sent as it is.
    alice.shell("mv outbox/bob/album mine && mv mine outbox/bob/album");
    let photo = arrives(&bob, "inbox/alice/album/2024/photo");
    assert_eq!(fs::read_to_string(photo).unwrap(), "whole\n");
    bob.unmount();
    alice.unmount();
}

/// Makes a directory incomplete, repairs it with `mend`, and checks that it is sent.
fn check_mended(mend: &str, expected: &str) {
    let (_world, alice, bob) = with_little_room();
    move_a_torn_directory(&alice);
    is_torn(&alice, &bob, "failed: quota exceeded");
    alice.shell(mend);
    arrives(&bob, "inbox/alice/album");
    assert_eq!(bob.shell("cd inbox/alice/album && find . -type f -exec cat {} +"), expected);
    wait_for_state(&alice.path("outbox/bob/album"), "received");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_is_sent_once_what_is_torn_in_it_is_written_anew_or_gone() {
    check_mended("echo whole > outbox/bob/album/2024/photo", "whole");
    check_mended("rm outbox/bob/album/2024/photo", "");
    check_mended("echo new > new; mv new outbox/bob/album/2024/photo", "new");
    check_mended("mv outbox/bob/album . && mv album outbox/bob/", "half");
    check_mended("mv outbox/bob/album/2024/photo .", "");
    check_mended("mv outbox/bob/album/2024 .", "");
    check_mended("ln outbox/bob/album/2024/photo kept && rm outbox/bob/album/2024/photo", "");
}

#[test]
fn a_directory_stays_held_until_all_that_is_torn_in_it_is_mended() {
    let (_world, alice, bob) = with_little_room();
    alice.shell("mkdir album");
    let mut writers = ["one", "two"].map(|name| writer(&alice.path(&format!("album/{name}"))));
    alice.shell("mv album outbox/bob/");
    for writer in &mut writers {
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    is_torn(&alice, &bob, "held: the writing program was killed");
    alice.shell("echo whole > outbox/bob/album/one");
    is_torn(&alice, &bob, "held: the writing program was killed");
    alice.shell("echo whole > outbox/bob/album/two");
    arrives(&bob, "inbox/alice/album");
    assert_eq!(bob.shell("cat inbox/alice/album/*"), "whole\nwhole");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_that_waits_for_room_is_held_if_the_mount_dies_while_a_file_in_it_is_written() {
    let world = with_small_inbox(&["alice", "bob"]);
    let (mut alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("mkdir -p album/2024");
    let mut photo = File::create(alice.path("album/2024/photo")).unwrap();
    alice.shell("mv album outbox/bob/");
    photo.write_all(&[1; 90_000]).unwrap();
    drop(photo);
    wait_for_state(&alice.path("outbox/bob/album"), "waiting: the inbox of bob is full");
    let mut photo = File::create(alice.path("outbox/bob/album/2024/photo")).unwrap();
    photo.write_all(b"half").unwrap();
    alice.sync();
    alice.die();
    drop(photo);
    let alice = world.mount("alice");
    is_torn(&alice, &bob, "held: the mount ended before it was sent");
    bob.unmount();
    alice.unmount();
}

/// A world where bob's inbox is full and an album waits for room in it.
fn with_waiting_album() -> (World, Mount, Mount) {
    let world = with_small_inbox(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("mkdir album && echo whole > album/photo && ln album/photo outside");
    let mut large = File::create(alice.path("album/large")).unwrap();
    alice.shell("mv album outbox/bob/");
    large.write_all(&[1; 90_000]).unwrap();
    drop(large);
    wait_for_state(&alice.path("outbox/bob/album"), "waiting: the inbox of bob is full");
    (world, alice, bob)
}

/// Leaves something unfinished in a waiting album when the mount dies, then makes room.
fn check_held(begin: impl FnOnce(&Mount) -> File) {
    let (world, mut alice, bob) = with_waiting_album();
    let unfinished = begin(&alice);
    alice.sync();
    alice.die();
    drop(unfinished);
    world.server.command(&["user", "quota", "bob", "--inbox", "1GiB"]).succeeded();
    let alice = world.mount("alice");
    is_torn(&alice, &bob, "held: the mount ended before it was sent");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_waiting_directory_is_held_though_a_file_in_it_was_written_under_another_name() {
    check_held(|alice| {
        let mut outside = File::create(alice.path("outside")).unwrap();
        outside.write_all(b"half").unwrap();
        outside
    });
}

#[test]
fn a_waiting_directory_is_held_though_what_is_written_was_moved_or_made_in_it() {
    check_held(|alice| {
        alice.shell("mkdir late");
        let mut file = File::create(alice.path("late/file")).unwrap();
        file.write_all(b"half").unwrap();
        alice.shell("mv late outbox/bob/album/");
        file
    });
    check_held(|alice| File::create(alice.path("outbox/bob/album/new")).unwrap());
}

#[test]
fn what_could_not_be_written_before_it_was_moved_in_is_not_sent_when_it_is_closed() {
    let (_world, alice, bob) = with_little_room();
    alice.shell("mkdir album");
    for name in ["album/photo", "file"] {
        let file = File::create(alice.path(name)).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
        let to = alice.path("outbox/bob").join(name.split('/').next().unwrap());
        fs::rename(alice.path(name.split('/').next().unwrap()), &to).unwrap();
        drop(file);
        wait_for_state(&to, "failed: quota exceeded");
    }
    nothing_arrives(&bob);
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_was_closed_before_it_is_moved_in_is_sent_as_it_is_whatever_else_is_not_sent() {
    let (_world, alice, bob) = with_little_room();
    alice.shell("mkdir busy album");
    let busy = File::create(alice.path("busy/file")).unwrap();
    alice.shell("mv busy outbox/bob/");
    for name in ["album/photo", "file"] {
        let mut file = File::create(alice.path(name)).unwrap();
        file.write_all(b"part").unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
        drop(file);
    }
    alice.shell("mv album file outbox/bob/");
    arrives(&bob, "inbox/alice/album/photo");
    arrives(&bob, "inbox/alice/file");
    wait_for_state(&alice.path("outbox/bob/busy"), "writing");
    drop(busy);
    arrives(&bob, "inbox/alice/busy");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_torn_file_keeps_a_directory_held_though_its_name_in_another_mailbox_goes() {
    for go in
        ["rm outbox/bob/file", "mv outbox/bob/file .", "echo new > new; mv new outbox/bob/file"]
    {
        let world = World::new(&["alice", "bob", "carol"]);
        let (alice, carol) = (world.mount("alice"), world.mount("carol"));
        let mut writer = writer(&alice.path("outbox/bob/file"));
        alice.shell("mkdir album && ln outbox/bob/file album/file && mv album outbox/carol/");
        writer.kill().unwrap();
        writer.wait().unwrap();
        let album = alice.path("outbox/carol/album");
        wait_for_state(&album, "held: the writing program was killed");
        alice.shell(go);
        alice.shell("mkdir other && touch moved && mv moved other/");
        nothing_arrives(&carol);
        wait_for_state(&album, "held: the writing program was killed");
        alice.shell("echo whole > outbox/carol/album/file");
        arrives(&carol, "inbox/alice/album/file");
        carol.unmount();
        alice.unmount();
    }
}

#[test]
fn a_directory_is_sent_once_what_is_written_went_from_it() {
    for go in ["rm outbox/bob/album/2024/file", "mv outbox/bob/album/2024 ."] {
        let (_world, alice, bob) = with_little_room();
        alice.shell("mkdir -p album/2024");
        let open = File::create(alice.path("album/2024/file")).unwrap();
        alice.shell("mv album outbox/bob/");
        wait_for_state(&alice.path("outbox/bob/album"), "writing");
        alice.shell(go);
        arrives(&bob, "inbox/alice/album");
        drop(open);
        bob.unmount();
        alice.unmount();
    }
}
