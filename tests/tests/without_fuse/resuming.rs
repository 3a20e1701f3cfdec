//! Transfers that break off: the next one moves the rest, and no half file is ever seen.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use xfer_tests::programs::{Running, run_by};
use xfer_tests::{PATIENCE, Relay, World, wait_until};

use crate::{bytes, log_in_at, names, read, world, write, xfer};

/// The size of the files, in bytes.
const SIZE: u64 = 96 << 20;

/// How much has moved when a transfer is killed, in bytes.
const KILLED_AT: u64 = 32 << 20;

/// What a session, the parts and the rest of a chunk may take beside a transfer, in bytes.
const BESIDE: u64 = 4 << 20;

/// A world with a relay that counts what passes, and the account there.
fn counted() -> (World, Relay, String) {
    let world = world(&["alice"]);
    let relay = Relay::to(world.server.address);
    let account = format!("alice@{}", relay.address);
    log_in_at(&world, &account, "alice");
    (world, relay, account)
}

fn start(world: &World, arguments: &[&str]) -> Running {
    Running::start(world.xfer_command(arguments).current_dir(world.outside()))
}

/// The part in a directory, if there is one.
fn part(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.to_str().unwrap().ends_with(".part"))
}

#[test]
fn a_fetch_that_was_killed_is_resumed_and_moves_only_the_rest() {
    let (world, relay, account) = counted();
    write(&world, "big", bytes(SIZE as usize));
    xfer(&world, &["put", "big", "{}:"]).succeeded();
    let place = format!("{account}:big");
    let killed = start(&world, &["get", &place, "back"]);
    let size = || part(&world.outside()).map_or(0, |part| fs::metadata(part).unwrap().len());
    wait_until("a part", PATIENCE, || size() > KILLED_AT);
    killed.signal(Signal::KILL);
    drop(killed);
    assert!(!world.outside().join("back").exists());
    let fetched = size();
    let before = relay.passed().down;
    world.xfer(&["get", &place, world.outside().join("back").to_str().unwrap()]).succeeded();
    assert!(read(&world, "back") == bytes(SIZE as usize));
    let moved = relay.passed().down - before;
    assert!(moved < SIZE - fetched + BESIDE, "{moved} although {fetched} were there");
    assert_eq!(names(&world.outside()), ["back", "big"]);
}

#[test]
fn a_store_that_was_killed_is_resumed_and_moves_only_the_rest() {
    let (world, relay, account) = counted();
    write(&world, "big", bytes(SIZE as usize));
    let begun = relay.passed().up;
    let arguments = ["put", "big", &format!("{account}:")];
    let killed = start(&world, &arguments);
    wait_until("a part", PATIENCE, || relay.passed().up - begun > KILLED_AT);
    killed.signal(Signal::KILL);
    drop(killed);
    // Readers see the part and no file.
    let listed = world.xfer(&["ls", &format!("{account}:")]).succeeded().stdout;
    assert!(listed.starts_with("big.xfer-") && listed.contains(".part\ninbox"), "{listed}");
    let stored = world.xfer(&["du", "-s", &format!("{account}:")]).succeeded().stdout;
    let stored: u64 = stored.split('\t').next().unwrap().parse::<u64>().unwrap() << 10;
    assert!(stored > KILLED_AT / 2, "{stored}");
    let before = relay.passed().up;
    world.xfer_command(&[]);
    start(&world, &arguments).ended_within(PATIENCE);
    let moved = relay.passed().up - before;
    assert!(moved < SIZE - stored + BESIDE, "{moved} although {stored} were there");
    assert_eq!(xfer(&world, &["ls", "{}:"]).succeeded().stdout, "big\ninbox\noutbox\n");
    xfer(&world, &["get", "{}:big", "back"]).succeeded();
    assert!(read(&world, "back") == bytes(SIZE as usize));
}

#[test]
fn a_part_of_a_file_that_has_changed_since_is_dropped() {
    let (world, _relay, account) = counted();
    write(&world, "big", bytes(SIZE as usize));
    xfer(&world, &["put", "big", "{}:"]).succeeded();
    let killed = start(&world, &["get", &format!("{account}:big"), "back"]);
    let directory = world.outside();
    let has_part = || part(&directory).is_some_and(|part| fs::metadata(part).unwrap().len() > 0);
    wait_until("a part", PATIENCE, has_part);
    killed.signal(Signal::KILL);
    drop(killed);
    write(&world, "big", "another");
    let mut put = start(&world, &["put", "big", &format!("{account}:")]);
    assert_eq!(put.ended_within(PATIENCE), Some(0), "{}", put.said());
    world.xfer(&["get", &format!("{account}:big"), directory.join("back").to_str().unwrap()]);
    assert_eq!(read(&world, "back"), b"another");
    assert_eq!(names(&directory), ["back", "big"]);
}

#[test]
fn two_that_fetch_the_same_do_not_write_into_one_part() {
    let (world, relay, account) = counted();
    write(&world, "big", bytes(SIZE as usize));
    xfer(&world, &["put", "big", "{}:"]).succeeded();
    let mount = world.mounting("alice").through(relay.address).start();
    let place = format!("{account}:big");
    let first = start(&world, &["get", &place, "back"]);
    wait_until("a part", PATIENCE, || part(&world.outside()).is_some());
    first.signal(Signal::STOP);
    let back = world.outside().join("back");
    let second = world.xfer(&["get", &place, back.to_str().unwrap()]);
    if !back.exists() {
        let line = second.refused(1);
        assert!(line.ends_with("another xfer is fetching it"), "{line}");
    }
    first.signal(Signal::CONT);
    let mut first = first;
    assert_eq!(first.ended_within(PATIENCE), Some(0), "{}", first.said());
    assert!(read(&world, "back") == bytes(SIZE as usize));
    mount.unmount();
}

#[test]
fn a_user_who_has_had_enough_waits_for_nothing_and_the_next_command_resumes() {
    let (world, relay, account) = counted();
    write(&world, "big", bytes(SIZE as usize));
    let begun = relay.passed().up;
    let arguments = ["put", "big", &format!("{account}:")];
    let mut interrupted = start(&world, &arguments);
    wait_until("a part", PATIENCE, || relay.passed().up - begun > KILLED_AT);
    interrupted.signal(Signal::INT);
    assert_eq!(interrupted.ended_within(PATIENCE), Some(130), "{}", interrupted.said());
    assert_eq!(interrupted.said(), "xfer: interrupted");
    let before = relay.passed().up;
    assert_eq!(start(&world, &arguments).ended_within(PATIENCE), Some(0));
    assert!(relay.passed().up - before < SIZE - KILLED_AT / 2);
    xfer(&world, &["get", "{}:big", "back"]).succeeded();
    assert!(read(&world, "back") == bytes(SIZE as usize));
    // One that waits for its input ends as well.
    let mut command = world.xfer_command(&["put", "-", &format!("{account}:f")]);
    let mut waiting = command.stdin(Stdio::piped()).spawn().unwrap();
    // It stays open.
    let _input = waiting.stdin.take();
    let status = || world.server.command(&["session", "list"]).succeeded().stdout;
    wait_until("its session", PATIENCE, || status().contains("alice"));
    let line = world.xfer(&["ls", &format!("{account}:")]).refused(11);
    assert!(line.contains("the account is in use on"), "{line}");
    wait_until("a process that ends in order", PATIENCE, || catches_interrupts(waiting.id()));
    let pid = rustix::process::Pid::from_raw(waiting.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    let listed = world.xfer(&["ls", &format!("{account}:")]).succeeded().stdout;
    assert!(!listed.lines().any(|name| name == "f"), "{listed}");
}

#[test]
fn a_server_that_is_started_again_in_the_middle_breaks_no_transfer() {
    let mut world = world(&["alice"]);
    write(&world, "big", bytes(SIZE as usize));
    let place = format!("{}:", crate::at(&world, "alice"));
    let sent = |world: &World| space_of(world.server.store());
    let mut put = start(&world, &["put", "big", &place]);
    wait_until("some of it", PATIENCE, || sent(&world) > KILLED_AT);
    world.server.kill();
    world.server.restart();
    assert_eq!(put.ended_within(PATIENCE), Some(0), "{}", put.said());
    let mut get = start(&world, &["get", &format!("{place}big"), "back"]);
    wait_until("a part", PATIENCE, || part(&world.outside()).is_some());
    world.server.kill();
    world.server.restart();
    assert_eq!(get.ended_within(PATIENCE), Some(0), "{}", get.said());
    assert!(read(&world, "back") == bytes(SIZE as usize));
}

#[test]
fn a_signal_that_was_ignored_before_interrupts_nothing() {
    let world = world(&["alice"]);
    let place = format!("{}:f", crate::at(&world, "alice"));
    let xfer_put = world.xfer_command(&["put", "-", &place]);
    let mut command = Command::new("nohup");
    run_by(&mut command, &xfer_put);
    world.at_home(&mut command).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut waiting = command.spawn().unwrap();
    let mut input = waiting.stdin.take().unwrap();
    let sessions = || world.server.command(&["session", "list"]).succeeded().stdout;
    wait_until("its session", PATIENCE, || sessions().contains("alice"));
    let pid = rustix::process::Pid::from_raw(waiting.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    input.write_all(b"text").unwrap();
    drop(input);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert_eq!(xfer(&world, &["cat", "{}:f"]).succeeded().stdout, "text");
}

/// Whether a process handles SIGINT by itself.
fn catches_interrupts(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap() & 0b10 != 0
}

/// The bytes of all files below a directory.
fn space_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => space_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn a_part_that_may_be_of_somebody_else_is_not_continued() {
    let world = world(&["alice"]);
    write(&world, "big", bytes(SIZE as usize));
    xfer(&world, &["put", "big", "{}:f"]).succeeded();
    let place = format!("{}:f", crate::at(&world, "alice"));
    let killed = start(&world, &["get", &place, "back"]);
    wait_until("a part", PATIENCE, || part(&world.outside()).is_some());
    killed.signal(Signal::KILL);
    drop(killed);
    let part = part(&world.outside()).unwrap();
    fs::hard_link(&part, world.outside().join("mine")).unwrap();
    let line = xfer(&world, &["get", "{}:f", "back"]).refused(1);
    let name = part.file_name().unwrap().to_str().unwrap();
    assert!(line.contains(&format!("cannot write '{name}': it belongs to another")), "{line}");
    fs::remove_file(world.outside().join("mine")).unwrap();
    std::os::unix::fs::chown(&part, Some(65_534), None).unwrap();
    assert_eq!(xfer(&world, &["get", "{}:f", "back"]).refused(1), line);
    fs::remove_file(&part).unwrap();
    xfer(&world, &["get", "{}:f", "back"]).succeeded();
    assert_eq!(fs::metadata(world.outside().join("back")).unwrap().uid(), 0);
}
