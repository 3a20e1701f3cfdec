//! Keys, by which machines log in without a password.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use xfer_tests::programs::run_within;
use xfer_tests::pty::OnPty;
use xfer_tests::{PATIENCE, World, wait_until};

use crate::{at, log_in, refused, user};

#[test]
fn a_machine_that_logged_in_once_mounts_without_a_password_and_is_listed() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let mount = world.mounting("alice").by_key().start();
    mount.shell("echo text > file");
    mount.unmount();
    let key = world.home().join(".local/state/xfer/keys").join(at(&world, "alice"));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let trust = ["--fingerprint", &world.server.fingerprint];
    let listed = world.xfer(&[&["keys", &at(&world, "alice")][..], &trust].concat()).succeeded();
    assert!(listed.stdout.contains("laptop  enrolled ") && listed.stdout.contains("this machine"));
    let listed = user(&world, &["keys", "list", "alice", "--json"]).succeeded().stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["label"], "laptop");
    assert!(listed[0]["used_secs"].is_number() && listed[1].is_null(), "{listed}");
    // A second login gives it no second key.
    log_in(&world, "alice", "portable");
    let listed = user(&world, &["keys", "list", "alice"]).succeeded().stdout;
    assert!(listed.contains("portable") && !listed.contains("laptop"), "{listed}");
}

#[test]
fn a_machine_that_logged_out_is_not_known_any_more() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let (target, trust) = (at(&world, "alice"), ["--fingerprint", &world.server.fingerprint]);
    let log_out = || world.xfer(&[&["logout", &target][..], &trust].concat());
    log_out().succeeded();
    let listed = user(&world, &["keys", "list", "alice"]).succeeded().stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let line = refused(&world, "alice", 2);
    assert!(line.contains("no terminal to ask for the password on"), "{line}");
    let line = log_out().refused(1);
    assert!(line.contains("has no key for"), "{line}");
}

#[test]
fn logging_out_under_a_mount_is_asked_first_and_loses_nothing() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let (target, trust) = (at(&world, "alice"), ["--fingerprint", &world.server.fingerprint]);
    let log_out = [&["logout", &target][..], &trust].concat();
    // A mount by the password goes on.
    let mount = world.mount("alice");
    world.xfer(&log_out).succeeded();
    mount.shell("echo one > one");
    mount.unmount();
    log_in(&world, "alice", "laptop");
    let mut mount = world.mounting("alice").by_key().start();
    mount.shell("echo two > two");
    let place = mount.root().display().to_string();
    let said = format!("{target} is mounted by this key at {place}; logging out ends that");
    let line = world.xfer(&log_out).refused(2);
    assert!(line.contains(&said) && line.ends_with("or give --yes"), "{line}");
    let mut asked = OnPty::start(&world.xfer_command(&log_out));
    asked.says("Log out? [y/N]");
    asked.types("n\r");
    assert_eq!(asked.ended(), Some(1), "{}", asked.said());
    assert!(asked.said().contains(&said) && asked.said().contains("still logged in"));
    mount.shell("seq 10000 > three");
    world.xfer(&[&log_out[..], &["--yes"]].concat()).succeeded();
    mount.says("ended by the server's administrator");
    mount.unmounted_by_force();
    assert_eq!(world.rescue(&["list"]).succeeded().stdout, "nothing was rescued\n");
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat one two && wc -l < three"), "one\ntwo\n10000");
    mount.unmount();
}

#[test]
fn a_logout_asks_only_about_mounts_that_its_key_has_begun() {
    let world = World::new(&["alice"]);
    let target = at(&world, "alice");
    log_in(&world, "alice", "laptop");
    let mount = world.mounting("alice").by_key().start();
    world.xfer(&["logout", "--local", &target]).succeeded();
    log_in(&world, "alice", "laptop again");
    world.xfer(&["logout", &target, "--fingerprint", &world.server.fingerprint]).succeeded();
    mount.shell("echo text > file");
    mount.unmount();
}

#[test]
fn a_revoked_key_ends_its_session_and_is_refused_with_what_to_do() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let mut mount = world.mounting("alice").by_key().start();
    mount.shell("echo text > file");
    user(&world, &["keys", "revoke", "alice", "laptop"]).succeeded();
    mount.says("ended by the server's administrator");
    mount.unmounted_by_force();
    let line = refused(&world, "alice", 9);
    let target = at(&world, "alice");
    assert!(line.ends_with(&format!("log in again: xfer login {target}")), "{line}");
    // What it had sent is there.
    let mount = world.mount("alice");
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "text\n");
    mount.unmount();
    let line = user(&world, &["keys", "revoke", "alice", "laptop"]).refused(7);
    assert!(line.contains("user keys list alice"), "{line}");
}

#[test]
fn an_expired_key_is_refused_at_the_next_login_and_keeps_its_session() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let mount = world.mounting("alice").by_key().start();
    user(&world, &["keys", "expire", "alice", "laptop", "--within", "0"]).succeeded();
    mount.shell("echo text > file");
    mount.sync();
    mount.unmount();
    let line = refused(&world, "alice", 9);
    assert!(line.contains("has expired"), "{line}");
    user(&world, &["keys", "expire", "alice", "laptop", "--within", "never"]).succeeded();
    world.mounting("alice").by_key().start().unmount();
}

#[test]
fn a_session_of_a_key_goes_on_when_the_server_was_restarted_and_the_key_was_not_revoked() {
    let mut world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let mount = world.mounting("alice").by_key().arg("-o").arg("wait=forever").start();
    for is_crash in [true, false] {
        if is_crash {
            world.server.kill();
            world.server.restart();
        }
        mount.shell("echo text >> file");
        mount.sync();
    }
    world.server.kill();
    world.server.restart();
    wait_until("the connection", PATIENCE, || mount.is_connected());
    user(&world, &["keys", "revoke", "alice", "--all"]).succeeded();
    wait_until("the end of the session", PATIENCE, || !mount.is_connected());
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let key = world.home().join(".local/state/xfer/keys").join(at(&world, "alice"));
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let line = refused(&world, "alice", 2);
    assert!(line.ends_with(&format!("others can read it; run: chmod 600 {}", key.display())));
    // What can't be used can be forgotten.
    fs::write(&key, "damaged").unwrap();
    world.xfer(&["logout", "--local", &at(&world, "alice")]).succeeded();
    assert!(!key.exists());
    let line = world.xfer(&["logout", "--local", &at(&world, "alice")]).refused(1);
    assert!(line.contains("this machine has no key"), "{line}");
}

#[test]
fn a_login_with_a_wrong_password_leaves_no_key() {
    let world = World::new(&["alice"]);
    let (target, wrong) = (at(&world, "alice"), world.outside().join("wrong"));
    xfer_tests::world::write_secret(&wrong, "wrong");
    let trust = ["--fingerprint", &world.server.fingerprint];
    let password = ["--password-file", wrong.to_str().unwrap()];
    let log_in = || world.xfer(&[&["login", &target][..], &trust, &password].concat());
    let line = log_in().refused(9);
    assert!(line.contains("wrong user name or password"), "{line}");
    let keys = fs::read_dir(world.home().join(".local/state/xfer/keys")).unwrap();
    assert_eq!(keys.count(), 0);
    for _ in 0..4 {
        log_in();
    }
    let line = log_in().refused(10);
    assert!(line.contains("; try again in"), "{line}");
    // The account itself is mounted with a key all the same.
    assert_eq!(run_within(&mut world.xfer_command(&["status"]), PATIENCE).code, Some(0));
}

#[test]
fn a_key_still_logs_in_where_passwords_are_blocked() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let wrong = world.outside().join("wrong");
    xfer_tests::world::write_secret(&wrong, "wrong");
    for _ in 0..6 {
        let mut command = world.mounting("alice").password_file(&wrong).command();
        assert_ne!(run_within(command.arg("-f"), PATIENCE).code, Some(0));
    }
    world.mounting("alice").by_key().start().unmount();
}

#[test]
fn what_a_machine_keeps_of_its_logins_is_where_xdg_state_home_says() {
    let world = World::new(&["alice"]);
    let state = world.outside().join("state");
    let (target, password) = (at(&world, "alice"), world.password_file("alice"));
    let mut login = world.xfer_command(&["login", &target, "--accept-new", "--password-file"]);
    run_within(login.arg(password).env("XDG_STATE_HOME", &state), PATIENCE).succeeded();
    let key = fs::metadata(state.join("xfer/keys").join(&target)).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let mount = || world.mounting("alice").by_settings();
    let there = mount().env("XDG_STATE_HOME", state.to_str().unwrap()).start();
    there.shell("echo text > file");
    there.unmount();
    assert!(!world.home().join(".local").exists());
    // Elsewhere neither the server nor the key is known.
    mount().in_background().refused(8);
    refused(&world, "alice", 2);
    // A relative path is ignored (XDG Base Directory Specification).
    mount().env("XDG_STATE_HOME", "state").in_background().refused(8);
}
