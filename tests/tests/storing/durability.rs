//! Durability: what survives a crash of either side, an orderly end, or a link that is lost for good.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::Signal;
use xfer_tests::files::{Mapped, errno, read_write};
use xfer_tests::programs::program;
use xfer_tests::{PATIENCE, Relay, Server, World, shell, wait_until};

#[test]
fn what_was_fsynced_survives_a_crash_of_the_server() {
    let mut world = World::new(&["alice"]);
    for round in 0..3u8 {
        let mount = world.mount("alice");
        let path = mount.path(&format!("dir{round}"));
        fs::create_dir(&path).unwrap();
        let mut file = File::create(path.join("file")).unwrap();
        file.write_all(&[round; 500_000]).unwrap();
        file.sync_all().unwrap();
        world.server.kill();
        drop((file, mount));
        world.server.restart();
    }
    let mount = world.mount("alice");
    for round in 0..3u8 {
        let bytes = fs::read(mount.path(&format!("dir{round}/file"))).unwrap();
        assert_eq!(bytes, [round; 500_000]);
    }
    mount.unmount();
}

#[test]
fn what_was_fsynced_survives_a_crash_of_the_client() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    fs::write(mount.path("file"), vec![5; 300_000]).unwrap();
    File::open(mount.path("file")).unwrap().sync_all().unwrap();
    fs::rename(mount.path("file"), mount.path("renamed")).unwrap();
    // A directory's fsync covers changes to its names.
    File::open(mount.root()).unwrap().sync_all().unwrap();
    mount.signal(Signal::KILL);
    mount.ended();
    drop(mount);
    // The kernel has closed the dead client's connections, so the session is over or soon will be.
    let elsewhere = world.mount_point("again");
    let mount = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    assert_eq!(fs::read(mount.path("renamed")).unwrap(), vec![5; 300_000]);
    assert!(!mount.path("file").exists());
    mount.unmount();
}

#[test]
fn after_a_crash_the_server_holds_a_prefix_of_the_history() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    for index in 0..2000 {
        fs::write(mount.path(&format!("{index:04}")), format!("content of {index}")).unwrap();
        if index == 700 {
            mount.sync();
        }
        if index == 1500 {
            world.server.kill();
            break;
        }
    }
    drop(mount);
    world.server.restart();
    let mount = world.mount("alice");
    let there = |index: usize| mount.path(&format!("{index:04}")).exists();
    let count = (0..2000).take_while(|index| there(*index)).count();
    assert!((701..=1501).contains(&count), "{count}");
    assert!((count..2000).all(|index| !there(index)), "something after the first that is missing");
    for index in 0..count {
        let text = fs::read_to_string(mount.path(&format!("{index:04}"))).unwrap();
        // The last file may exist without its data.
        let whole = text == format!("content of {index}");
        assert!(whole || (index + 1 == count && text.is_empty()), "{index}: {text:?}");
    }
    mount.unmount();
}

#[test]
fn a_stopping_server_makes_all_durable_that_its_clients_have_and_ends_in_time() {
    let mut world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    for index in 0..500 {
        fs::write(mount.path(&format!("f{index}")), vec![index as u8; 10_000]).unwrap();
    }
    // `terminate` itself allows ten seconds.
    assert_eq!(world.server.terminate(), Some(0));
    mount.says("the server is stopping");
    // The client is gone before it could send anything again.
    mount.signal(Signal::KILL);
    mount.ended();
    drop(mount);
    world.server.restart();
    let mount = world.mount("alice");
    for index in 0..500 {
        assert_eq!(fs::read(mount.path(&format!("f{index}"))).unwrap(), vec![index as u8; 10_000]);
    }
    mount.unmount();
}

#[test]
fn an_fsync_on_a_dead_link_fails_and_does_not_lie() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let waits = ["-o", "wait=2"];
    let mounting = world.mounting("alice").through(relay.address);
    let mount = waits.iter().fold(mounting, |mounting, option| mounting.arg(option)).start();
    let mut file = File::create(mount.path("file")).unwrap();
    file.write_all(b"x").unwrap();
    let (sender, receiver) = channel();
    relay.hold_answers();
    std::thread::spawn(move || sender.send(file.sync_all()));
    assert!(receiver.recv_timeout(Duration::from_millis(500)).is_err(), "fsync returned too early");
    relay.cut();
    let result = receiver.recv_timeout(PATIENCE).expect("fsync hangs");
    assert_eq!(errno(result), libc::ETIMEDOUT);
}

#[test]
fn fsync_returns_after_the_servers_disk_has_the_data_and_then_the_rows() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let world = World::with_server(&["alice"], |store| {
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-y",
            "-qq",
            "-e",
            "trace=fsync,fdatasync,syncfs,sync_file_range",
            "-o",
        ]);
        strace.arg(trace.path()).arg(program("xfer-server"));
        Server::start_as(strace, store, "127.0.0.1:0", &[])
    });
    let mount = world.mount("alice");
    mount.sync();
    let mut file = File::create(mount.path("file")).unwrap();
    file.write_all(&[3; 200_000]).unwrap();
    let before = fs::read_to_string(trace.path()).unwrap().len();
    file.write_all(&[4; 200_000]).unwrap();
    file.sync_all().unwrap();
    // No waiting: everything told to the disk is in the trace by now.
    let told = fs::read_to_string(trace.path()).unwrap()[before..].to_owned();
    let data = told.find("/contents/").expect(&told);
    assert!(told[data..].contains("/xfer.db"), "rows were not made durable after data:\n{told}");
    drop(file);
    mount.unmount();
}

#[test]
fn a_store_copied_while_the_server_is_stopped_is_a_backup() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir d && seq 1000 > d/numbers && ln d/numbers link");
    mount.unmount();
    assert_eq!(world.server.terminate(), Some(0));
    let store = world.server.store().to_owned();
    let parent = store.parent().unwrap();
    shell(parent, "cp -a store backup && rm -r store && mv backup store");
    world.server.restart();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("tail -n 1 d/numbers; stat -c %h link"), "1000\n2");
    mount.unmount();
}

#[test]
fn contents_that_nothing_refers_to_leave_the_servers_disk() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let contents = world.server.store().join("contents");
    let used = || shell(&contents, "find . -type f | wc -l");
    fs::write(mount.path("file"), vec![1; 1 << 20]).unwrap();
    mount.sync();
    assert_eq!(used(), "1");
    fs::remove_file(mount.path("file")).unwrap();
    mount.sync();
    wait_until("the content to go", PATIENCE, || used() == "0");
    mount.unmount();
}

// Before `xfer sync` and takeovers the kernel has usually written the pages back: `peers` covers those.
#[test]
fn what_was_written_through_a_mapping_is_durable_though_a_signal_ends_the_mount_at_once() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    let file = read_write(&mount.path("file"));
    file.set_len(20_000).unwrap();
    let mut mapped = Mapped::new(&file, 20_000);
    mapped.write(10_000, b"through memory");
    mount.signal(Signal::TERM);
    mount.ended();
    drop((mapped, file, mount));
    let mount = world.mount("alice");
    let data = fs::read(mount.path("file")).unwrap();
    assert_eq!(data.get(10_000..10_014), Some(&b"through memory"[..]));
    mount.unmount();
}
