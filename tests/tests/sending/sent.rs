//! Sending between users, as the sender, the recipient and their programs see it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use xfer_tests::files::{errno, make_tree, xattr, xattr_text, xattrs};
use xfer_tests::sending::{A_WHILE, arrives, send_at_once, wait_for_state};
use xfer_tests::snapshot::snapshot;
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, World, wait_until};

#[test]
fn a_file_dropped_in_the_outbox_is_in_the_inbox_at_once() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("echo hello > letter.txt && touch -d '2001-02-03 04:05:06 UTC' letter.txt");
    alice.shell("setfattr -n user.colour -v green letter.txt && cp -a letter.txt outbox/bob/");
    let letter = arrives(&bob, "inbox/alice/letter.txt");
    assert_eq!(fs::read_to_string(&letter).unwrap(), "hello\n");
    assert_eq!(bob.shell("stat -c %Y inbox/alice/letter.txt"), "981173106");
    assert_eq!(xattr_text(&letter, "user.xfer.from").unwrap(), "alice");
    let sent = xattr_text(&letter, "user.xfer.sent").unwrap();
    assert!(sent.starts_with("20") && sent.ends_with('Z'), "{sent}");
    wait_for_state(&alice.path("outbox/bob/letter.txt"), "received");
    // A file that arrived is the recipient's own, ordinary file.
    bob.shell("echo more >> inbox/alice/letter.txt && mv inbox/alice/letter.txt .");
    assert_eq!(fs::read_to_string(alice.path("outbox/bob/letter.txt")).unwrap(), "hello\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn the_senders_record_stays_until_it_is_removed() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("echo hello > outbox/bob/letter");
    let record = alice.path("outbox/bob/letter");
    wait_for_state(&record, "sent");
    assert_eq!(fs::read_to_string(&record).unwrap(), "hello\n");
    assert_eq!(alice.shell("mv outbox/bob/letter outbox/bob/renamed && ls outbox/bob"), "renamed");
    fs::remove_file(alice.path("outbox/bob/renamed")).unwrap();
    // Removing the record does not take back the delivery.
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/letter");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_recipient_who_is_away_finds_it_at_the_next_mount() {
    let mut world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("echo hello > outbox/bob/letter");
    alice.unmount();
    assert_eq!(world.server.terminate(), Some(0));
    world.server.restart();
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/letter");
    bob.unmount();
    let alice = world.mount("alice");
    wait_for_state(&alice.path("outbox/bob/letter"), "received");
    alice.unmount();
    // Exactly once: it must not arrive again.
    let bob = world.mount("bob");
    let only_it = || fs::read_dir(bob.path("inbox/alice")).unwrap().count() == 1;
    assert!(holds_for(A_WHILE, only_it));
    bob.unmount();
}

#[test]
fn a_second_file_of_one_name_gets_a_number() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    for text in ["one", "two", "three"] {
        alice.shell("rm -f outbox/bob/a.txt");
        alice.shell(&send_at_once(text, "a.txt"));
    }
    arrives(&bob, "inbox/alice/a (3).txt");
    assert_eq!(bob.shell("cat 'inbox/alice/a.txt'"), "one");
    assert_eq!(bob.shell("cat 'inbox/alice/a (2).txt'"), "two");
    assert_eq!(bob.shell("cat 'inbox/alice/a (3).txt'"), "three");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_moved_into_the_outbox_is_sent_whole() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    make_tree(&alice.path("album"), 120, 7);
    alice.shell("ln -s d00 album/link && mkdir album/empty");
    let before = snapshot(&alice.path("album"));
    alice.shell("mv album outbox/bob/");
    let album = arrives(&bob, "inbox/alice/album");
    // Complete when it appears: compare it at once, without waiting.
    assert_eq!(snapshot(&album), before);
    wait_for_state(&alice.path("outbox/bob/album"), "received");
    alice.shell("rm -r outbox/bob/album");
    bob.unmount();
    alice.unmount();
}

#[test]
fn temporary_names_wait_for_their_rename() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let temporary =
        [".x.swp", ".goutputstream-AB12CD", "film.part", ".~lock.x.odt#", ".name.Ab12Cd", "x~"];
    for name in temporary {
        fs::write(alice.path("outbox/bob").join(name), name).unwrap();
    }
    alice.sync();
    let nothing = || fs::read_dir(bob.path("inbox")).unwrap().next().is_none();
    assert!(holds_for(A_WHILE, nothing), "{}", bob.shell("find inbox"));
    fs::rename(alice.path("outbox/bob/film.part"), alice.path("outbox/bob/film")).unwrap();
    arrives(&bob, "inbox/alice/film");
    assert_eq!(bob.shell("ls -A inbox/alice"), "film");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_is_sent_when_its_last_writer_closes_it_and_not_before() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let path = alice.path("outbox/bob/slow");
    let mut one = File::create(&path).unwrap();
    let two = File::options().append(true).open(&path).unwrap();
    one.write_all(b"first half, ").unwrap();
    drop(two);
    one.sync_all().unwrap();
    assert!(holds_for(A_WHILE, || !bob.path("inbox/alice/slow").exists()));
    one.write_all(b"second half").unwrap();
    drop(one);
    let letter = arrives(&bob, "inbox/alice/slow");
    assert_eq!(fs::read_to_string(letter).unwrap(), "first half, second half");
    bob.unmount();
    alice.unmount();
}

#[test]
fn rsync_and_tar_into_the_outbox_send_each_file_once() {
    let world = World::new(&["alice", "bob"]);
    let source = world.outside();
    fs::write(source.join("one"), "1").unwrap();
    fs::write(source.join("two"), "2").unwrap();
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell(&format!("rsync -a '{}'/one outbox/bob/", source.display()));
    alice.shell(&format!("tar -C '{}' -cf - two | tar -C outbox/bob -xf -", source.display()));
    arrives(&bob, "inbox/alice/one");
    arrives(&bob, "inbox/alice/two");
    assert!(holds_for(A_WHILE, || fs::read_dir(bob.path("inbox/alice")).unwrap().count() == 2));
    bob.unmount();
    alice.unmount();
}

#[test]
fn programs_that_watch_the_inbox_are_told() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("echo first > outbox/bob/first");
    arrives(&bob, "inbox/alice/first");
    let mut command = Command::new("inotifywait");
    command.args(["-m", "-e", "create,moved_to", "--format", "%f"]).arg(bob.path("inbox/alice"));
    let mut watcher = xfer_tests::programs::Running::start(command.stderr(Stdio::piped()));
    watcher.line("the watch", |line| line.contains("Watches established").then_some(()));
    alice.shell("echo second > outbox/bob/second");
    watcher.line("the event", |line| (line == "second").then_some(()));
    assert_eq!(bob.shell("cat inbox/alice/second"), "second");
    drop(watcher);
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_user_who_is_not_there_is_no_such_file() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    fs::write(alice.path("letter"), "x").unwrap();
    assert_eq!(errno(fs::write(alice.path("outbox/carol/letter"), "x")), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(alice.path("outbox/carol"))), libc::ENOENT);
    let moved = fs::rename(alice.path("letter"), alice.path("outbox/carol/letter"));
    assert_eq!(errno(moved), libc::ENOENT);
    // A user added later can be sent to without a remount.
    world.add_user("carol");
    wait_until("carol's mailbox", PATIENCE, || alice.path("outbox/carol").is_dir());
    alice.shell("mv letter outbox/carol/");
    let carol = world.mount("carol");
    arrives(&carol, "inbox/alice/letter");
    carol.unmount();
    alice.unmount();
}

#[test]
fn a_full_inbox_is_told_to_the_sender_at_the_system_call() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    // More than an inbox may hold, allocated but never written.
    alice.shell("fallocate -l 1100M big && echo x > small");
    let (big, to) = (alice.path("big"), alice.path("outbox/bob/big"));
    assert_eq!(errno(fs::rename(&big, &to)), libc::EDQUOT);
    assert!(big.exists() && !to.exists());
    fs::rename(alice.path("small"), alice.path("outbox/bob/small")).unwrap();
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/small");
    bob.unmount();
    alice.unmount();
}

#[test]
fn two_users_send_to_each_other_while_a_third_mounts_and_unmounts() {
    let world = World::new(&["alice", "bob", "carol"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    const EACH: usize = 40;
    std::thread::scope(|scope| {
        for (from, to) in [(&alice, "bob"), (&bob, "alice")] {
            scope.spawn(move || {
                for index in 0..EACH {
                    let text = format!("{to} {index}");
                    fs::write(from.path(&format!("outbox/{to}/n{index}")), text).unwrap();
                }
            });
        }
        for round in 0..4 {
            let carol = world.mount("carol");
            fs::write(carol.path("outbox/alice").join(format!("c{round}")), "carol").unwrap();
            carol.unmount();
        }
    });
    for (mount, me, other) in [(&alice, "alice", "bob"), (&bob, "bob", "alice")] {
        for index in 0..EACH {
            let path = arrives(mount, &format!("inbox/{other}/n{index}"));
            assert_eq!(fs::read_to_string(path).unwrap(), format!("{me} {index}"));
        }
    }
    (0..4).for_each(|round| drop(arrives(&alice, &format!("inbox/carol/c{round}"))));
    let count = |mount: &Mount, from: &str| fs::read_dir(mount.path(from)).unwrap().count();
    assert!(holds_for(A_WHILE, || count(&alice, "inbox/bob") == EACH));
    assert_eq!((count(&bob, "inbox/alice"), count(&alice, "inbox/carol")), (EACH, 4));
    bob.unmount();
    alice.unmount();
}

#[test]
fn attributes_of_users_travel_and_those_of_xfer_do_not() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice
        .shell("echo x > f && chmod 4755 f && setfattr -n user.note -v keep f && mv f outbox/bob/");
    let letter = arrives(&bob, "inbox/alice/f");
    assert_eq!(xattr(&letter, "user.note").unwrap(), b"keep");
    assert_eq!(xattr(&letter, "user.xfer.state"), None);
    assert_eq!(bob.shell("stat -c %a inbox/alice/f"), "755");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_link_that_was_sent_lists_no_attribute_that_nobody_can_read() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("mkdir d && echo x > d/file && ln -s nowhere d/link && mv d outbox/bob/");
    assert_eq!(xattrs(&alice.path("outbox/bob/d/link")).len(), 0);
    assert_eq!(xattrs(&alice.path("outbox/bob/d/file")).len(), 1);
    alice.shell("cp -a outbox/bob/d copy");
    alice.unmount();
}
