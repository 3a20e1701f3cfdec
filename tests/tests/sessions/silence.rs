//! When a peer counts as gone: not while bytes arrive, however slowly, nor for being busy or
//! stopped for a while. Once it is gone, every wait ends at once, with a clear reason.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::Signal;
use xfer_client::core::{Core, Link, LinkLoss, New, Options};
use xfer_client::drive::Client;
use xfer_protocol::message::{Purpose, Silence};
use xfer_protocol::{Errno, Ino};
use xfer_tests::cable::Wiring;
use xfer_tests::network::{Cable, Network, SERVER};
use xfer_tests::peers::{Host, OWNER, Peer, name, roomy};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, Server, World, wait_until};

const MIB: usize = 1 << 20;

/// The longest time until a server misses a client that stands still.
const MISSED: Duration = Duration::from_secs(200);

async fn create(client: &Arc<Client>, file: &str, len: usize) -> Result<(), Errno> {
    let (file, data) = (name(file), Bytes::from(vec![7; len]));
    let new = New::File { mode: 0o644 };
    client
        .call(move |s: &mut Core| {
            let (ino, _) = s.make(Ino::ROOT, &file, &new, OWNER)?;
            if data.is_empty() { Ok(()) } else { s.write(ino, 0, &data, false).map(drop) }
        })
        .await
}

async fn read(client: &Arc<Client>, file: &str) -> Result<Vec<u8>, Errno> {
    let file = name(file);
    let found = client.call(move |s: &mut Core| s.lookup(Ino::ROOT, &file)).await?;
    let ino = found.ok_or(Errno::ENOENT)?.0;
    let handle = client.call(move |s: &mut Core| s.open(ino, false)).await?;
    client.call(move |s: &mut Core| s.read(handle, ino, 0..MIB as u64)).await
}

/// A client over such a cable, with none of a file of 1 MiB in its cache.
async fn cold(host: &Host, wiring: Wiring, silence: Silence) -> Peer {
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", MIB).await.unwrap();
    client.finish().await.unwrap();
    let options = Options { silence, ..roomy("alice") };
    host.mount_with("alice", Purpose::Mount, options, wiring).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_takes_as_long_as_its_bytes_take_to_come() {
    let host = Host::new(&["alice"]);
    let wiring = Wiring { bytes_per_s: Some(8 << 10), ..Wiring::default() };
    let Peer { client, .. } = cold(&host, wiring, Silence::SHORTEST).await;
    let start = tokio::time::Instant::now();
    assert_eq!(read(&client, "file").await.map(|data| data.len()), Ok(MIB));
    assert!(start.elapsed() > Duration::from_secs(60), "the line was not slow");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_noticed_in_the_agreed_time_though_an_answer_is_under_way() {
    for silence in [Silence::SHORTEST, Silence::LONGEST] {
        must_be_noticed(silence).await;
    }
}

async fn must_be_noticed(silence: Silence) {
    let host = Host::new(&["alice"]);
    let wiring = Wiring { bytes_per_s: Some(8 << 10), ..Wiring::default() };
    let Peer { client, cable, .. } = cold(&host, wiring, silence).await;
    let reader = client.clone();
    let reading = tokio::spawn(async move { read(&reader, "file").await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    cable.pull();
    let start = tokio::time::Instant::now();
    while client.status().link == Link::Up {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = start.elapsed();
    let noticed = silence.time() - silence.heartbeat()..=silence.time() + silence.heartbeat();
    assert!(noticed.contains(&took), "{took:?}");
    let link = client.status().link;
    assert!(matches!(&link, Link::Down { loss: LinkLoss::Silent, .. }), "{link:?}");
    cable.plug_in();
    assert_eq!(reading.await.unwrap().map(|bytes| bytes.len()), Ok(MIB));
    assert_eq!(client.status().errors, [] as [String; 0]);
    client.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_never_pause_do_not_keep_the_session_from_the_lock() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (client, stop) = (client.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // As long as an op on a file with a large map takes.
                    let work = |_: &mut Core| {
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_millis(20) {}
                        Ok(())
                    };
                    client.run(work, |_| {});
                }
            })
        })
        .collect();
    let result = tokio::time::timeout(Duration::from_secs(30), async {
        for number in 0..5 {
            create(&client, &format!("file {number}"), 0).await?;
            client.sync().await?;
        }
        Ok::<_, Errno>(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(result, Ok(Ok(())), "the tasks that send and receive did not get the lock");
}

/// Whether alice has a session, and whether its client is there.
fn sessions(server: &Server) -> (bool, bool) {
    let list = server.command(&["session", "list", "--json"]).succeeded().stdout;
    let is_there = list.contains("\"user\": \"alice\"");
    (is_there, is_there && !list.contains("away_secs"))
}

fn is_away(server: &Server) -> bool {
    sessions(server) == (true, false)
}

/// Writes a file, without any waiting.
fn write(mount: &Mount, file: &str) {
    fs::write(mount.path(file), file).unwrap();
}

#[test]
fn a_client_that_stands_still_for_a_while_goes_on_with_its_session() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    write(&mount, "before");
    mount.signal(Signal::STOP);
    let stays = holds_for(Duration::from_secs(15), || sessions(&world.server) == (true, true));
    mount.signal(Signal::CONT);
    assert!(stays, "{}", world.server.said());
    write(&mount, "after");
    mount.sync();
    mount.unmount();
}

#[test]
fn a_client_that_stood_still_for_longer_than_it_is_missed_goes_on_over_another_link() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    write(&mount, "before");
    mount.signal(Signal::STOP);
    wait_until("the client to be missed", MISSED, || is_away(&world.server));
    mount.signal(Signal::CONT);
    mount.says("the connection to the server is lost");
    write(&mount, "after");
    mount.sync();
    assert_eq!(sessions(&world.server), (true, true));
    mount.unmount();
}

#[test]
fn a_client_that_stood_still_while_another_had_its_seat_shows_what_that_one_has_changed() {
    let mut world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    write(&mount, "before");
    mount.sync();
    write(&mount, "unsent");
    mount.signal(Signal::STOP);
    wait_until("the client to be missed", MISSED, || is_away(&world.server));
    let elsewhere = world.mount_point("elsewhere");
    let other = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    assert_eq!(fs::read_to_string(other.path("before")).unwrap(), "before");
    write(&other, "before");
    fs::write(other.path("theirs"), "theirs").unwrap();
    other.unmount();
    mount.signal(Signal::CONT);
    mount.says("this mount has the tree again");
    assert_eq!(fs::read_to_string(mount.path("theirs")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(mount.path("before")).unwrap(), "before");
    mount.unmount();
    assert_eq!(world.server.terminate(), Some(0));
}

#[test]
fn a_server_that_stood_still_goes_on_with_its_sessions() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    write(&mount, "before");
    mount.sync();
    let pid = rustix::process::Pid::from_raw(world.server.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    write(&mount, "meanwhile");
    mount.says("the server fell silent");
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    mount.sync();
    assert_eq!(sessions(&world.server), (true, true));
    mount.unmount();
}

/// How often the threads of a process have begun to wait.
fn wakes(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of_each = tasks.map(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().unwrap())
    });
    of_each.sum()
}

#[test]
fn an_idle_mount_lets_its_machine_sleep() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo text > file && cat file");
    mount.sync();
    // What was begun comes to an end first.
    let mut before = wakes(mount.pid());
    wait_until("the mount to be idle", Duration::from_secs(60), || {
        let idle = holds_for(Duration::from_secs(5), || true);
        let now = wakes(mount.pid());
        idle && std::mem::replace(&mut before, now) == now
    });
    std::thread::sleep(Duration::from_secs(60));
    let woken = wakes(mount.pid()) - before;
    println!("{woken} wakes in a minute");
    // A heartbeat wakes several threads, one after the other, and its answer too.
    assert!(woken <= 20, "{woken} wakes in a minute");
    mount.unmount();
}

#[test]
fn both_sides_work_on_a_line_on_which_a_frame_takes_longer_than_a_silence() {
    // The kernel queues more than 1 MiB for such a line, so the answer to an early question is late.
    let cable = Cable { round_trip: Duration::from_millis(50), bits_per_s: Some(700_000) };
    let network = Network::new(cable);
    let world = network.server.run(|| {
        World::with_server(&["alice"], |store| Server::start(store, &format!("{SERVER}:0")))
    });
    network.client.run(|| {
        let mount = world.mount("alice");
        let data: Vec<u8> = (0..3 * MIB / 2).map(|at| (at / 7) as u8).collect();
        let file = fs::File::create(mount.path("file")).unwrap();
        file.write_all_at(&data, 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        mount.unmount();
        let mount = world.mount("alice");
        assert!(
            fs::read(mount.path("file")).unwrap() == data,
            "what was read is not what was written"
        );
        mount.unmount();
    });
}
