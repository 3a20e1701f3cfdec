//! When a peer counts as gone: not while bytes arrive, however slowly, nor for being busy or
//! stopped for a while. Once it is gone, every wait ends at once, with a clear reason.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, setpriority_process};
use xfer_client::core::{Core, Link, LinkLoss, New, Options};
use xfer_client::drive::Client;
use xfer_protocol::message::{Purpose, Silence};
use xfer_protocol::{Errno, Ino};
use xfer_tests::cable::Wiring;
use xfer_tests::logind::Logind;
use xfer_tests::network::{Cable, Network, SERVER};
use xfer_tests::peers::{Host, OWNER, Peer, name, roomy};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, Server, World, scale, wait_until};

const MIB: usize = 1 << 20;

/// For how long a machine is busy, in seconds: longer than any silence that is agreed on.
const BUSY_S: usize = 25;

/// A timer for a minute wakes a thread a few times, in the last seconds; what comes within this time counts as
/// one moment.
const ONE_MOMENT: Duration = Duration::from_secs(5);

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
    let pid = Pid::from_raw(world.server.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    write(&mount, "meanwhile");
    mount.says("the server fell silent");
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    mount.sync();
    assert_eq!(sessions(&world.server), (true, true));
    mount.unmount();
}

/// Programs that compute for as long as this is there.
struct Busy(Vec<Child>);

impl Busy {
    /// Starts so many for each core.
    fn each_core(count: usize) -> Busy {
        let cores = std::thread::available_parallelism().unwrap().get();
        let compute = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Busy((0..cores * count).map(|_| compute()).collect())
    }

    /// How long they have waited for a core, all together.
    fn waited(&self) -> Duration {
        let of_each = self.0.iter().map(|program| {
            let stat = fs::read_to_string(format!("/proc/{}/schedstat", program.id())).unwrap();
            Duration::from_nanos(stat.split(' ').nth(1).unwrap().parse().unwrap())
        });
        of_each.sum()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for program in &mut self.0 {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// Has a process get a tenth of what each of the others on this machine gets.
fn come_last(pid: u32) {
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let task = task.file_name().to_string_lossy().parse().unwrap();
        // A thread may have ended.
        let _ = setpriority_process(Pid::from_raw(task), 10);
    }
}

#[test]
fn a_machine_that_is_busy_for_longer_than_a_silence_loses_no_link() {
    let world = World::new(&["alice"]);
    let mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    mount.sync();
    let (begin, busy) = (Instant::now(), Busy::each_core(8));
    [mount.pid(), world.server.pid()].iter().for_each(|pid| come_last(*pid));
    let span = Duration::from_secs(scale::count("XFER_BUSY_S", BUSY_S) as u64);
    let mut rounds = 0;
    while begin.elapsed() < span {
        let (name, text) = (format!("file{rounds}"), format!("text of {rounds}"));
        let mut file = fs::File::create(mount.path(&name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
        rounds += 1;
    }
    let waited = busy.waited();
    drop(busy);
    println!("{rounds} rounds, while others waited for a core for {waited:?}");
    assert!(waited > 4 * span, "the machine was not busy: {waited:?}");
    let (of_mount, of_server) = (mount.said(), world.server.said());
    assert!(!of_mount.contains("is lost"), "{of_mount}");
    assert!(!of_server.contains("session is away"), "{of_server}");
    let list = world.server.command(&["session", "list", "--json"]).succeeded().stdout;
    assert!(list.contains("\"epoch\": 1,"), "{list}");
    mount.unmount();
    let mount = world.mount("alice");
    for number in 0..rounds {
        let text = fs::read_to_string(mount.path(&format!("file{number}"))).unwrap();
        assert_eq!(text, format!("text of {number}"));
    }
    mount.unmount();
}

/// How often each thread of a process has begun to wait.
fn wakes(pid: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of_each = tasks.filter_map(|task| {
        // Threads come and go.
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let value = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
        let count = value("voluntary_ctxt_switches:")?.trim().parse().unwrap();
        let name = value("Name:")?.trim();
        Some((format!("{name} {}", task.file_name().display()), count))
    });
    of_each.collect()
}

/// How much more often they have, by thread.
fn more(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let grown = |(thread, count): (&String, &u64)| {
        let grown = count - before.get(thread).unwrap_or(&0);
        (grown > 0).then(|| (thread.clone(), grown))
    };
    now.iter().filter_map(grown).collect()
}

#[test]
fn an_idle_mount_lets_its_machine_sleep() {
    let world = World::new(&["alice"]);
    // Without a logind it would look for one at times in the first ten minutes.
    let logind = Logind::start(&world.outside());
    let mounting = world.mounting("alice").env("DBUS_SYSTEM_BUS_ADDRESS", logind.address());
    let mount = mounting.start();
    wait_until("the mount to know logind", PATIENCE, || logind.is_delayed());
    mount.shell("echo text > file && cat file");
    mount.sync();
    // What was begun comes to an end first.
    let mut before = wakes(mount.pid());
    wait_until("the mount to be idle", Duration::from_secs(60), || {
        let idle = holds_for(Duration::from_secs(5), || true);
        let now = wakes(mount.pid());
        idle && std::mem::replace(&mut before, now.clone()) == now
    });
    let (begin, mut last) = (Instant::now(), before.clone());
    // When it woke, and what.
    let mut woken: Vec<(Duration, Vec<(String, u64)>)> = Vec::new();
    assert!(holds_for(Duration::from_secs(60), || {
        let now = wakes(mount.pid());
        let grown = more(&now, &last);
        if !grown.is_empty() {
            woken.push((begin.elapsed(), grown));
        }
        last = now;
        true
    }));
    println!("{woken:#?}");
    let apart = |pair: &&[(Duration, _)]| pair[1].0 - pair[0].0 > ONE_MOMENT;
    let moments = usize::from(!woken.is_empty()) + woken.windows(2).filter(apart).count();
    assert!(moments <= 2, "it woke at {moments} moments: {woken:#?}");
    // A heartbeat wakes several threads, one after the other, and its answer too.
    let switches: u64 = more(&last, &before).iter().map(|(_, count)| count).sum();
    assert!(switches <= 12, "{switches} wakes in a minute: {woken:#?}");
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
