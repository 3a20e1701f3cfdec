//! Accounts that are disabled, and that expire.
#![allow(clippy::unwrap_used)]

use std::fs;

use xfer_tests::sending::arrives;
use xfer_tests::{PATIENCE, World, run_within, wait_until};

use crate::{at, log_in, refused, user};

const WHY: &str = "has disabled this account, or it has expired; ask the administrator";

#[test]
fn a_disabled_account_can_not_log_in_in_any_way_until_it_is_enabled() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    user(&world, &["disable", "alice"]).succeeded();
    assert!(user(&world, &["list"]).succeeded().stdout.contains("disabled"));
    assert!(refused(&world, "alice", 9).contains(WHY));
    let mut command = world.mounting("alice").command();
    let line = run_within(command.arg("-f"), PATIENCE).refused(9);
    assert!(line.contains(WHY), "{line}");
    let keys =
        world.xfer(&["keys", &at(&world, "alice"), "--fingerprint", &world.server.fingerprint]);
    assert!(keys.refused(9).contains(WHY));
    // Whoever does not know the password hears what anybody hears.
    let wrong = world.outside().join("wrong");
    xfer_tests::world::write_secret(&wrong, "wrong");
    let mut command = world.mounting("alice").password_file(&wrong).command();
    let line = run_within(command.arg("-f"), PATIENCE).refused(9);
    assert!(line.contains("wrong user name or password"), "{line}");
    user(&world, &["enable", "alice"]).succeeded();
    world.mounting("alice").by_key().start().unmount();
}

#[test]
fn disabling_an_account_ends_its_session_and_keeps_its_files_and_what_others_send() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("echo text > file && sync file");
    user(&world, &["disable", "alice"]).succeeded();
    wait_until("the end of the session", PATIENCE, || !alice.is_connected());
    drop(alice);
    bob.shell("echo letter > letter && mv letter outbox/alice/");
    bob.sync();
    user(&world, &["enable", "alice"]).succeeded();
    let elsewhere = world.mount_point("elsewhere");
    let alice = world.mounting("alice").at(&elsewhere).start();
    assert_eq!(fs::read_to_string(alice.path("file")).unwrap(), "text\n");
    arrives(&alice, "inbox/bob/letter");
    alice.unmount();
    bob.unmount();
}

#[test]
fn an_account_expires_at_its_time_and_the_list_says_when() {
    let world = World::new(&["alice"]);
    user(&world, &["expire", "alice", "--within", "30"]).succeeded();
    let list = user(&world, &["list"]).succeeded().stdout;
    assert!(list.contains("until 20"), "{list}");
    let mount = world.mount("alice");
    user(&world, &["expire", "alice", "--within", "0"]).succeeded();
    wait_until("the end of the session", PATIENCE, || !mount.is_connected());
    drop(mount);
    let mut command = world.mounting("alice").command();
    assert!(run_within(command.arg("-f"), PATIENCE).refused(9).contains(WHY));
    // To expire later is no way to be enabled.
    for within in ["never", "3"] {
        let line = user(&world, &["expire", "alice", "--within", within]).refused(1);
        assert!(line.contains("alice is disabled; to undo that"), "{line}");
    }
    user(&world, &["enable", "alice"]).succeeded();
    world.mount("alice").unmount();
    let days = user(&world, &["expire", "alice", "--within", "soon"]);
    assert!(days.refused(2).contains("a number, or never"));
}
