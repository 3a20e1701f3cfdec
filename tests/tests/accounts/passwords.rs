//! Passwords beside keys: what a new one ends, and accounts that take none.
#![allow(clippy::unwrap_used)]

use xfer_tests::programs::run_within;
use xfer_tests::pty::OnPty;
use xfer_tests::{PATIENCE, World, wait_until, world};

use crate::{at, log_in, refused, user};

#[test]
fn a_new_password_ends_the_session_of_the_old_one_and_not_that_of_a_key() {
    let world = World::new(&["alice", "bob"]);
    let file = world.outside().join("new");
    world::write_secret(&file, "a new password");
    let passwd = |name: &str, keys: &str| {
        user(&world, &["passwd", name, "--password-file", file.to_str().unwrap(), keys])
    };
    log_in(&world, "alice", "laptop");
    let mount = world.mounting("alice").by_key().start();
    passwd("alice", "--keep-keys").succeeded();
    mount.shell("echo text > file");
    mount.sync();
    passwd("alice", "--revoke-keys").succeeded();
    wait_until("the end of the session", PATIENCE, || !mount.is_connected());
    drop(mount);
    assert!(refused(&world, "alice", 9).contains("key"));
    let mount = world.mount("bob");
    passwd("bob", "--keep-keys").succeeded();
    wait_until("the end of the session", PATIENCE, || !mount.is_connected());
}

#[test]
fn a_password_command_without_a_terminal_keeps_keys_and_says_so() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let file = world.password_file("alice");
    let set = user(&world, &["passwd", "alice", "--password-file", file.to_str().unwrap()]);
    let set = set.succeeded();
    assert!(set.stderr.contains("user keys revoke alice --all"), "{set}");
    world.mounting("alice").by_key().start().unmount();
}

#[test]
fn an_account_can_take_keys_alone() {
    let world = World::new(&["alice"]);
    let off = user(&world, &["passwords", "alice", "off"]).succeeded();
    assert!(off.stderr.contains("user invite alice"), "{off}");
    user(&world, &["passwords", "alice", "on"]).succeeded();
    log_in(&world, "alice", "laptop");
    let off = user(&world, &["passwords", "alice", "off"]).succeeded();
    assert_eq!(off.stderr, "alice logs in by keys alone\n");
    let file = world.password_file("alice");
    let words = ["passwd", "alice", "--keep-keys", "--password-file", file.to_str().unwrap()];
    let set = user(&world, &words).succeeded();
    assert!(set.stderr.contains("xfer-server user passwords alice on"), "{set}");
    let line = run_within(world.mounting("alice").command().arg("-f"), PATIENCE).refused(9);
    assert!(line.contains("takes no passwords"), "{line}");
    world.mounting("alice").by_key().start().unmount();
}

#[test]
fn users_set_their_own_password_and_are_asked_about_their_other_machines() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    for (answer, left) in [("n\r", 2), ("y\r", 1)] {
        let (target, trust) = (at(&world, "alice"), &world.server.fingerprint);
        // Of another machine, which has no key.
        let mut passwd = world.xfer_command(&["passwd", &target, "--fingerprint", trust]);
        passwd.env("HOME", world.outside());
        let mut passwd = OnPty::start(&passwd);
        passwd.says("Password of alice@");
        passwd.types("the password of alice\r");
        for question in ["New password of alice@", "Again: "] {
            passwd.says(question);
            passwd.types("the password of alice\r");
        }
        passwd.says("1 other machine logs in by a key. Log it out too? [y/N] ");
        passwd.types(answer);
        passwd.says("the password of alice@");
        assert_eq!(passwd.ended(), Some(0), "{}", passwd.said());
        let keys = user(&world, &["keys", "list", "alice"]).succeeded().stdout;
        assert_eq!(keys.lines().count(), left, "{keys}");
    }
    world.mount("alice").unmount();
}
