//! Mounts that work offline: what is changed while the server can't be reached is on this machine's
//! disk, and outlives the mount.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xfer_mount::process::exit::Exit;
use xfer_tests::files::{errno, write_synced};
use xfer_tests::fragile::image::Image;
use xfer_tests::fragile::mounted::Fragile;
use xfer_tests::programs::program;
use xfer_tests::small_disk::SmallDisk;
use xfer_tests::snapshot::{assert_same, snapshot_without_times};
use xfer_tests::{Mount, PATIENCE, Random, Relay, World, run_within, scale, shell, wait_until};

/// How often a client is killed while the server is away.
const KILLS: usize = 6;

fn offline(world: &World, option: &str) -> Mount {
    world.mounting("alice").arg("-o").arg(option).start()
}

fn kill(mut mount: Mount) {
    mount.signal(Signal::KILL);
    mount.ended();
    drop(mount);
}

/// The memory of a process that is not backed by files, in bytes.
fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The directories in which mounts keep what they need offline.
fn places(world: &World) -> Vec<PathBuf> {
    let accounts = fs::read_dir(world.home().join(".cache/xfer/offline")).into_iter().flatten();
    let sessions = accounts.flatten().flat_map(|account| fs::read_dir(account.path()).unwrap());
    sessions.map(|session| session.unwrap().path()).collect()
}

#[test]
fn what_is_fsynced_offline_outlives_a_crash_of_the_machine_and_is_sent_by_the_next_mount() {
    let mut world = World::new(&["alice"]);
    let reference = world.outside();
    let mount = offline(&world, "offline,wait=2");
    let sides = [mount.root().to_owned(), reference.clone()];
    shell(&reference, "mkdir -m 700 inbox outbox");
    for side in &sides {
        shell(side, "echo old > changed; echo x > removed; mkdir d; echo y > d/moved");
    }
    mount.sync();
    mount.shell("find . > /dev/null; cat changed > /dev/null");
    world.server.kill();
    for side in &sides {
        shell(side, "echo new >> changed; rm removed; mv d/moved moved; rmdir d; ln moved link");
        write_synced(&side.join("synced"), &[7; 300_000]).unwrap();
    }
    let status = mount.xfer("status", &[]).succeeded().stdout;
    assert!(status.contains("; on this machine only since "), "{status}");
    assert!(mount.xfer("status", &["--json"]).stdout.contains("\"kept_here_since\": \"20"));
    // `xfer sync` means the server.
    assert_eq!(mount.xfer("sync", &[]).code, Some(1));
    kill(mount);
    world.server.restart();
    let mount = world.mount("alice");
    assert!(mount.said().contains("sending"), "{}", mount.said());
    assert_same(&snapshot_without_times(&reference), &snapshot_without_times(mount.root()));
    assert_eq!(places(&world), Vec::<PathBuf>::new());
    mount.unmount();
}

#[test]
fn a_program_waits_for_this_machines_disk_however_short_it_waits_for_a_server() {
    let mut world = World::new(&["alice"]);
    // Its root is not looked at.
    let mount = offline(&world, "offline,wait=0");
    wait_until("the root's names to be there", PATIENCE, || {
        let status = mount.xfer("status", &["--json"]).succeeded().stdout;
        let known = status.split_once("\"tree_bytes\": ").unwrap().1.split(',').next().unwrap();
        // The root alone takes less.
        known.parse::<u64>().unwrap() > 800
    });
    world.server.kill();
    wait_until("the loss to be noticed", PATIENCE, || {
        mount.xfer("status", &["--json"]).succeeded().stdout.contains("\"why\"")
    });
    let large = vec![7; 300 << 20];
    for number in 0..20 {
        write_synced(&mount.path(&format!("file{number}")), b"text").unwrap();
    }
    write_synced(&mount.path("large"), &large).unwrap();
    world.server.restart();
    let is_sent = || mount.xfer("sync", &[]).code == Some(0);
    wait_until("everything to be on the server", PATIENCE, is_sent);
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat file* | wc -c; stat -c %s large"), "80\n314572800");
    mount.unmount();
}

#[test]
fn a_mount_that_is_unmounted_offline_leaves_its_changes_to_the_next() {
    let mut world = World::new(&["alice"]);
    let mut mount = offline(&world, "offline,wait=1");
    mount.shell("ls");
    world.server.kill();
    fs::write(mount.path("file"), "text").unwrap();
    assert_eq!(mount.xfer("unmount", &[]).code, Some(14));
    assert_eq!(mount.ended(), Some(14));
    assert!(mount.said().contains("is sent by the next mount"), "{}", mount.said());
    // As long as the server is away there is no next mount, and nothing is lost.
    run_within(&mut world.mounting("alice").command(), PATIENCE).refused(6);
    world.server.restart();
    let mount = offline(&world, "offline");
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "text");
    assert_eq!(places(&world).len(), 1, "that of the mount that runs");
    mount.unmount();
    assert_eq!(places(&world), Vec::<PathBuf>::new());
}

#[test]
fn status_tells_what_waits_here_for_the_next_mount_and_does_not_disturb_it() {
    let mut world = World::new(&["alice"]);
    let home = world.home();
    let status = |world: &World, options: &[&str]| {
        let mut command = Command::new(program("xfer"));
        run_within(world.at_home(command.arg("status").args(options)), PATIENCE).succeeded()
    };
    let account = format!("alice@{}", world.server.address);
    let waits = format!(
        "{account}: 3 changes of an earlier mount kept here; the next mount of {account} sends them\n"
    );
    for way in ["unmounted", "killed"] {
        let mut mount = offline(&world, "offline,wait=1");
        mount.shell("ls");
        mount.sync();
        world.server.kill();
        mount.shell(&format!("mkdir {way} {way}/a {way}/b"));
        File::open(mount.path(way)).unwrap().sync_all().unwrap();
        assert!(!status(&world, &[]).stdout.contains("kept here"), "{way}: it runs");
        if way == "killed" {
            kill(mount);
        } else {
            assert_eq!(mount.xfer("unmount", &[]).code, Some(14));
            mount.ended();
        }
        let before = shell(&home, "find .cache/xfer -ls");
        let said = status(&world, &[]).stdout;
        assert!(said.ends_with(&waits), "{way}: {said}");
        let json = status(&world, &["--json"]);
        assert!(json.stderr.contains(&waits), "{way}: {json:?}");
        serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap();
        assert_eq!(shell(&home, "find .cache/xfer -ls"), before);
        world.server.restart();
        let mount = world.mount("alice");
        assert!(mount.said().contains("sending 3 changes"), "{way}: {}", mount.said());
        assert!(mount.path(way).join("b").is_dir());
        assert!(!status(&world, &[]).stdout.contains("kept here"), "{way}: it is sent");
        mount.unmount();
    }
}

/// Has another machine, which knows nothing of the first, take the account over and mount it.
pub fn taken_over_elsewhere(world: &World) -> (World, PathBuf) {
    let mut other = World::new(&["robert"]);
    other.server.kill();
    let elsewhere = other.mount_point("alice");
    let mut command = world.mounting("alice").at(&elsewhere).arg("--takeover").command();
    run_within(other.at_home(&mut command), PATIENCE).succeeded();
    (other, elsewhere)
}

pub fn unmount_elsewhere(other: &World, elsewhere: &Path) {
    let mut unmount = Command::new(program("xfer"));
    run_within(other.at_home(unmount.arg("unmount").arg(elsewhere)), PATIENCE).succeeded();
}

#[test]
fn what_was_left_offline_is_not_overtaken_by_the_next_mount_while_another_has_the_account() {
    let mut world = World::new(&["alice"]);
    let mount = offline(&world, "offline");
    // So that its root is known.
    mount.shell("ls");
    world.server.kill();
    write_synced(&mount.path("late"), b"text").unwrap();
    kill(mount);
    world.server.restart();
    let (other, elsewhere) = taken_over_elsewhere(&world);
    let refused = world.mounting("alice").in_background();
    assert_eq!(refused.code, Some(i32::from(Exit::InUse.code())), "{refused}");
    assert!(
        refused.stderr.contains("they wait") && refused.stderr.contains("the account is in use")
    );
    unmount_elsewhere(&other, &elsewhere);
    let mount = world.mount("alice");
    assert_eq!(fs::read_to_string(mount.path("late")).unwrap(), "text");
    assert_eq!(places(&world), Vec::<PathBuf>::new());
    mount.unmount();
}

#[test]
fn what_was_left_offline_is_rescued_if_another_mount_has_taken_the_account_over() {
    let mut world = World::new(&["alice"]);
    let mount = offline(&world, "offline");
    fs::write(mount.path("both"), "before").unwrap();
    mount.sync();
    world.server.kill();
    write_synced(&mount.path("both"), b"here").unwrap();
    kill(mount);
    world.server.restart();
    let (other, elsewhere) = taken_over_elsewhere(&world);
    fs::write(elsewhere.join("both"), "there").unwrap();
    unmount_elsewhere(&other, &elsewhere);
    let mount = world.mount("alice");
    assert!(mount.said().contains("is kept in"), "{}", mount.said());
    assert_eq!(fs::read_to_string(mount.path("both")).unwrap(), "there");
    world.rescue(&["apply", &world.only_rescue()]).succeeded();
    assert_eq!(fs::read_to_string(mount.path("both.rescued")).unwrap(), "here");
    assert_eq!(places(&world), Vec::<PathBuf>::new());
    mount.unmount();
}

#[test]
fn a_damaged_journal_is_told_of_and_what_can_be_read_of_it_is_sent_or_rescued() {
    goes_on_after_damage(&mut World::new(&["alice"]));
}

#[test]
fn a_damaged_journal_on_a_filesystem_without_hard_links_is_kept_as_a_copy() {
    let mut world = World::new(&["alice"]);
    let disk = Fragile::mount(Image::new(), &world.home());
    disk.refuse_links();
    goes_on_after_damage(&mut world);
}

fn goes_on_after_damage(world: &mut World) {
    let mount = offline(world, "offline");
    mount.shell("ls");
    world.server.kill();
    for (name, byte) in [("before", 1), ("damaged", 2), ("behind", 3)] {
        write_synced(&mount.path(name), &[byte; 5000]).unwrap();
    }
    kill(mount);
    let place = places(world).remove(0);
    let journal = place.join("journal");
    let mut bytes = fs::read(&journal).unwrap();
    let at = bytes.windows(5000).position(|part| part == [2; 5000]).unwrap();
    bytes[at + 100] = 9;
    fs::write(&journal, &bytes).unwrap();
    world.server.restart();
    let mount = world.mount("alice");
    assert!(mount.said().contains("cannot be read"), "{}", mount.said());
    assert!(fs::read(mount.path("before")).unwrap() == [1; 5000]);
    assert_eq!(fs::metadata(mount.path("behind")).unwrap_err().kind(), ErrorKind::NotFound);
    world.rescue(&["apply", &world.only_rescue()]).succeeded();
    assert!(fs::read(mount.path("behind")).unwrap() == [3; 5000]);
    // Nothing is thrown away.
    let aside = place.with_extension("damaged");
    assert_eq!(places(world), [&*aside]);
    assert!(fs::read(aside).unwrap() == bytes);
    mount.unmount();
}

#[test]
fn an_offline_mount_that_lost_the_tree_ends_without_a_wait_for_it_and_names_the_one_that_has_it() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mounting = world.mounting("alice").through(relay.address);
    let mut mount = mounting.arg("-o").arg("offline,wait=1").start();
    mount.shell("ls");
    relay.cut();
    write_synced(&mount.path("file"), b"text").unwrap();
    let (other, elsewhere) = taken_over_elsewhere(&world);
    relay.mend();
    wait_until("it to learn that", PATIENCE, || {
        mount.xfer("status", &[]).succeeded().stdout.contains("with the client on")
    });
    let start = Instant::now();
    let line = mount.xfer("unmount", &[]).refused(14);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(line.contains("taken over by a client on"), "{line}");
    assert!(line.contains("is sent by the next mount"), "{line}");
    assert_eq!(mount.ended(), Some(14));
    unmount_elsewhere(&other, &elsewhere);
    let mount = world.mounting("alice").through(relay.address).start();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "text");
    mount.unmount();
}

#[test]
fn only_its_user_can_read_what_an_offline_mount_keeps() {
    let mut world = World::new(&["alice"]);
    let mount = offline(&world, "offline");
    mount.shell("ls");
    world.server.kill();
    write_synced(&mount.path("file"), b"text").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let place = places(&world).remove(0);
    assert_eq!(mode(&place), 0o700);
    let names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.len() > 2, "{names:?}");
    assert!(names.iter().all(|path| mode(path) == 0o600), "{names:?}");
    world.server.restart();
    mount.sync();
    mount.unmount();
}

#[test]
fn what_waits_for_a_mount_by_another_name_is_told() {
    let mut world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).arg("-o").arg("offline").start();
    mount.shell("ls");
    world.server.kill();
    write_synced(&mount.path("file"), b"text").unwrap();
    kill(mount);
    world.server.restart();
    let by_another_name = world.mounting("alice").arg("--takeover").start();
    let line = format!("alice@{}: changes of an earlier mount wait here", relay.address);
    assert!(by_another_name.said().contains(&line), "{}", by_another_name.said());
    by_another_name.unmount();
    let mount = world.mounting("alice").through(relay.address).start();
    assert!(mount.said().contains("sending"), "{}", mount.said());
    mount.unmount();
}

#[test]
fn whatever_a_client_fsynced_before_it_was_killed_is_there_after_the_next_mount() {
    let mut world = World::new(&["alice"]);
    let mut random = Random::new(Random::seed());
    let mut synced = Vec::new();
    for round in 0..scale::count("XFER_CLIENT_KILLS", KILLS) {
        let mount = offline(&world, "offline");
        // Some rounds change what earlier ones made, some begin with the server there.
        write_synced(&mount.path(&format!("up{round}")), b"up").unwrap();
        world.server.kill();
        let before = synced.len();
        let count = 1 + random.below(20);
        let end = Instant::now() + Duration::from_millis(random.below(300));
        let mut number = 0;
        while number < count || Instant::now() < end {
            let path = format!("file{}", random.below(50));
            let size = 1 + random.below(60_000) as usize;
            let bytes = random.bytes(size);
            write_synced(&mount.path(&path), &bytes).unwrap();
            synced.push((path, bytes));
            number += 1;
        }
        assert!(synced.len() > before, "a round without an fsync proves nothing");
        kill(mount);
        world.server.restart();
        let mount = world.mount("alice");
        for (index, (path, bytes)) in synced.iter().enumerate() {
            let is_last = !synced[index + 1..].iter().any(|(later, _)| later == path);
            if is_last {
                assert!(fs::read(mount.path(path)).unwrap() == *bytes, "{path} in round {round}");
            }
        }
        mount.unmount();
    }
}

#[test]
fn work_offline_goes_on_up_to_the_size_that_was_given_and_is_all_sent() {
    let mut world = World::new(&["alice"]);
    let sizes = ["--log-size", "16MiB", "--cache-size", "16MiB", "-o", "offline=192MiB,wait=2"];
    let mounting = world.mounting("alice");
    let mount = sizes.iter().fold(mounting, |mounting, option| mounting.arg(option)).start();
    mount.shell("ls");
    mount.sync();
    world.server.kill();
    let part = vec![7; 1 << 20];
    let written = (0..).take_while(|index| {
        let done = fs::write(mount.path(&format!("part{index}")), &part);
        if let Err(error) = &done {
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        }
        done.is_ok()
    });
    let written = written.count();
    assert!((180..193).contains(&written), "{written} MiB");
    // What does not fit in memory is on the disk, and can be read all the same.
    let memory = memory_of(mount.pid());
    assert!(memory < 100 << 20, "{memory} bytes in memory");
    for index in 0..written {
        assert!(fs::read(mount.path(&format!("part{index}"))).unwrap() == part, "part{index}");
    }
    let memory = memory_of(mount.pid());
    assert!(memory < 100 << 20, "{memory} bytes in memory");
    kill(mount);
    world.server.restart();
    let mount = world.mount("alice");
    for index in 0..written {
        assert!(fs::read(mount.path(&format!("part{index}"))).unwrap() == part, "part{index}");
    }
    mount.unmount();
}

#[test]
fn an_fsync_offline_does_not_lie_when_this_machines_disk_is_full() {
    let mut world = World::new(&["alice"]);
    let cache = world.home().join(".cache");
    fs::create_dir(&cache).unwrap();
    let _disk = SmallDisk::at(&cache, "1m");
    let mount = offline(&world, "offline,wait=2");
    mount.shell("ls");
    world.server.kill();
    write_synced(&mount.path("small"), b"fits").unwrap();
    let file = File::create(mount.path("large")).unwrap();
    (&file).write_all(&vec![7; 3 << 20]).unwrap();
    assert_eq!(errno(file.sync_all()), libc::ETIMEDOUT);
    let status = mount.xfer("status", &[]).succeeded().stdout;
    assert!(status.contains("changes cannot be kept on this machine"), "{status}");
    drop(file);
    // Nothing is lost as long as the mount lives.
    world.server.restart();
    wait_until("everything to be durable", PATIENCE, || mount.xfer("sync", &[]).code == Some(0));
    let status = mount.xfer("status", &[]).succeeded().stdout;
    assert!(!status.contains("cannot be kept"), "{status}");
    mount.unmount();
    let mount = world.mount("alice");
    assert!(fs::read(mount.path("large")).unwrap() == vec![7; 3 << 20]);
    mount.unmount();
}

#[test]
fn room_on_this_machines_disk_is_used_as_soon_as_there_is_enough_for_what_is_new() {
    let mut world = World::new(&["alice"]);
    let cache = world.home().join(".cache");
    fs::create_dir(&cache).unwrap();
    let _disk = SmallDisk::at(&cache, "8m");
    let filler = cache.join("filler");
    fs::write(&filler, vec![1; 3 << 20]).unwrap();
    let mount = offline(&world, "offline,wait=1");
    mount.shell("ls");
    world.server.kill();
    write_synced(&mount.path("fits"), &vec![7; 3 << 20]).unwrap();
    let file = File::create(mount.path("later")).unwrap();
    (&file).write_all(&vec![8; 3 << 20]).unwrap();
    assert_eq!(errno(file.sync_all()), libc::ETIMEDOUT);
    // Not enough for a second copy of what fits.
    fs::remove_file(filler).unwrap();
    wait_until("the rest to be kept", PATIENCE, || file.sync_all().is_ok());
    kill(mount);
    world.server.restart();
    let mount = world.mount("alice");
    for (name, byte) in [("fits", 7), ("later", 8)] {
        assert!(fs::read(mount.path(name)).unwrap() == vec![byte; 3 << 20], "{name}");
    }
    assert_eq!(places(&world), Vec::<PathBuf>::new());
    mount.unmount();
}

#[test]
fn a_mount_that_ends_while_this_machines_disk_is_full_leaves_what_fits_and_rescues_the_rest() {
    let mut world = World::new(&["alice"]);
    let cache = world.home().join(".cache");
    fs::create_dir(&cache).unwrap();
    let _disk = SmallDisk::at(&cache, "8m");
    let mut mount = offline(&world, "offline,wait=1");
    mount.shell("mkdir d");
    mount.sync();
    world.server.kill();
    write_synced(&mount.path("d/fits"), &vec![7; 3 << 20]).unwrap();
    write_synced(&mount.path("d/does-not"), &vec![8; 6 << 20]).unwrap_err();
    let said = mount.xfer("unmount", &[]).refused(14);
    assert!(said.contains("is sent by the next mount, except what is kept in"), "{said}");
    assert_eq!(mount.ended(), Some(14));
    world.server.restart();
    let mount = world.mount("alice");
    assert!(fs::read(mount.path("d/fits")).unwrap() == vec![7; 3 << 20]);
    assert!(fs::metadata(mount.path("d/does-not")).is_ok_and(|file| file.len() < 6 << 20));
    world.rescue(&["apply", &world.only_rescue()]).succeeded();
    assert!(fs::read(mount.path("d/does-not")).unwrap() == vec![8; 6 << 20]);
    mount.unmount();
}

#[test]
fn a_journal_that_fills_this_machines_disk_is_removed_once_everything_is_on_the_server() {
    let mut world = World::new(&["alice"]);
    let cache = world.home().join(".cache");
    fs::create_dir(&cache).unwrap();
    let _disk = SmallDisk::at(&cache, "4m");
    let mount = offline(&world, "offline,wait=1");
    mount.shell("ls");
    for round in ["first", "second"] {
        world.server.kill();
        write_synced(&mount.path(round), &vec![7; 3 << 20]).unwrap();
        let filler = cache.join("filler");
        shell(&cache, "cat /dev/zero > filler || true");
        world.server.restart();
        wait_until("everything to be durable", PATIENCE, || {
            mount.xfer("sync", &[]).code == Some(0)
        });
        let journal = places(&world)[0].join("journal");
        wait_until("the journal to go", PATIENCE, || !journal.exists());
        fs::remove_file(filler).unwrap();
    }
    mount.unmount();
}

#[test]
fn what_is_fsynced_offline_is_sent_though_the_mount_is_killed_and_the_disk_full_to_the_last_byte() {
    let mut world = World::new(&["alice"]);
    let cache = world.home().join(".cache");
    fs::create_dir(&cache).unwrap();
    let _disk = SmallDisk::at(&cache, "8m");
    let mount = offline(&world, "offline,wait=1");
    mount.shell("ls");
    world.server.kill();
    let part = vec![7; 3 << 20];
    let fits = |index: &u32| write_synced(&mount.path(&format!("part{index}")), &part).is_ok();
    let kept = (0..4).take_while(fits).count();
    assert!((1..3).contains(&kept), "{kept}");
    kill(mount);
    shell(&cache, "cat /dev/zero > filler || true");
    // The machine crashed as well, in the middle of a frame.
    let mut journal = File::options().append(true).open(places(&world)[0].join("journal")).unwrap();
    journal.write_all(&[0xf8, b'x', b'f', b'r', 9]).unwrap();
    world.server.restart();
    let mount = world.mount("alice");
    assert!(mount.said().contains("5 B of what an earlier mount left here"), "{}", mount.said());
    for index in 0..kept {
        assert!(fs::read(mount.path(&format!("part{index}"))).unwrap() == part, "part{index}");
    }
    mount.unmount();
}

#[test]
fn sending_what_was_left_survives_cut_links_and_kills() {
    let mut world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mounting = || world.mounting("alice").through(relay.address);
    let mount = mounting().arg("-o").arg("offline,wait=2").start();
    mount.shell("ls");
    mount.sync();
    world.server.kill();
    let part = vec![7; 1 << 20];
    for index in 0..60 {
        write_synced(&mount.path(&format!("part{index}")), &part).unwrap();
    }
    kill(mount);
    world.server.restart();
    let mounting = || world.mounting("alice").through(relay.address);
    let mut killed = 0;
    for pause in [200, 300, 400, 500, 600] {
        let mut next = mounting().command();
        let mut next = next.arg("-f").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        killed += usize::from(next.try_wait().unwrap().is_none());
        next.kill().unwrap();
        next.wait().unwrap();
        let _ = shell(&world.outside(), &format!("umount -l '{}' || true", mounting_point(&world)));
    }
    assert!(killed > 0, "no mount was killed at work");
    let ended = AtomicBool::new(false);
    let mount = std::thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(300));
                relay.break_connections();
            }
        });
        let mut next = mounting().command();
        let started = run_within(&mut next, PATIENCE);
        ended.store(true, Ordering::Relaxed);
        cutter.join().unwrap();
        started
    });
    // It may have come too late for the login itself.
    if mount.code == Some(0) {
        shell(&world.outside(), &format!("umount '{}'", mounting_point(&world)));
    }
    // A mount that was killed just after its login has not noted its session.
    let mount = mounting().arg("--takeover").start();
    for index in 0..60 {
        assert!(fs::read(mount.path(&format!("part{index}"))).unwrap() == part, "part{index}");
    }
    assert_eq!(places(&world), Vec::<PathBuf>::new());
    mount.unmount();
}

fn mounting_point(world: &World) -> String {
    world.mount_point("alice").display().to_string()
}
