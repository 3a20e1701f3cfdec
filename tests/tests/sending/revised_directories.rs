//! Directories that were sent, and are changed after that: they are sent again, whole.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use xfer_tests::sending::{A_WHILE, arrives, wait_for_state};
use xfer_tests::snapshot::{Snapshot, snapshot};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, World};

/// The number of things that have arrived from alice.
fn arrived(bob: &Mount) -> usize {
    fs::read_dir(bob.path("inbox/alice")).map_or(0, |entries| entries.count())
}

/// What is in a directory, without what xfer says of it.
fn looks(directory: &Path) -> Snapshot {
    let mut looks = snapshot(directory);
    for look in looks.values_mut() {
        let (kind, rest) = look.split_once(" xattrs={").unwrap();
        *look = format!("{kind}{}", rest.split_once('}').unwrap().1);
    }
    looks
}

/// Has alice send a directory, and waits for it.
fn send_album(alice: &Mount, bob: &Mount) {
    alice.shell(
        "mkdir -p album/sub; echo one > album/one; echo two > album/sub/two; mv album outbox/bob/",
    );
    arrives(bob, "inbox/alice/album");
    wait_for_state(&alice.path("outbox/bob/album"), "received");
}

#[test]
fn a_directory_that_was_sent_is_sent_again_whole_when_anything_in_it_is_made_or_written() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    send_album(&alice, &bob);
    alice.shell("echo three > three; echo elsewhere > elsewhere");
    let changes = [
        "echo new > new",
        "echo more >> one",
        "mkdir made",
        "truncate -s 1 sub/two",
        "ln -s one link",
        "ln one again",
        "ln ~-/elsewhere linked; rm ~-/elsewhere",
        "mv new renamed",
        "mv ~-/three sub/",
        "cp -r ../album/sub copied",
        "rsync -a --inplace sub/ copied/; dd if=/dev/zero of=sub/three bs=1k count=9 conv=notrunc 2>&1",
        // At several places, with pauses in between, is one change.
        "for i in 1 2 3; do echo $i > part$i; sleep 0.4; done",
    ];
    for (index, change) in changes.into_iter().enumerate() {
        alice.shell(&format!("cd outbox/bob/album; {change}"));
        let name = format!("inbox/alice/album ({})", index + 2);
        let album = arrives(&bob, &name);
        wait_for_state(&alice.path("outbox/bob/album"), "received");
        assert_eq!(looks(&album), looks(&alice.path("outbox/bob/album")), "{change}");
        assert_eq!(arrived(&bob), index + 2, "{change}");
    }
    // The first version is what it was.
    assert_eq!(bob.shell("cd inbox/alice/album; find . -type f | sort | xargs cat"), "one\ntwo");
    // Removing something is no new version, nor is looking, or setting attributes.
    alice.shell(
        "cd outbox/bob/album; rm part1; rm -r copied; chmod 600 one; touch one; cat one
         python3 -c 'open(\"one\", \"r+\")'",
    );
    assert!(holds_for(A_WHILE * 2, || arrived(&bob) == changes.len() + 1));
    // Nor is another name in the mailbox.
    alice.shell("mv outbox/bob/album outbox/bob/renamed; test -e outbox/bob/renamed/one");
    wait_for_state(&alice.path("outbox/bob/renamed"), "received");
    assert!(holds_for(A_WHILE * 2, || arrived(&bob) == changes.len() + 1));
    alice.shell("rm -r outbox/bob/renamed");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_whose_copy_pauses_for_long_arrives_complete_in_the_end() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("mkdir outbox/bob/slow; echo 1 > outbox/bob/slow/first");
    arrives(&bob, "inbox/alice/slow");
    wait_for_state(&alice.path("outbox/bob/slow"), "received");
    alice.shell("echo 2 > outbox/bob/slow/second");
    arrives(&bob, "inbox/alice/slow (2)");
    assert_eq!(bob.shell("cat 'inbox/alice/slow (2)/first' 'inbox/alice/slow (2)/second'"), "1\n2");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_later_mount_and_a_program_without_one_can_change_what_was_sent() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    send_album(&alice, &bob);
    alice.unmount();
    let alice = world.mount("alice");
    // Nothing of the directory is known yet.
    alice.shell("echo again > outbox/bob/album/sub/two");
    arrives(&bob, "inbox/alice/album (2)");
    assert_eq!(bob.shell("cat 'inbox/alice/album (2)/sub/two'"), "again");
    wait_for_state(&alice.path("outbox/bob/album"), "received");
    alice.unmount();
    let account = format!("alice@{}", world.server.address);
    let file = world.password_file("alice");
    let password = ["--password-file", file.to_str().unwrap()];
    fs::write(world.outside().join("new"), "by xfer").unwrap();
    let new = world.outside().join("new");
    let to = format!("{account}:outbox/bob/album/new");
    world
        .xfer(&[&["put", new.to_str().unwrap(), &to, "--accept-new"][..], &password].concat())
        .succeeded();
    arrives(&bob, "inbox/alice/album (3)");
    assert_eq!(
        bob.shell("cat 'inbox/alice/album (3)/new' 'inbox/alice/album (3)/one'"),
        "by xferone"
    );
    bob.unmount();
}

#[test]
fn what_could_not_be_made_in_a_directory_that_was_sent_leaves_it_a_record() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    send_album(&alice, &bob);
    alice.shell("echo letter > outbox/bob/letter");
    arrives(&bob, "inbox/alice/letter");
    alice.shell(
        "cd outbox/bob; mkdir ~-/other
         fails mkdir album/one; fails ln letter album/letter; fails mv ~-/inbox album/
         fails mv -T ~-/other album; fails bash -Cc 'echo > album/one'",
    );
    assert!(holds_for(A_WHILE * 2, || arrived(&bob) == 2));
    wait_for_state(&alice.path("outbox/bob/album"), "received");
    bob.unmount();
    alice.unmount();
}
