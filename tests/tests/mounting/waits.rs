//! Waits that must end, caches that must not outlive the truth, and sends that must not be lost:
//! each of these has failed before.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use rustix::fs::{FallocateFlags, OFlags, RawDir};
use xfer_tests::files::{errno, set_xattr};
use xfer_tests::sending::{arrives, wait_for_state};
use xfer_tests::{PATIENCE, World, wait_until};

#[test]
fn hundreds_of_fsyncs_on_an_idle_mount_all_return() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let path = mount.path("file");
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        for _ in 0..300 {
            file.write_all(b"x").unwrap();
            file.sync_all().unwrap();
            let _ = sender.send(());
        }
    });
    for round in 0..300 {
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("fsync {round} does not return"));
    }
    mount.unmount();
}

#[test]
fn fsync_returns_although_another_goes_on_writing() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let file = File::create(mount.path("file")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = OpenOptions::new().append(true).open(mount.path("file")).unwrap();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                writer.write_all(&[7; 512]).unwrap();
            }
        });
        let (sender, receiver) = channel();
        scope.spawn(move || sender.send(file.sync_all()));
        let synced = receiver.recv_timeout(PATIENCE);
        stop.store(true, Ordering::Relaxed);
        synced.expect("fsync does not return beside a writer").unwrap();
    });
    mount.unmount();
}

#[test]
fn a_listing_does_not_bring_back_what_was_moved_away_meanwhile() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir d e && cd d && seq -f 'file %g' 4000 | tr '\\n' '\\0' | xargs -0 touch");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = rustix::fs::open(mount.path("d"), flags, rustix::fs::Mode::empty()).unwrap();
    let mut buffer = Vec::with_capacity(4096);
    let mut listing = RawDir::new(&directory, buffer.spare_capacity_mut());
    listing.next().unwrap().unwrap();
    // The listing has only begun, so all these names were still to come.
    mount.shell("mv d/* e/");
    while let Some(entry) = listing.next() {
        entry.unwrap();
    }
    for number in 1..=4000 {
        assert!(!mount.path(&format!("d/file {number}")).exists(), "file {number} is back");
    }
    drop(directory);
    mount.shell("rmdir d");
    mount.unmount();
}

#[test]
fn a_copy_can_be_read_before_the_server_has_heard_of_it() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("head -c 3000000 /dev/urandom > original");
    mount.unmount();
    // The cache is empty, and the copy waits in the log behind an upload.
    let mount = world.mount("alice");
    for round in 0..5 {
        mount.shell(&format!("head -c 20000000 /dev/zero > upload && cp original copy{round}"));
        mount.shell(&format!("cmp original copy{round}"));
    }
    mount.unmount();
}

#[test]
fn closing_a_growing_file_in_the_outbox_again_and_again_asks_for_room_once() {
    let world = World::new(&["alice", "bob"]);
    world.server.command(&["user", "quota", "bob", "--inbox", "11MiB"]).succeeded();
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let file = File::create(alice.path("outbox/bob/big")).unwrap();
    // Ten times a tenth of what the inbox holds; closing a duplicate counts as a close.
    for tenth in 0..10u64 {
        let part = 1 << 20;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), tenth * part, part).unwrap();
        let duplicate = file.try_clone().unwrap();
        // SAFETY: `into_raw_fd` gives up the duplicate, so nothing else closes the descriptor.
        let closed = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(duplicate)) };
        assert_eq!(closed, 0, "{}", std::io::Error::last_os_error());
    }
    drop(file);
    wait_until("the file to arrive", PATIENCE, || bob.path("inbox/alice/big").exists());
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_is_refused_is_not_sent_after_all_and_stays_a_draft() {
    let world = World::new(&["alice", "bob"]);
    world.server.command(&["user", "quota", "bob", "--inbox", "1MiB"]).succeeded();
    let alice = world.mount("alice");
    let file = File::create(alice.path("outbox/bob/huge")).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    // SAFETY: `into_raw_fd` gives up the file, so nothing else closes the descriptor.
    let closed = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(file)) };
    let error = std::io::Error::last_os_error();
    assert_eq!((closed, error.raw_os_error()), (-1, Some(libc::EDQUOT)));
    alice.sync();
    // It is not a record: it can be changed, and is sent once it fits.
    alice.shell("echo small > outbox/bob/huge");
    let bob = world.mount("bob");
    wait_until("the file to arrive", PATIENCE, || bob.path("inbox/alice/huge").exists());
    assert_eq!(fs::read_to_string(bob.path("inbox/alice/huge")).unwrap(), "small\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_an_earlier_mount_left_unsent_is_sent_when_it_is_whole() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("echo one > outbox/bob/letter.part");
    alice.unmount();
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice
        .shell("echo two >> outbox/bob/letter.part && mv outbox/bob/letter.part outbox/bob/letter");
    wait_until("the letter to arrive", PATIENCE, || bob.path("inbox/alice/letter").exists());
    assert_eq!(fs::read_to_string(bob.path("inbox/alice/letter")).unwrap(), "one\ntwo\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn an_arrival_finds_a_place_although_its_senders_name_is_taken_by_a_file() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    bob.shell("echo mine > inbox/alice");
    alice.shell("echo hello > outbox/bob/letter");
    wait_until("the letter to arrive", PATIENCE, || bob.path("inbox/alice (2)/letter").exists());
    assert_eq!(fs::read_to_string(bob.path("inbox/alice")).unwrap(), "mine\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_user_who_is_removed_and_added_again_is_in_the_outbox_again() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    let mailbox = alice.path("outbox/bob");
    assert!(mailbox.exists());
    world.server.command(&["user", "remove", "bob", "--yes"]).succeeded();
    wait_until("bob to be gone", PATIENCE, || !mailbox.exists());
    assert_eq!(alice.shell("ls outbox"), "");
    assert_eq!(errno(fs::metadata(&mailbox)), libc::ENOENT);
    world.add_user("bob");
    wait_until("bob to be back", PATIENCE, || mailbox.exists());
    assert_eq!(alice.shell("ls outbox"), "bob");
    alice.unmount();
}

#[test]
fn what_stands_in_the_mailbox_of_a_user_who_was_removed_can_be_seen_and_removed() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let mailbox = alice.path("outbox/bob");
    alice.shell("echo draft > outbox/bob/notes.part; echo text > outbox/bob/letter");
    arrives(&bob, "inbox/alice/letter");
    bob.unmount();
    alice.shell("echo text > outbox/bob/late");
    wait_for_state(&mailbox.join("late"), "sent");
    world.server.command(&["user", "remove", "bob", "--yes", "--now"]).succeeded();
    // Deliveries that waited for the user are refused.
    wait_for_state(&mailbox.join("late"), "refused");
    assert_eq!(alice.shell("ls outbox && ls outbox/bob"), "bob\nlate\nletter\nnotes.part");
    assert_eq!(alice.shell("cat outbox/bob/notes.part"), "draft");
    // The news of that comes by another connection.
    wait_until("news of the removal", PATIENCE, || match File::create(mailbox.join("more")) {
        Ok(_) => fs::remove_file(mailbox.join("more")).is_err(),
        created => errno(created) == libc::ENOENT,
    });
    alice.shell("echo text > mine");
    assert_eq!(errno(fs::rename(alice.path("mine"), mailbox.join("mine"))), libc::ENOENT);
    assert_eq!(errno(fs::rename(mailbox.join("notes.part"), mailbox.join("notes"))), libc::ENOENT);
    alice.shell("mv outbox/bob/notes.part notes && rm outbox/bob/*");
    // A thread of its own tells the kernel that.
    wait_until("the mailbox to go", PATIENCE, || errno(fs::metadata(&mailbox)) == libc::ENOENT);
    assert_eq!(alice.shell("ls outbox && cat notes"), "draft");
    alice.unmount();
}

#[test]
fn thousands_of_changes_with_long_names_and_values_go_through() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("touch file");
    for number in 0..200 {
        set_xattr(&mount.path("file"), "user.large", &vec![number as u8; 60_000]).unwrap();
    }
    let name = |number: usize| format!("{number:04}{}", "x".repeat(251));
    for number in 0..4000 {
        fs::write(mount.path(&name(number)), "").unwrap();
    }
    for number in 0..4000 {
        fs::rename(mount.path(&name(number)), mount.path(&name(number + 5000))).unwrap();
    }
    mount.sync();
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls | wc -l"), "4003");
    mount.unmount();
}
