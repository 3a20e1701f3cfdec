//! Which way leads to a tree that is mounted, here or elsewhere.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use xfer_tests::programs::Running;
use xfer_tests::{PATIENCE, World, wait_until};

use crate::{at, world, write, xfer};

/// Mounts alice's tree as another machine would, where `xfer` of this one does not find it.
fn mounted_elsewhere(world: &World, options: &[&str]) -> PathBuf {
    let home = world.outside().join("another home");
    fs::create_dir_all(home.join("run")).unwrap();
    let (place, run) = (world.mount_point("elsewhere"), home.join("run"));
    let mounting = world.mounting("alice").at(&place).env("HOME", home.to_str().unwrap());
    let mounting = mounting.env("XDG_RUNTIME_DIR", run.to_str().unwrap());
    let mounting = options.iter().fold(mounting, |mounting, option| mounting.arg(option));
    mounting.in_background().succeeded();
    place
}

#[test]
fn an_account_that_is_mounted_elsewhere_is_refused_and_can_be_taken_over() {
    let world = world(&["alice"]);
    let place = mounted_elsewhere(&world, &[]);
    fs::write(place.join("f"), "text").unwrap();
    let line = xfer(&world, &["cat", "{}:f"]).refused(11);
    assert!(line.contains(": the account is in use on ") && line.contains(" since 2"), "{line}");
    assert!(line.ends_with("use --takeover to take the tree from that one"), "{line}");
    let taken = xfer(&world, &["cat", "--takeover", "{}:f"]).succeeded();
    assert_eq!((taken.stdout.as_str(), taken.stderr.as_str()), ("text", ""));
    // That one has it again afterwards.
    assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "text");
}

#[test]
fn a_mount_here_that_lost_the_tree_is_named() {
    let world = world(&["alice"]);
    let mount = world.mount("alice");
    fs::write(mount.path("f"), "text").unwrap();
    let elsewhere = mounted_elsewhere(&world, &["--takeover"]);
    let is_dormant =
        || mount.xfer("status", &["--json"]).succeeded().stdout.contains("\"dormant\"");
    wait_until("the mount to be dormant", PATIENCE, is_dormant);
    let line = xfer(&world, &["cat", "{}:f"]).refused(11);
    let root = mount.root().display();
    assert!(line.contains(&format!("mounted at {root}, but the client on ")), "{line}");
    assert!(line.ends_with("take the tree from it with --takeover"), "{line}");
    assert_eq!(xfer(&world, &["cat", "--takeover", "{}:f"]).succeeded().stdout, "text");
    assert_eq!(fs::read_to_string(elsewhere.join("f")).unwrap(), "text");
}

#[test]
fn a_mount_without_a_process_is_named_and_its_session_replaced() {
    let world = world(&["alice"]);
    let mut mount = world.mount("alice");
    fs::write(mount.path("f"), "text").unwrap();
    mount.sync();
    mount.signal(Signal::KILL);
    mount.ended();
    let done = xfer(&world, &["cat", "{}:f"]).succeeded();
    assert_eq!(done.stdout, "text");
    let remedy = format!("remove it with: xfer unmount {}", mount.root().display());
    assert!(done.stderr.contains(&remedy), "{done}");
    assert_eq!(done.stderr.lines().count(), 1, "{done}");
}

#[test]
fn a_mount_here_does_the_work_and_its_programs_see_it_at_once() {
    let world = world(&["alice"]);
    let mount = world.mount("alice");
    write(&world, "f", "text");
    xfer(&world, &["put", "f", "{}:"]).succeeded();
    assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "text");
    fs::write(mount.path("g"), "more").unwrap();
    assert_eq!(xfer(&world, &["cat", "{}:g"]).succeeded().stdout, "more");
    // No path leads out of it.
    std::os::unix::fs::symlink("/etc", mount.path("etc")).unwrap();
    let line = xfer(&world, &["cat", "{}:etc/passwd"]).refused(1);
    assert_eq!(line, "xfer: cannot read '/etc/passwd': not a directory");
    mount.unmount();
    assert_eq!(xfer(&world, &["cat", "{}:f"]).succeeded().stdout, "text");
}

#[test]
fn a_password_is_asked_for_only_on_a_terminal_and_may_come_from_a_file() {
    let world = World::new(&["alice"]);
    let place = format!("{}:", at(&world, "alice"));
    let trust = ["--fingerprint", &world.server.fingerprint];
    let line = world.xfer(&[&["ls", &place][..], &trust].concat()).refused(2);
    assert!(line.contains("no terminal to ask for the password on"), "{line}");
    let file = world.password_file("alice");
    let password = ["--password-file", file.to_str().unwrap()];
    let listed = world.xfer(&[&["ls", &place][..], &trust, &password].concat()).succeeded();
    assert_eq!(listed.stdout, "inbox\noutbox\n");
    let line = world.xfer(&["ls", &place]).refused(8);
    assert!(line.contains("--fingerprint sha256:"), "{line}");
    let line = world.xfer(&["ls", "alice@127.0.0.1:1:"]).refused(6);
    assert!(line.contains("connection refused"), "{line}");
}

#[test]
fn a_session_that_the_administrator_ends_is_said_and_the_rest_is_not_tried() {
    let world = world(&["alice"]);
    let (account, name) = (at(&world, "alice"), "ended by the server's administrator");
    let in_session = || {
        let sessions = || world.server.command(&["session", "list"]).succeeded().stdout;
        wait_until("its session", PATIENCE, || sessions().contains("alice"));
    };
    let mut put = world.xfer_command(&["put", "-", &format!("{account}:f")]);
    put.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut put = put.spawn().unwrap();
    let mut input = put.stdin.take().unwrap();
    input.write_all(b"text").unwrap();
    in_session();
    world.server.command(&["session", "end", "alice"]).succeeded();
    // It may have noticed already, and take nothing more.
    let _ = input.write_all(&[1; 8 << 20]);
    drop(input);
    let ended = put.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().contains(&format!("{account}: {name}")), "{said}");
    assert!(said.lines().count() <= 2 && !said.contains("input/output error"), "{said}");

    // Of many files, none is tried any more.
    let mount = world.mount("alice");
    mount.shell("mkdir many; seq 3000 | (cd many; xargs touch)");
    mount.unmount();
    for words in [&["cp", "-r", ":many", ":copy"][..], &["rm", "-r", ":many"]] {
        let places = words[2..].iter().map(|place| format!("{account}{place}"));
        let words: Vec<String> =
            words[..2].iter().map(|word| (*word).to_owned()).chain(places).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = Running::start(&mut world.xfer_command(&words));
        in_session();
        command.signal(Signal::STOP);
        world.server.command(&["session", "end", "alice"]).succeeded();
        command.signal(Signal::CONT);
        assert_eq!(command.ended_within(PATIENCE), Some(1), "{}", command.said());
        let said = command.said();
        assert!(said.contains(name) && said.lines().count() <= 4, "{words:?}: {said}");
    }

    let mut follower = Running::start(&mut world.xfer_command(&["inbox", "--follow", &account]));
    in_session();
    world.server.command(&["session", "end", "alice"]).succeeded();
    assert_eq!(follower.ended_within(PATIENCE), Some(1), "{}", follower.said());
    assert!(follower.said().contains(name), "{}", follower.said());
}
