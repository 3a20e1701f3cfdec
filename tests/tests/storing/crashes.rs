//! Servers and clients that are killed, or stopped and started again, under programs that work.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xfer_tests::programs::program;
use xfer_tests::{
    Mount, Mounting, PATIENCE, Random, Relay, Server, World, run_within, scale, shell, wait_until,
};

/// How often a server is killed.
const KILLS: usize = 8;

/// The size of a file that is copied while a server is killed, in MiB.
const COPIED_MIB: usize = 192;

/// How often the server is killed meanwhile, and how often the link is cut.
const KILLED_EVERY: Duration = Duration::from_secs(5);
const CUT_EVERY: Duration = Duration::from_secs(7);

/// How often each of the two happens at least.
const HAPPENS_MIN: usize = 2;

/// How often a server is stopped or killed at least while one program works.
const RESTARTS_MIN: usize = 2;

/// How many files a large store has, and a small one.
const MANY_FILES: usize = 20_000;
const FEW_FILES: usize = 200;

/// How much longer a server with the large store may take until it listens, and until an account of it
/// is mounted.
const LISTENS_LATER: Duration = Duration::from_secs(1);
const MOUNTED_LATER: Duration = Duration::from_secs(2);

/// The op up to which everything is durable, as the mount knows.
fn durable(mount: &Mount) -> u64 {
    let status = mount.xfer("status", &["--json"]).succeeded().stdout;
    let after = status.split("\"durable_seq\": ").nth(1).unwrap();
    after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Acts again and again at fixed times, however long each act takes, until `over` is closed. Returns how
/// often.
fn each(interval: Duration, over: &Receiver<()>, mut act: impl FnMut()) -> usize {
    let (mut next, mut acts) = (Instant::now() + interval, 0);
    loop {
        let left = next.saturating_duration_since(Instant::now());
        if over.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
            return acts;
        }
        act();
        acts += 1;
        while next <= Instant::now() {
            next += interval;
        }
    }
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
    let relay = Relay::to(world.server.address);
    let mount = small_log(world.mounting("alice").through(relay.address));
    let (kills, cuts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let happened = || [&kills, &cuts].map(|count| count.load(Ordering::SeqCst));
    let (mut copies, mut meanwhile) = (0, [0, 0]);
    let copy = mount.path("copy");
    let run = |program: &str| {
        let program = &mut Command::new(program);
        let done = run_within(program.arg(&original).arg(&copy), scale::time_limit());
        assert_eq!(done.succeeded().stderr, "");
    };
    std::thread::scope(|scope| {
        // Two timers that know nothing of each other, and nothing of the copy but that it is over.
        let ((copied, until_copied), (copied_too, until_copied_too)) = (channel(), channel());
        let server = &mut world.server;
        scope.spawn(|| {
            let until_copied = until_copied;
            each(KILLED_EVERY, &until_copied, || {
                server.kill();
                kills.fetch_add(1, Ordering::SeqCst);
                server.restart();
            })
        });
        scope.spawn(|| {
            let until_copied = until_copied_too;
            each(CUT_EVERY, &until_copied, || {
                relay.break_connections();
                cuts.fetch_add(1, Ordering::SeqCst);
            })
        });
        // One copy is short on a fast machine.
        while meanwhile.iter().any(|count| *count < HAPPENS_MIN) {
            if copies > 0 {
                run("cmp");
                fs::remove_file(&copy).unwrap();
            }
            let before = happened();
            run("cp");
            meanwhile = [0, 1].map(|which| meanwhile[which] + happened()[which] - before[which]);
            copies += 1;
        }
        drop::<[Sender<()>; 2]>([copied, copied_too]);
    });
    let [kills, cuts] = meanwhile;
    println!(
        "in {copies} copies, the server was killed {kills} times and the link cut {cuts} times"
    );
    mount.sync();
    mount.unmount();
    let mount = world.mount("alice");
    run("cmp");
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

/// A mount on which no program gets far without a server.
fn small_log(mounting: Mounting<'_>) -> Mount {
    mounting.arg("--log-size=16MiB").arg("-o").arg("wait=forever").start()
}

/// How a server goes away.
#[derive(Clone, Copy)]
enum Away {
    Stopped,
    Killed,
}

/// Has the server go away and start again under a program, each time that the program has got on.
/// Returns how often it went away before the program had ended.
fn restarts_under(
    working: &mut Child,
    server: &mut Server,
    mount: &Mount,
    ways: impl IntoIterator<Item = Away>,
) -> usize {
    let mut restarts = 0;
    for way in ways {
        let (before, mut ended) = (durable(mount), false);
        wait_until("progress", PATIENCE, || {
            ended = working.try_wait().unwrap().is_some();
            ended || durable(mount) > before
        });
        if ended {
            break;
        }
        match way {
            Away::Stopped => assert_eq!(server.terminate(), Some(0)),
            Away::Killed => server.kill(),
        }
        // It counts if there was no server before there was no program.
        restarts += usize::from(working.try_wait().unwrap().is_none());
        server.restart();
        wait_until("the connection to be back", PATIENCE, || mount.is_connected());
    }
    restarts
}

#[test]
fn a_server_that_is_stopped_and_started_again_is_a_pause_for_programs() {
    let mut world = World::new(&["alice", "bob"]);
    let mount = small_log(world.mounting("alice"));
    shell(
        &world.outside(),
        "mkdir tree && for i in $(seq 1000); do echo $i > tree/f$i; done
         for i in $(seq 20); do head -c 5M /dev/urandom > tree/f${i}00; done
         tar cf tree.tar --sort=name tree",
    );
    let (mut turns, mut restarts) = (0, 0);
    // One turn is short on a fast machine.
    while restarts < RESTARTS_MIN {
        fs::create_dir(mount.path(&format!("turn{turns}"))).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("xf").arg(world.outside().join("tree.tar")).arg("-C");
        let mut tar = tar.arg(mount.path(&format!("turn{turns}"))).spawn().unwrap();
        restarts += restarts_under(&mut tar, &mut world.server, &mount, [Away::Stopped; 3]);
        assert!(tar.wait().unwrap().success());
        turns += 1;
    }
    println!("{restarts} restarts in {turns} turns");
    mount.sync();
    // A delivery is not lost either.
    let bob = world.mount("bob");
    mount.shell("cp turn0/tree/f7 outbox/bob/seven");
    assert_eq!(world.server.terminate(), Some(0));
    world.server.restart();
    wait_until("the delivery", PATIENCE, || bob.path("inbox/alice/seven").exists());
    bob.unmount();
    for turn in 0..turns {
        mount.shell(&format!("diff -r {}/tree turn{turn}/tree", world.outside().display()));
    }
    mount.unmount();
}

/// What the programs of the next test work on, in a directory of this machine's disk.
const BEFORE: &str = "
mkdir repo tree && cd repo && git init -q
for i in $(seq 1500); do mkdir -p d$((i % 7)); seq $i $((i + 99)) > d$((i % 7))/f$i; done
for i in $(seq 0 6); do head -c 5M /dev/urandom > d$i/large; done
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
    let mount = small_log(world.mounting("alice"));
    for (work, check) in PROGRAMS {
        let (mut turns, mut restarts) = (0, 0);
        // One turn is short on a fast machine.
        while restarts < RESTARTS_MIN {
            let directory = mount.path(&format!("turn{turns}"));
            fs::create_dir_all(&directory).unwrap();
            let script = |script: &str| {
                let mut bash = Command::new("bash");
                bash.args(["-c", script]).env("OUT", &out).current_dir(&directory);
                bash
            };
            let mut working = script(work).spawn().unwrap();
            let ways = [Away::Killed, Away::Stopped].into_iter().cycle().skip(restarts % 2);
            restarts += restarts_under(&mut working, &mut world.server, &mount, ways);
            assert!(working.wait().unwrap().success(), "{work}");
            assert!(script(check).status().unwrap().success(), "{check}");
            fs::remove_dir_all(&directory).unwrap();
            turns += 1;
        }
        println!("{restarts} restarts in {turns} turns: {work}");
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
    assert!(refused.stderr.contains("the account is in use"), "{refused:?}");
    mount.unmount();
}
