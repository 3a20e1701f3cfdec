//! A server that copies much for one change, on a slow disk: nobody else waits for that.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use xfer_tests::fragile::image::Image;
use xfer_tests::fragile::mounted::Fragile;
use xfer_tests::{Mount, PATIENCE, World, wait_until};

/// The size of the file that is copied, and how much of it the disk writes in a second. So the copy
/// takes longer than anybody here waits for anything.
const BYTES: usize = 48 << 20;
const RATE: u64 = 256 << 10;

/// A file, and its bytes before the change.
const FILE: &str = "changed";

/// A server that copies, because a file changes that shares its bytes with another one.
struct Copying {
    mount: Mount,
    /// The program that made the change, and waits until it is durable.
    program: Child,
    world: World,
    disk: Fragile,
    _place: TempDir,
}

impl Copying {
    fn begin() -> Copying {
        let place = tempfile::tempdir().unwrap();
        let disk = Fragile::mount(Image::new(), place.path());
        let world = World::with_store_within(place.path(), &["alice", "bob"]);
        let mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
        fs::write(mount.path("original"), vec![b'a'; BYTES]).unwrap();
        mount.shell(&format!("cp original {FILE}; sync ."));
        disk.slow_down(RATE);
        let held = bytes_of(&world);
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", "bs=1", "count=1", "conv=notrunc,fsync", "status=none"]);
        let program = dd.arg(format!("of={FILE}")).current_dir(mount.root()).spawn().unwrap();
        wait_until("the server to copy", PATIENCE, || bytes_of(&world) > held + (1 << 20));
        Copying { mount, program, world, disk, _place: place }
    }

    fn signal_program(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).unwrap();
    }
}

/// The bytes of all contents in the store.
fn bytes_of(world: &World) -> u64 {
    fn bytes_in(directory: &Path) -> u64 {
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let bytes = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
            true => bytes_in(&entry.path()),
            // A copy has its full length from the beginning.
            false => entry.metadata().map_or(0, |found| found.len()),
        };
        entries.map(bytes).sum()
    }
    bytes_in(&world.server.store().join("contents"))
}

/// The first byte of a file whose others have not changed.
fn first_byte(path: &Path) -> u8 {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes.len(), BYTES);
    assert!(bytes[1..].iter().all(|byte| *byte == b'a'));
    bytes[0]
}

#[test]
fn a_program_that_waits_for_a_long_copy_ends_at_once_and_others_go_on_meanwhile() {
    let mut copying = Copying::begin();
    let start = Instant::now();
    let bob = copying.world.mount("bob");
    let file = File::create(bob.path("file")).unwrap();
    file.write_all_at(b"text", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    bob.unmount();
    println!("another user has mounted, written and unmounted in {:?}", start.elapsed());
    copying.signal_program(Signal::TERM);
    wait_until("the program to end", PATIENCE, || copying.program.try_wait().unwrap().is_some());
    assert_eq!(copying.program.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    copying.disk.slow_down(0);
    copying.mount.shell("sync .");
    assert_eq!(first_byte(&copying.mount.path(FILE)), 0);
    copying.mount.unmount();
}

#[test]
fn a_takeover_does_not_wait_for_a_long_copy() {
    let mut copying = Copying::begin();
    let elsewhere = copying.world.mount_point("elsewhere");
    let second = copying.world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    // The change was not made, and none after it.
    assert_eq!(first_byte(&second.path(FILE)), b'a');
    assert_eq!(first_byte(&second.path("original")), b'a');
    copying.signal_program(Signal::KILL);
    copying.program.wait().unwrap();
    copying.disk.slow_down(0);
    second.shell(&format!("echo x > new; sync new; rm {FILE} original; sync ."));
    let world = &copying.world;
    wait_until("the store to hold nothing else", PATIENCE, || bytes_of(world) < 1 << 20);
    second.unmount();
}

#[test]
fn a_server_that_is_told_to_end_does_not_wait_for_a_long_copy_which_is_made_later() {
    let mut copying = Copying::begin();
    let (code, said) = (copying.world.server.terminate(), copying.world.server.said());
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("did not end in time"), "{said}");
    copying.disk.slow_down(0);
    copying.world.server.restart();
    assert!(copying.program.wait().unwrap().success());
    assert_eq!(first_byte(&copying.mount.path(FILE)), 0);
    copying.mount.unmount();
}
