//! Invitations: a line to paste, good for one machine.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use xfer_tests::programs::program;
use xfer_tests::pty::OnPty;
use xfer_tests::{World, world};

use crate::{at, refused, user, xfer_of};

/// Invites a user, and returns the line to paste.
#[track_caller]
pub fn invited(world: &World, arguments: &[&str]) -> String {
    let host = world.server.address.to_string();
    let invited = user(world, &[arguments, &["--host", &host]].concat()).succeeded();
    assert!(invited.stderr.contains("good for one machine, until "), "{invited}");
    invited.stdout.trim_end().to_owned()
}

/// A shell that runs this line with the programs that are tested.
fn pasted(world: &World, line: &str) -> Command {
    let mut shell = Command::new("bash");
    let programs = program("xfer").parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    world.at_home(shell.args(["-c", line])).env("PATH", path);
    shell
}

/// The word that an invitation's line passes to `xfer login`.
pub fn word(line: &str) -> String {
    line.split('\'').nth(1).unwrap().to_owned()
}

#[test]
fn a_pasted_invitation_trusts_the_server_sets_the_password_and_makes_the_key() {
    let world = World::new(&[]);
    let line = invited(&world, &["add", "alice", "--invite"]);
    assert!(line.starts_with(&format!("xfer login '{}#", at(&world, "alice"))), "{line}");
    let mut login = OnPty::start(&pasted(&world, &line));
    for question in ["New password of alice@", "Again: "] {
        login.says(question);
        login.types("the password of alice\r");
    }
    login.says("logs in to alice@");
    assert_eq!(login.ended(), Some(0), "{}", login.said());
    let known = fs::read_to_string(world.home().join(".local/state/xfer/known_hosts")).unwrap();
    assert_eq!(known, format!("{} {}\n", world.server.address, world.server.fingerprint));
    // Neither the password nor the fingerprint is needed.
    let mut mount = Command::new(program("xfer-mount"));
    world.at_home(&mut mount).arg(at(&world, "alice")).arg(world.mount_point("alice"));
    let mounted = xfer_tests::programs::run_within(&mut mount, xfer_tests::PATIENCE);
    mounted.succeeded();
    world.xfer(&["unmount", world.mount_point("alice").to_str().unwrap()]).succeeded();
    // The password is the one that was typed.
    world::write_secret(&world.password_file("alice"), "the password of alice");
    world.mount("alice").unmount();
}

#[test]
fn an_invitation_is_good_for_one_machine() {
    let world = World::new(&["alice"]);
    let word = word(&invited(&world, &["invite", "alice"]));
    let new = world.outside().join("new");
    world::write_secret(&new, "a new password");
    let log_in =
        |home: &Path| xfer_of(home, &["login", &word, "--password-file", new.to_str().unwrap()]);
    log_in(&world.home()).succeeded();
    // It may not have heard the answer.
    log_in(&world.home()).succeeded();
    let line = log_in(&world.outside()).refused(9);
    // Nor does it set another password, and the key stays.
    let other = world.outside().join("other");
    world::write_secret(&other, "another password");
    let again = world.xfer(&["login", &word, "--password-file", other.to_str().unwrap()]);
    assert!(again.refused(9).contains("the invitation was used already"));
    let mut mount = Command::new(program("xfer-mount"));
    world.at_home(&mut mount).arg(at(&world, "alice")).arg(world.mount_point("alice"));
    xfer_tests::programs::run_within(&mut mount, xfer_tests::PATIENCE).succeeded();
    world.xfer(&["unmount", world.mount_point("alice").to_str().unwrap()]).succeeded();
    world::write_secret(&world.password_file("alice"), "a new password");
    world.mount("alice").unmount();
    world::write_secret(&world.password_file("alice"), "the password of alice");
    assert!(line.contains("the invitation was used already"), "{line}");
    let keys = user(&world, &["keys", "list", "alice"]).succeeded().stdout;
    assert_eq!(keys.lines().count(), 2, "{keys}");
    // The old password is not good any more.
    let mut old = world.mounting("alice").command();
    xfer_tests::programs::run_within(old.arg("-f"), xfer_tests::PATIENCE).refused(9);
}

#[test]
fn a_used_invitation_is_refused_before_a_password_is_typed() {
    let world = World::new(&["alice"]);
    let line = invited(&world, &["invite", "alice"]);
    // The user turns away from the question, and comes back.
    let mut first = OnPty::start(&pasted(&world, &line));
    first.says("New password of alice@");
    first.types("\x03");
    first.says("this machine is logged in, but no password was set");
    assert_eq!(first.ended(), Some(130), "{}", first.said());
    world.mount("alice").unmount();
    let mut again = OnPty::start(&pasted(&world, &line));
    for question in ["New password of alice@", "Again: "] {
        again.says(question);
        again.types("a new password\r");
    }
    assert_eq!(again.ended(), Some(0), "{}", again.said());
    world::write_secret(&world.password_file("alice"), "a new password");
    world.mount("alice").unmount();
    // Another machine is too late.
    let mut other = pasted(&world, &line);
    let mut other = OnPty::start(other.env("HOME", world.outside()));
    assert_eq!(other.ended(), Some(9), "{}", other.said());
    assert!(other.said().contains("the invitation was used already"), "{}", other.said());
    assert!(!other.said().contains("New password"), "{}", other.said());
}

#[test]
fn an_invitation_that_was_changed_or_cut_off_is_refused_before_anything_is_sent() {
    let world = World::new(&["alice"]);
    let word = word(&invited(&world, &["invite", "alice"]));
    let line = world.xfer(&["login", &word[..word.len() - 1], "--password-stdin"]).refused(2);
    assert!(line.contains("paste all of it"), "{line}");
    // Another server's fingerprint.
    let (account, rest) = word.split_at(word.len() - 4);
    let other = format!("{account}{}", if rest == "AAAA" { "BBBB" } else { "AAAA" });
    let line = world.xfer(&["login", &other, "--password-stdin"]).refused(8);
    assert!(line.contains("shows the certificate"), "{line}");
    // A wrong code counts as a wrong password does.
    let at = word.find('#').unwrap() + 1;
    let wrong = format!("{}{}{}", &word[..at], "0000", &word[at + 4..]);
    let password = world.password_file("alice");
    let log_in = || world.xfer(&["login", &wrong, "--password-file", password.to_str().unwrap()]);
    for _ in 0..5 {
        let line = log_in().refused(9);
        assert!(line.contains("the invitation was used already"), "{line}");
    }
    assert!(log_in().refused(10).contains("blocked"));
}

#[test]
fn an_account_that_was_only_invited_to_takes_no_password() {
    let world = World::new(&[]);
    let file = world.password_file("alice");
    world::write_secret(&file, "");
    invited(&world, &["add", "alice", "--invite"]);
    for text in ["any", "*", "!"] {
        world::write_secret(&file, text);
        let mut command = world.mounting("alice").command();
        let finished = xfer_tests::programs::run_within(command.arg("-f"), xfer_tests::PATIENCE);
        let line = finished.refused(9);
        assert!(line.contains("wrong user name or password"), "{line}");
    }
    assert!(refused(&world, "alice", 2).contains("no terminal"));
}

#[test]
fn an_invitation_before_the_servers_first_start_names_the_certificate_that_it_will_have() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let command = |arguments: &[&str]| world::server::command(&store, arguments);
    let host = "127.0.0.1:1";
    let add = ["user", "add", "alice", "--invite", "--host", host];
    let line = command(&add).succeeded();
    assert!(line.stderr.starts_with(&format!("made a new store in {}\n", store.display())));
    assert!(!line.stderr.contains("port"), "{line}");
    let line = line.stdout;
    let fingerprint = command(&["fingerprint"]).succeeded().stdout;
    let word = word(&line);
    let invitation = word.split('#').nth(1).unwrap();
    let invitation: xfer_protocol::invitation::Invitation = invitation.parse().unwrap();
    let told = xfer_client::connect::Fingerprint::from(invitation.fingerprint).to_string();
    assert_eq!(told, fingerprint.trim_end());
    // The port of the server is not known, so the line that names one says so.
    let invited = command(&["user", "invite", "alice", "--host", "localhost"]).succeeded();
    let port = "no server runs on this store, so the line names port 33000; to name another: \
                --host localhost:PORT\n";
    assert!(invited.stderr.contains(port), "{invited}");
    assert!(invited.stdout.starts_with("xfer login 'alice@localhost#"), "{invited}");
}

#[test]
fn an_invitation_is_not_among_the_arguments_of_a_process_while_the_password_is_asked_for() {
    let world = World::new(&[]);
    let line = invited(&world, &["add", "alice", "--invite"]);
    let word = word(&line);
    let code = word.split('#').nth(1).unwrap();
    let mut login = OnPty::start(&pasted(&world, &format!("exec {line}")));
    login.says("New password of alice@");
    let seen = Command::new("ps").args(["-eww", "-o", "args"]).output().unwrap().stdout;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.lines().any(|line| line == "xfer login"), "{seen}");
    assert!(!seen.lines().any(|line| line.starts_with("xfer") && line.contains(code)), "{seen}");
    login.types("the password of alice\r");
    login.says("Again: ");
    login.types("the password of alice\r");
    login.says("logs in to alice@");
    assert_eq!(login.ended(), Some(0), "{}", login.said());
}

#[test]
fn an_invitation_that_is_not_given_is_asked_for_and_may_be_pasted_with_its_command() {
    let world = World::new(&[]);
    let line = invited(&world, &["add", "alice", "--invite"]);
    let mut login = OnPty::start(&pasted(&world, "exec xfer login"));
    login.says("Account (USER@HOST), or the invitation: ");
    login.types(&format!("{line}\r"));
    for question in ["New password of alice@", "Again: "] {
        login.says(question);
        login.types("the password of alice\r");
    }
    login.says("logs in to alice@");
    assert_eq!(login.ended(), Some(0), "{}", login.said());
    let line = world.xfer(&["login"]).refused(2);
    assert!(line.contains("give an account, or an invitation"), "{line}");
}

#[test]
fn an_invitation_takes_no_other_word_for_the_server_and_does_not_replace_a_known_certificate() {
    let world = World::new(&["alice"]);
    let word = word(&invited(&world, &["invite", "alice"]));
    let password = world.password_file("alice");
    let password = ["--password-file", password.to_str().unwrap()];
    let log_in = |more: &[&str]| world.xfer(&[&["login", &word][..], &password, more].concat());
    let zeros = format!("sha256:{}", "0".repeat(64));
    for trust in [&["--fingerprint", zeros.as_str()][..], &["--accept-new"]] {
        let line = log_in(trust).refused(2);
        assert!(line.contains("an invitation says itself which server to trust"), "{line}");
    }
    let known_hosts = world.home().join(".local/state/xfer/known_hosts");
    fs::create_dir_all(known_hosts.parent().unwrap()).unwrap();
    let other = format!("{} {zeros}\n", world.server.address);
    fs::write(&known_hosts, &other).unwrap();
    let line = log_in(&[]).refused(8);
    assert!(line.contains("has changed: it was") && line.contains("delete that line"), "{line}");
    assert_eq!(fs::read_to_string(&known_hosts).unwrap(), other);
    fs::remove_file(&known_hosts).unwrap();
    log_in(&[]).succeeded();
}

#[test]
fn an_invitation_names_the_port_on_which_the_server_listens() {
    let world = World::new(&["alice"]);
    let invited = user(&world, &["invite", "alice", "--host", "127.0.0.1"]).succeeded().stdout;
    assert!(invited.contains(&format!("alice@{}#", world.server.address)), "{invited}");
    for wrong in ["", "a b", "x'y", "::1", "h:99999", "http://x/"] {
        let line = user(&world, &["invite", "alice", "--host", wrong]).refused(2);
        assert!(line.contains("a host name, or an address"), "{line}");
    }
}

#[test]
fn a_used_invitation_is_void_once_keys_are_revoked_or_a_password_is_set() {
    let world = World::new(&["alice"]);
    let password = world.password_file("alice");
    let password = ["--password-file", password.to_str().unwrap()];
    let other = world.outside().join("other");
    world::write_secret(&other, "another password");
    let other = other.to_str().unwrap();
    let voids: [&[&str]; 3] = [
        &["keys", "revoke", "alice", "--all"],
        &["passwd", "alice", password[0], other, "--revoke-keys"],
        &["passwd", "alice", password[0], other, "--keep-keys"],
    ];
    for void in voids {
        let word = word(&invited(&world, &["invite", "alice"]));
        let log_in = || world.xfer(&[&["login", &word][..], &password].concat());
        log_in().succeeded();
        user(&world, void).succeeded();
        let line = log_in().refused(9);
        assert!(line.contains("the invitation was used already"), "{void:?}: {line}");
    }
}
