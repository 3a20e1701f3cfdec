//! Servers and clients that are killed, or stopped and started again, under programs that work.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xfer_tests::programs::program;
use xfer_tests::{PATIENCE, Random, Relay, World, run_within, scale, shell, wait_until};

/// How often a server is killed.
const KILLS: usize = 8;

/// The size of a file that is copied while a server is killed, in MiB.
const COPIED_MIB: usize = 192;

/// The number of ops, of 128 KiB mostly, that a server makes durable before it is killed.
const OPS_OF_A_KILL: u64 = 64;

/// How many files a large store has, and a small one.
const MANY_FILES: usize = 20_000;
const FEW_FILES: usize = 200;

/// How much longer a server with the large store may take until it listens, and until an account of it
/// is mounted.
const LISTENS_LATER: Duration = Duration::from_secs(1);
const MOUNTED_LATER: Duration = Duration::from_secs(2);

/// The op up to which everything is durable, as the mount knows.
fn durable(mount: &xfer_tests::Mount) -> u64 {
    let status = mount.xfer("status", &["--json"]).succeeded().stdout;
    let after = status.split("\"durable_seq\": ").nth(1).unwrap();
    after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn is_connected(mount: &xfer_tests::Mount) -> bool {
    mount.xfer("status", &[]).succeeded().stdout.contains("connected\n")
}

#[test]
fn a_copy_goes_on_though_the_server_is_killed_and_the_link_is_cut_again_and_again() {
    let mut world = World::new(&["alice"]);
    let original = world.outside().join("original");
    let mut random = Random::new(Random::seed());
    let mut file = File::create(&original).unwrap();
    for _ in 0..scale::count("XFER_COPIED_MIB", COPIED_MIB) {
        file.write_all(&random.bytes(1 << 20)).unwrap();
    }
    let options = ["-o", "wait=forever", "--log-size", "16MiB"];
    let relay = Relay::to(world.server.address);
    let mounting = world.mounting("alice").through(relay.address);
    let mount = options.iter().fold(mounting, |mounting, option| mounting.arg(option)).start();
    let mut cp = Command::new("cp");
    let mut cp = cp.arg(&original).arg(mount.path("copy")).spawn().unwrap();
    let (mut kills, mut cuts, mut before) = (0, 0, 0);
    let status = loop {
        let mut ended = None;
        // Each server makes something durable before it dies.
        wait_until("the copy to go on", PATIENCE, || {
            ended = cp.try_wait().unwrap();
            ended.is_some() || durable(&mount) > before + OPS_OF_A_KILL
        });
        if let Some(status) = ended {
            break status;
        }
        if cuts < kills {
            relay.break_connections();
            cuts += 1;
            before = durable(&mount);
        } else {
            world.server.kill();
            kills += 1;
            before = durable(&mount);
            world.server.restart();
        }
    };
    assert!(status.success() && cuts > 3, "{status} after {kills} kills and {cuts} cuts");
    println!("the server was killed {kills} times, and the link cut {cuts} times");
    mount.sync();
    mount.unmount();
    let mount = world.mount("alice");
    mount.shell(&format!("cmp {} copy", original.display()));
    mount.unmount();
}

/// The times that a server takes after a crash until it listens, until bob is mounted, and until alice is, who
/// has so many files and was mounted when it crashed.
fn opens_after_crash(files: usize) -> [Duration; 3] {
    let mut world = World::with_store_in_memory(&["alice", "bob"]);
    // In memory too, since some disks take long for very many files.
    let source = tempfile::tempdir_in("/dev/shm").unwrap();
    for number in 0..files {
        let directory = source.path().join(format!("d{}", number / 500));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(number.to_string()), "x").unwrap();
    }
    let mut import = Command::new(program("xfer-server"));
    import.args(["import", "alice"]).arg(source.path()).arg("--store").arg(world.server.store());
    run_within(&mut import, 10 * PATIENCE).succeeded();
    let mut mount = world.mount("alice");
    mount.shell("echo text > file && sync file");
    world.server.kill();
    mount.signal(Signal::KILL);
    mount.ended();
    drop(mount);
    let begin = Instant::now();
    world.server.restart();
    let listens = begin.elapsed();
    let bob = world.mount("bob");
    let bobs = begin.elapsed();
    let alice = world.mount("alice");
    let alices = begin.elapsed();
    assert_eq!(alice.shell("cat file && find d* -type f | wc -l"), format!("text\n{files}"));
    alice.unmount();
    bob.unmount();
    [listens, bobs, alices]
}

#[test]
fn a_store_opens_at_once_after_a_crash_however_many_files_it_has() {
    let files = scale::count("XFER_STORE_FILES", MANY_FILES);
    let [few, many] = [FEW_FILES, files].map(opens_after_crash);
    println!("with {FEW_FILES} files {few:?}, with {files} {many:?}");
    assert!(many[0] < few[0] + LISTENS_LATER, "{few:?} {many:?}");
    assert!(many[1] < few[1] + MOUNTED_LATER, "{few:?} {many:?}");
    assert!(many[2] < few[2] + MOUNTED_LATER, "{few:?} {many:?}");
}

#[test]
fn what_is_fsynced_between_crashes_is_there_after_a_crash_of_both_sides() {
    let mut world = World::new(&["alice"]);
    let mut mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    let (synced, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let root = mount.root().to_owned();
    let noted = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return number;
                }
                let mut file = File::create(root.join(format!("file{number}"))).unwrap();
                file.write_all(format!("text of {number}").as_bytes()).unwrap();
                file.sync_all().unwrap();
                synced.store(number + 1, Ordering::Relaxed);
            }
            0
        });
        for _ in 0..scale::count("XFER_KILLS", KILLS) {
            let before = synced.load(Ordering::Relaxed);
            wait_until("an fsync", PATIENCE, || synced.load(Ordering::Relaxed) > before + 1);
            world.server.kill();
            world.server.restart();
        }
        let before = synced.load(Ordering::Relaxed);
        wait_until("an fsync", PATIENCE, || synced.load(Ordering::Relaxed) > before + 1);
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    world.server.kill();
    mount.signal(Signal::KILL);
    mount.ended();
    drop(mount);
    world.server.restart();
    let mount = world.mount("alice");
    for number in 0..noted {
        let text = fs::read_to_string(mount.path(&format!("file{number}"))).unwrap();
        assert_eq!(text, format!("text of {number}"));
    }
    mount.unmount();
}

#[test]
fn a_server_that_is_stopped_and_started_again_is_a_pause_for_programs() {
    let mut world = World::new(&["alice", "bob"]);
    let mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    shell(
        &world.outside(),
        "mkdir tree && for i in $(seq 2000); do echo $i > tree/f$i; done; tar cf tree.tar tree",
    );
    let mut tar = Command::new("tar");
    tar.arg("xf").arg(world.outside().join("tree.tar")).current_dir(mount.root());
    let mut tar = tar.spawn().unwrap();
    for _ in 0..3 {
        assert_eq!(world.server.terminate(), Some(0));
        world.server.restart();
        wait_until("the connection to be back", PATIENCE, || is_connected(&mount));
    }
    assert!(tar.wait().unwrap().success());
    mount.sync();
    // A delivery is not lost either.
    let bob = world.mount("bob");
    mount.shell("cp tree/f7 outbox/bob/seven");
    assert_eq!(world.server.terminate(), Some(0));
    world.server.restart();
    wait_until("the delivery", PATIENCE, || bob.path("inbox/alice/seven").exists());
    bob.unmount();
    mount.shell(&format!("diff -r {}/tree tree", world.outside().display()));
    mount.unmount();
}

/// What the programs of the next test work on, in a directory of this machine's disk.
const BEFORE: &str = "
mkdir repo tree && cd repo && git init -q
for i in $(seq 1500); do mkdir -p d$((i % 7)); seq $i $((i + 99)) > d$((i % 7))/f$i; done
git add . && git -c user.name=a -c user.email=a@b commit -qm all
cd .. && cp -r repo/d* tree/";

/// Programs of every day, each with a check of what it has made. `$OUT` is that directory.
const PROGRAMS: [(&str, &str); 3] = [
    ("git clone -q file://$OUT/repo clone", "cd clone && git fsck --strict && diff -r d1 $OUT/repo/d1"),
    ("rsync -a $OUT/tree/ copied/", "diff -r $OUT/tree copied"),
    (
        "sqlite3 numbers.db 'CREATE TABLE numbers (number INTEGER)' &&
         for i in $(seq 10); do sqlite3 numbers.db \"INSERT INTO numbers VALUES ($i)\" || exit 1; done",
        "test \"$(sqlite3 numbers.db 'PRAGMA integrity_check; SELECT sum(number) FROM numbers')\" = \"ok
55\"",
    ),
];

#[test]
fn programs_of_every_day_go_on_while_the_server_is_stopped_and_killed() {
    let mut world = World::new(&["alice"]);
    let out = world.outside();
    shell(&out, BEFORE);
    let mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    for (work, check) in PROGRAMS {
        let script = |script: &str| {
            let mut bash = Command::new("bash");
            bash.args(["-c", script]).env("OUT", &out).current_dir(mount.root());
            bash
        };
        let mut working = script(work).spawn().unwrap();
        let (mut restarts, mut ended) = (0, false);
        while !ended {
            let before = durable(&mount);
            wait_until("progress", PATIENCE, || {
                ended = working.try_wait().unwrap().is_some();
                ended || durable(&mount) > before
            });
            match restarts % 2 {
                0 => world.server.kill(),
                _ => assert_eq!(world.server.terminate(), Some(0)),
            }
            world.server.restart();
            wait_until("the connection to be back", PATIENCE, || is_connected(&mount));
            restarts += 1;
        }
        println!("{restarts} restarts: {work}");
        assert!(working.wait().unwrap().success(), "{work}");
        assert!(script(check).status().unwrap().success(), "{check}");
    }
    mount.unmount();
}

#[test]
fn a_mount_whose_process_crashed_makes_way_for_the_next_on_its_machine_at_once() {
    let world = World::new(&["alice"]);
    for _ in 0..3 {
        let mut mount = world.mount("alice");
        fs::write(mount.path("file"), "x").unwrap();
        mount.sync();
        mount.signal(Signal::KILL);
        mount.ended();
        drop(mount);
    }
    let mount = world.mount("alice");
    // Another machine, with a home of its own, is refused while this one has the session.
    let elsewhere = tempfile::tempdir().unwrap();
    let place = world.mount_point("elsewhere");
    let mut other = world.mounting("alice").at(&place).command();
    other.env("HOME", elsewhere.path());
    let refused = run_within(&mut other, Duration::from_secs(60));
    assert!(refused.stderr.contains("already mounted"), "{refused:?}");
    mount.unmount();
}
