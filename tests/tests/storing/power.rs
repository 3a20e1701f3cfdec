//! A store on a disk that forgets what was not synced when its power goes, tears writes, and fails at
//! times.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use xfer_tests::fragile::image::Image;
use xfer_tests::fragile::mounted::Fragile;
use xfer_tests::{Mount, PATIENCE, Random, World, scale, wait_until};

/// How often the power goes.
const POWER_CUTS: usize = 12;

/// The most bytes of a file.
const BYTES_MAX: u64 = 100_000;

/// The number of names in a directory, so that some files are written to again and again.
const NAMES: u64 = 30;

/// How many files are written before the last of them is synced. The server syncs many contents in
/// another way than a few.
const BATCHES: [usize; 4] = [1, 1, 5, 40];

/// Of so many calls one fails; none, if it is 0.
const EACH: [u64; 6] = [0, 0, 0, 100, 30, 10];

/// Of so many calls that look something up, open, list or read it, one fails.
const EACH_LOOK: [u64; 7] = [1, 2, 3, 5, 9, 17, 33];

/// The longest time, in milliseconds, between an `fsync` and a power cut.
const LATE_MS: u64 = 40;

/// The bytes of the files whose last `fsync` succeeded, by name.
type Safe = Mutex<BTreeMap<String, Vec<u8>>>;

/// Writes files, and notes those that are safe, until it is stopped or a call fails.
fn write(root: &Path, random: &mut Random, safe: &Safe, stops: &AtomicBool) -> io::Result<()> {
    while !stops.load(Ordering::Relaxed) {
        let mut written = BTreeMap::new();
        let mut last = None;
        for _ in 0..*random.pick(&BATCHES) {
            let name = format!("{}/{}", random.below(3), random.below(NAMES));
            let bytes = {
                let len = random.below(BYTES_MAX) as usize;
                random.bytes(len)
            };
            safe.lock().unwrap().remove(&name);
            last = Some(put(&root.join(&name), &bytes)?);
            written.insert(name, bytes);
        }
        // There is one log, so this is for all of them.
        last.map_or(Ok(()), |file| file.sync_all())?;
        safe.lock().unwrap().extend(written);
    }
    Ok(())
}

/// Puts these bytes in the place of those that a file has, if there is one.
fn put(path: &Path, bytes: &[u8]) -> io::Result<File> {
    fs::create_dir_all(path.parent().unwrap())?;
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_len(bytes.len() as u64)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn check(mount: &Mount, safe: &Safe) {
    for (name, bytes) in &*safe.lock().unwrap() {
        let there = fs::read(mount.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(there == *bytes, "{name} has {} bytes of {}", there.len(), bytes.len());
    }
}

/// Writes until the power goes, once something was synced or nothing can be any more. Returns whether a
/// call failed.
fn write_until_power_cut(
    mount: &Mount,
    world: &mut World,
    random: &mut Random,
    safe: &Safe,
    cut: impl FnOnce(&mut World),
) -> bool {
    let (stops, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let late = Duration::from_millis(random.below(LATE_MS));
    let known = safe.lock().unwrap().clone();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = write(mount.root(), random, safe, &stops);
            ended.store(true, Ordering::Relaxed);
            written
        });
        wait_until("an fsync", PATIENCE, || {
            ended.load(Ordering::Relaxed)
                || *safe.lock().unwrap() != known
                || !world.server.is_running()
        });
        sleep(late);
        cut(world);
        stops.store(true, Ordering::Relaxed);
        writer.join().unwrap().is_err()
    })
}

#[test]
fn what_was_fsynced_is_there_after_power_cuts_of_a_disk_that_forgets_and_fails() {
    let mut random = Random::new(Random::seed());
    let place = tempfile::tempdir().unwrap();
    let mut disk = Some(Fragile::mount(Image::new(), place.path()));
    let mut world = World::with_store_within(place.path(), &["alice"]);
    // The directory that the store is in was there before.
    File::open(place.path()).unwrap().sync_all().unwrap();
    let mount_again = |world: &World| world.mounting("alice").arg("-o").arg("wait=forever").start();
    let mut mount = mount_again(&world);
    let safe = Safe::default();
    let mut failures = 0;
    for _ in 0..scale::count("XFER_POWER_CUTS", POWER_CUTS) {
        let (each, mut chance) = (*random.pick(&EACH), Random::new(random.number()));
        disk.as_ref().unwrap().fail_each(each);
        let has_failed = write_until_power_cut(&mount, &mut world, &mut random, &safe, |world| {
            world.server.kill();
            let before = disk.take().unwrap();
            failures += before.failures();
            let left = before.unmount().without_power(&mut chance);
            disk = Some(Fragile::mount(left, place.path()));
            world.server.restart();
        });
        if has_failed {
            assert!(each > 0, "the disk did not fail");
            drop(mount);
            mount = mount_again(&world);
        }
        check(&mount, &safe);
    }
    println!("{failures} calls of the disk failed");
    mount.unmount();
    let mount = mount_again(&world);
    check(&mount, &safe);
    mount.unmount();
    drop(world);
    disk.unwrap().unmount();
}

#[test]
fn what_was_fsynced_is_there_after_a_disk_could_not_be_read_at_times() {
    let mut random = Random::new(Random::seed());
    let place = tempfile::tempdir().unwrap();
    let mut disk = Some(Fragile::mount(Image::new(), place.path()));
    let mut world = World::with_store_within(place.path(), &["alice"]);
    File::open(place.path()).unwrap().sync_all().unwrap();
    let mount_again = |world: &World| world.mounting("alice").arg("-o").arg("wait=forever").start();
    let mut mount = mount_again(&world);
    let safe = Safe::default();
    let (mut failures, mut opened) = (0, 0);
    for each in EACH_LOOK {
        let mut chance = Random::new(random.number());
        disk.as_ref().unwrap().fail_each_look(each);
        let has_failed = write_until_power_cut(&mount, &mut world, &mut random, &safe, |world| {
            world.server.kill();
            let mut again = || {
                let before = disk.take().unwrap();
                failures += before.failed_looks();
                let left = before.unmount().without_power(&mut chance);
                disk.insert(Fragile::mount(left, place.path())).fail_each_look(each);
            };
            // A server may also begin its work on a disk that can't be read at times.
            again();
            opened += usize::from(world.server.try_once());
            again();
            disk.as_ref().unwrap().fail_each_look(0);
            world.server.restart();
        });
        if has_failed {
            drop(mount);
            mount = mount_again(&world);
        }
        check(&mount, &safe);
    }
    println!("{failures} calls of the disk failed, and {opened} servers began in spite of that");
    assert!(failures > EACH_LOOK.len() as u64, "the disk did not fail");
    assert!(opened < EACH_LOOK.len(), "servers do not read their disk");
    mount.unmount();
    let mount = mount_again(&world);
    check(&mount, &safe);
    assert!(!safe.lock().unwrap().is_empty(), "nothing was safe");
    mount.unmount();
    drop(world);
    disk.unwrap().unmount();
}
