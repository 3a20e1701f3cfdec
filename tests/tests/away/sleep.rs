//! A machine that sleeps: programs that wait for the server must not keep it awake, and nothing may
//! be lost.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use xfer_tests::files::errno;
use xfer_tests::freezer::Freezer;
use xfer_tests::logind::Logind;
use xfer_tests::{Mount, PATIENCE, World, wait_until};

/// A mount on a machine with a logind.
fn mount_with(world: &World, logind: &Logind, options: &[&str]) -> Mount {
    let mounting = world.mounting("alice").env("DBUS_SYSTEM_BUS_ADDRESS", logind.address());
    let mount = options.iter().fold(mounting, |mounting, option| mounting.arg(option)).start();
    wait_until("the mount to know logind", PATIENCE, || logind.is_delayed());
    mount
}

fn cat(mount: &Mount, name: &str) -> Child {
    let mut cat = Command::new("cat");
    cat.arg(mount.path(name)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_machine_can_sleep_though_programs_wait_for_a_server_that_is_gone() {
    let mut world = World::new(&["alice"]);
    let logind = Logind::start(&world.outside());
    let mount = mount_with(&world, &logind, &[]);
    fs::write(mount.path("cold"), vec![7; 1 << 20]).unwrap();
    fs::write(mount.path("warm"), "warm").unwrap();
    mount.unmount();
    let mount = mount_with(&world, &logind, &["-o", "wait=forever"]);
    mount.shell("ls; cat warm");
    world.server.kill();
    fs::write(mount.path("late"), "late").unwrap();
    let mut waiting = cat(&mount, "cold");
    wait_until("the program to wait", PATIENCE, || {
        mount.xfer("status", &["--json"]).succeeded().stdout.contains("\"why\"")
    });
    assert!(waiting.try_wait().unwrap().is_none());
    let announced = Instant::now();
    logind.announce_sleep();
    wait_until("the mount to let the machine sleep", PATIENCE, || !logind.is_delayed());
    assert!(announced.elapsed() < Duration::from_secs(8), "{:?}", announced.elapsed());
    assert!(mount.said().contains("are sent when it wakes up"), "{}", mount.said());
    wait_until("the program to end", PATIENCE, || waiting.try_wait().unwrap().is_some());
    // Whatever is done in the last moment is answered at once.
    assert_eq!(errno(fs::read(mount.path("cold"))), libc::ETIMEDOUT);
    assert_eq!(fs::read_to_string(mount.path("warm")).unwrap(), "warm");
    assert!(fs::metadata(mount.root()).unwrap().is_dir());
    statvfs(mount.root()).unwrap();
    let late = cat(&mount, "cold").wait().unwrap();
    assert!(!late.success());
    let mut idle = Command::new("sleep");
    let mut idle = idle.arg("1000").current_dir(mount.root()).spawn().unwrap();
    let programs = [Freezer::new("mount", mount.pid()), Freezer::new("idle", idle.id())];
    // The mount first, which is what keeps a machine awake.
    programs.iter().for_each(Freezer::freeze);
    programs.iter().for_each(Freezer::thaw);
    world.server.restart();
    logind.announce_waking();
    wait_until("the mount to delay the next sleep", PATIENCE, || logind.is_delayed());
    assert_eq!(fs::read(mount.path("cold")).unwrap(), vec![7; 1 << 20]);
    drop(programs);
    idle.kill().unwrap();
    idle.wait().unwrap();
    mount.unmount();
    let mount = mount_with(&world, &logind, &[]);
    assert_eq!(fs::read_to_string(mount.path("late")).unwrap(), "late");
    mount.unmount();
}

#[test]
fn a_logind_that_starts_after_the_mount_is_followed_too() {
    let world = World::new(&["alice"]);
    let directory = world.outside();
    let mounting = world.mounting("alice");
    let mount = mounting.env("DBUS_SYSTEM_BUS_ADDRESS", &Logind::address_in(&directory)).start();
    let logind = Logind::start(&directory);
    wait_until("the mount to know logind", PATIENCE, || logind.is_delayed());
    mount.unmount();
}

#[test]
fn before_a_machine_sleeps_its_changes_are_durable_and_after_it_the_mount_goes_on_at_once() {
    let mut world = World::new(&["alice"]);
    let logind = Logind::start(&world.outside());
    let mount = mount_with(&world, &logind, &[]);
    let file = File::create(mount.path("file")).unwrap();
    (&file).write_all(&vec![7; 4 << 20]).unwrap();
    logind.announce_sleep();
    wait_until("the mount to let the machine sleep", PATIENCE, || !logind.is_delayed());
    assert!(mount.said().contains("everything is durable"), "{}", mount.said());
    (&file).write_all(b"asleep").unwrap();
    assert_eq!(errno(file.sync_all()), libc::ETIMEDOUT);
    let woken = Instant::now();
    logind.announce_waking();
    wait_until("the change to be durable", PATIENCE, || file.sync_all().is_ok());
    assert!(woken.elapsed() < Duration::from_secs(5), "{:?}", woken.elapsed());
    drop(file);
    world.server.kill();
    drop(mount);
    world.server.restart();
    let mount = world.mount("alice");
    assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), (4 << 20) + 6);
    mount.unmount();
}
