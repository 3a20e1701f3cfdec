//! What is not sent, and what does not arrive yet. Nothing of it is silent, and nothing is lost.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, World, wait_until};

/// How long something is watched that must not happen.
const A_WHILE: Duration = Duration::from_millis(1500);

/// What `xfer status` says of a mount in full.
fn status(mount: &Mount) -> String {
    mount.xfer("status", &[]).succeeded().stdout
}

#[test]
fn arrivals_leave_a_tenth_of_the_quota_free_and_come_when_there_is_room() {
    let world = World::new(&["alice", "bob --quota 10MiB"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("for n in $(seq 12); do head -c 1M /dev/urandom > outbox/bob/$n; done");
    wait_until("eight to arrive", PATIENCE, || {
        fs::read_dir(bob.path("inbox/alice")).is_ok_and(|arrived| arrived.count() == 8)
    });
    wait_until("the rest to wait for room", PATIENCE, || {
        status(&bob).contains("4 of them for room")
    });
    // What is left is the recipient's own.
    bob.shell("head -c 1M /dev/zero > mine");
    assert!(holds_for(A_WHILE, || fs::read_dir(bob.path("inbox/alice")).unwrap().count() == 8));
    bob.shell("rm mine inbox/alice/*");
    wait_until("the rest to arrive", PATIENCE, || {
        fs::read_dir(bob.path("inbox/alice")).unwrap().count() == 4
    });
    bob.unmount();
    alice.unmount();
}
