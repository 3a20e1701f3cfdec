//! A machine that sleeps: programs that wait for the server must not keep it awake, and nothing may
//! be lost.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use xfer_client::core::Core;
use xfer_client::drive::Client;
use xfer_protocol::message::Purpose;
use xfer_protocol::{Errno, Ino};
use xfer_tests::files::errno;
use xfer_tests::freezer::Freezer;
use xfer_tests::logind::Logind;
use xfer_tests::peers::{Host, Peer, name};
use xfer_tests::waiting::waits_for_a_mount;
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
    assert!(mount.said().contains("to be sent when it wakes up: "), "{}", mount.said());
    wait_until("the program to end", PATIENCE, || waiting.try_wait().unwrap().is_some());
    // Whatever is done in the last moment is answered at once.
    assert_eq!(errno(fs::read(mount.path("cold"))), libc::ETIMEDOUT);
    assert_eq!(fs::read_to_string(mount.path("warm")).unwrap(), "warm");
    assert!(fs::metadata(mount.root()).unwrap().is_dir());
    statvfs(mount.root()).unwrap();
    let late = cat(&mount, "cold").wait().unwrap();
    assert!(!late.success());
    world.server.restart();
    logind.announce_waking();
    wait_until("the mount to delay the next sleep", PATIENCE, || logind.is_delayed());
    assert_eq!(fs::read(mount.path("cold")).unwrap(), vec![7; 1 << 20]);
    mount.unmount();
    let mount = mount_with(&world, &logind, &[]);
    assert_eq!(fs::read_to_string(mount.path("late")).unwrap(), "late");
    mount.unmount();
}

/// How many programs wait.
const WAITING: usize = 100;

/// How many threads of this process wait for a FUSE filesystem.
fn waiting_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    threads.filter(|thread| waits_for_a_mount(&thread.path())).count()
}

#[test]
fn programs_that_wait_are_answered_before_the_machine_sleeps() {
    let mut world = World::new(&["alice"]);
    let logind = Logind::start(&world.outside());
    let mount = mount_with(&world, &logind, &[]);
    (0..WAITING).for_each(|at| fs::write(mount.path(&format!("cold{at}")), "cold").unwrap());
    mount.unmount();
    let mount = mount_with(&world, &logind, &["-o", "wait=forever"]);
    mount.shell("ls");
    world.server.kill();
    let read = |at| {
        let path = mount.path(&format!("cold{at}"));
        thread::spawn(move || errno(fs::read(path)))
    };
    let programs: Vec<_> = (0..WAITING).map(read).collect();
    wait_until("all to wait", PATIENCE, || waiting_threads() >= WAITING);
    logind.announce_sleep();
    wait_until("the mount to let the machine sleep", PATIENCE, || !logind.is_delayed());
    // The mount first, as the kernel may: whoever still waited for it would keep the machine awake.
    let frozen = Freezer::new("mount", mount.pid());
    frozen.freeze();
    let all_ended = || programs.iter().all(thread::JoinHandle::is_finished);
    wait_until("the programs to end while the mount is frozen", PATIENCE, all_ended);
    drop(frozen);
    assert!(programs.into_iter().all(|one| one.join().unwrap() == libc::ETIMEDOUT));
    world.server.restart();
    logind.announce_waking();
    mount.unmount();
}

#[tokio::test]
async fn an_operation_that_has_just_begun_to_wait_has_failed_by_then_too() {
    let host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    client.sync().await.unwrap();
    cable.pull();
    let answered = Arc::new(AtomicUsize::new(0));
    look_up(&client, "absent", &answered);
    client.fall_asleep(Duration::from_secs(1)).await;
    assert_eq!(answered.load(Ordering::SeqCst), 1);
}

/// Looks a name up, and counts the answer, which must be that the server does not answer.
fn look_up(client: &Arc<Client>, file: &str, answered: &Arc<AtomicUsize>) {
    let (file, answered) = (name(file), answered.clone());
    client.run(
        move |core: &mut Core| core.lookup(Ino::ROOT, &file),
        move |found| {
            assert_eq!(found.map(drop), Err(Errno::ETIMEDOUT));
            answered.fetch_add(1, Ordering::SeqCst);
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_operations_that_wait_have_failed_by_the_time_that_a_client_lets_its_machine_sleep() {
    let host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    cable.pull();
    let (count, answered) = (5000, Arc::new(AtomicUsize::new(0)));
    (0..count).for_each(|at| look_up(&client, &format!("absent{at}"), &answered));
    assert_eq!(answered.load(Ordering::SeqCst), 0);
    client.fall_asleep(Duration::ZERO).await;
    assert_eq!(answered.load(Ordering::SeqCst), count);
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
