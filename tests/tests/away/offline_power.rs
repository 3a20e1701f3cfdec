//! A machine that loses its power while it works offline, on a disk that forgets what was not synced,
//! tears writes, and fails at times.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use xfer_tests::files::write_synced;
use xfer_tests::fragile::image::Image;
use xfer_tests::fragile::mounted::Fragile;
use xfer_tests::mount::Mounting;
use xfer_tests::programs::program;
use xfer_tests::{Mount, PATIENCE, Random, World, run_within, scale};

use crate::offline::{taken_over_elsewhere, unmount_elsewhere};

/// How often the power goes.
const POWER_CUTS: usize = 4;

/// The most files that are written before it does.
const FILES_MAX: u64 = 25;

/// The most bytes of a file.
const BYTES_MAX: u64 = 60_000;

/// How much of the log stays in memory, and the files of a round in which it is larger than that.
const LOG_SIZE: &str = "--log-size=16MiB";
const LARGE_FILES: usize = 14;
const LARGE_BYTES: usize = 2 << 20;

/// How many calls fail at most in such a round.
const FAILURES_MAX: usize = 4;

/// Of so many calls one fails; none, if it is 0.
const EACH: [u64; 4] = [0, 0, 40, 15];

/// A client's machine, with what it keeps of a user on a disk of its own.
struct Machine {
    world: World,
    place: tempfile::TempDir,
    disk: Option<Fragile>,
}

/// The bytes of the files whose last `fsync` succeeded, by name.
type Safe = BTreeMap<String, Vec<u8>>;

impl Machine {
    fn new() -> Machine {
        let place = tempfile::tempdir().unwrap();
        let disk = Some(Fragile::mount(Image::new(), place.path()));
        Machine { world: World::new(&["alice"]), place, disk }
    }

    fn mounting(&self) -> Mounting<'_> {
        let mounting = self.world.mounting("alice").arg(LOG_SIZE);
        let mut mounting = mounting.arg("-o").arg("offline,wait=1");
        for (name, value) in self.environment() {
            mounting = mounting.env(name, &value);
        }
        mounting
    }

    /// Where everything is that belongs to the user of this machine.
    fn environment(&self) -> [(&'static str, String); 3] {
        let within = |name: &str| self.place.path().join(name).display().to_string();
        [
            ("XDG_CACHE_HOME", within("cache")),
            ("XDG_STATE_HOME", within("state")),
            ("XFER_SPARE_RESCUES", self.world.outside().join("spare").display().to_string()),
        ]
    }

    fn fail_each(&self, each: u64) {
        self.disk.as_ref().unwrap().fail_each(each);
    }

    /// The machine loses its power, and starts again with what its disk has.
    fn lose_power(&mut self, mut mount: Mount, random: &mut Random) {
        mount.signal(Signal::KILL);
        mount.ended();
        drop(mount);
        let left = self.disk.take().unwrap().unmount().without_power(random);
        self.disk = Some(Fragile::mount(left, self.place.path()));
    }

    fn rescue(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("xfer"));
        let command = self.world.at_home(command.arg("rescue").args(arguments));
        run_within(command.envs(self.environment()), PATIENCE).succeeded().stdout
    }
}

/// Writes files without the server, and notes those that are safe. Returns how many calls failed.
fn work(mount: &Mount, random: &mut Random, safe: &mut Safe) -> usize {
    let mut failed = 0;
    for _ in 0..1 + random.below(FILES_MAX) {
        let name = format!("file{}", random.below(12));
        let len = random.below(BYTES_MAX) as usize;
        let bytes = random.bytes(len);
        safe.remove(&name);
        match write_synced(&mount.path(&name), &bytes) {
            Ok(()) => drop(safe.insert(name, bytes)),
            Err(_) => failed += 1,
        }
    }
    failed
}

/// The same with files that are larger together than what the log has room for in memory. Some are not
/// synced: they are safe once a later one is.
fn work_beyond_memory(mount: &Mount, random: &mut Random, safe: &mut Safe) -> usize {
    let (mut failed, mut unsynced) = (0, Safe::new());
    for number in 0..LARGE_FILES {
        let (name, bytes) = (format!("large{number}"), random.bytes(LARGE_BYTES));
        safe.remove(&name);
        let (path, is_synced) = (mount.path(&name), random.below(3) == 0);
        let written =
            if is_synced { write_synced(&path, &bytes) } else { fs::write(&path, &bytes) };
        match written {
            Ok(()) => {
                unsynced.insert(name, bytes);
                if is_synced {
                    safe.append(&mut unsynced);
                }
            }
            Err(_) => failed += 1,
        }
        // Each waits for the server once the disk has failed.
        if failed == FAILURES_MAX {
            break;
        }
    }
    failed
}

fn check(directory: &Path, safe: &Safe) {
    for (name, bytes) in safe {
        let there =
            fs::read(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(there == *bytes, "{name} has {} bytes of {}", there.len(), bytes.len());
    }
}

#[test]
fn what_was_fsynced_offline_is_sent_after_power_cuts_of_a_disk_that_forgets_and_fails() {
    let mut random = Random::new(Random::seed());
    let mut machine = Machine::new();
    let (mut safe, mut failed) = (Safe::new(), 0);
    for round in 0..scale::count("XFER_POWER_CUTS", POWER_CUTS) {
        let mount = machine.mounting().start();
        mount.shell("ls");
        mount.sync();
        machine.world.server.kill();
        let each = *random.pick(&EACH);
        machine.fail_each(each);
        let failures = match round % 2 {
            0 => work(&mount, &mut random, &mut safe),
            _ => work_beyond_memory(&mount, &mut random, &mut safe),
        };
        assert!(failures == 0 || each > 0, "the disk did not fail");
        failed += failures;
        machine.lose_power(mount, &mut random);
        machine.world.server.restart();
        let mount = machine.mounting().start();
        check(mount.root(), &safe);
        println!("round {round}: {} files are safe", safe.len());
        mount.unmount();
    }
    println!("{failed} calls failed");
}

#[test]
fn what_was_rescued_outlives_a_power_cut() {
    let mut random = Random::new(Random::seed());
    let mut machine = Machine::new();
    let mut safe = Safe::new();
    let mount = machine.mounting().start();
    mount.shell("ls");
    mount.sync();
    machine.world.server.kill();
    work(&mount, &mut random, &mut safe);
    machine.lose_power(mount, &mut random);
    machine.world.server.restart();
    let (other, elsewhere) = taken_over_elsewhere(&machine.world);
    fs::write(elsewhere.join("another"), "text").unwrap();
    unmount_elsewhere(&other, &elsewhere);
    let mount = machine.mounting().start();
    assert!(mount.said().contains("is kept in"), "{}", mount.said());
    machine.lose_power(mount, &mut random);
    let mount = machine.mounting().start();
    let listed = machine.rescue(&["list"]);
    machine.rescue(&["apply", listed.split("  ").next().unwrap()]);
    check(mount.root(), &safe);
    mount.unmount();
}
