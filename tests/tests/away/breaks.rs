//! Links that break under a mount: programs wait or go on from what is cached, nobody has to mount
//! again, and nothing is lost.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statvfs, statx};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use xfer_mount::process::exit::Exit;
use xfer_tests::files::errno;
use xfer_tests::freezer::Freezer;
use xfer_tests::network::{Cable, Network, SERVER, Way};
use xfer_tests::programs::program;
use xfer_tests::relay::Cut;
use xfer_tests::waiting::waits_for_a_mount;
use xfer_tests::{
    Mount, PATIENCE, Random, Relay, Server, World, run_within, scale, shell, wait_until,
};

/// How long the cable is pulled, in seconds: longer than it takes to notice.
const PULLED_S: usize = 13;

/// Longer than it takes to notice a silence of 3 s, and shorter than one of 10 s.
const LATE: Duration = Duration::from_secs(8);

/// The longest time from a reset until there is another connection, at best. A silence would be
/// noticed after ten seconds.
const RESET_MAX: Duration = Duration::from_secs(3);

/// How often a connection is reset while it is being opened.
const OPENINGS: usize = 12;

/// About the number of bytes with which a session goes on over a new connection, in each direction.
const OPENING_BYTES: u64 = 4000;

/// How long `kill` may take to end a program that waits for the server.
const KILL_MAX: Duration = Duration::from_secs(2);

/// A server and a client with a cable between them.
struct Apart {
    world: World,
    network: Network,
}

impl Apart {
    fn new() -> Apart {
        Apart::with_server(&[])
    }

    /// With these options of `xfer-server run`.
    fn with_server(options: &[&str]) -> Apart {
        Apart::over(Cable { round_trip: Duration::from_millis(5), bits_per_s: None }, options)
    }

    fn over(cable: Cable, options: &[&str]) -> Apart {
        let network = Network::new(cable);
        let world = network.server.run(|| {
            World::with_server(&["alice"], |store| {
                Server::start_with(store, &format!("{SERVER}:0"), options)
            })
        });
        Apart { world, network }
    }

    fn mount(&self, options: &[&str]) -> Mount {
        self.network.client.run(|| {
            let mounting = self.world.mounting("alice");
            options.iter().fold(mounting, |mounting, option| mounting.arg(option)).start()
        })
    }
}

/// The time from a pulled cable until a mount says that it is not connected.
fn noticed_after(apart: &Apart, mount: &Mount) -> Duration {
    mount.shell("ls");
    apart.network.pull();
    let pulled = Instant::now();
    // Something waits for the server.
    fs::write(mount.path("file"), "text").unwrap();
    wait_until("the mount to notice", PATIENCE, || !mount.is_connected());
    let took = pulled.elapsed();
    apart.network.plug_in();
    mount.sync();
    took
}

/// Starts a shell script in the mount point.
fn start(mount: &Mount, script: &str) -> Child {
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", script]).current_dir(mount.root());
    bash.stderr(Stdio::piped()).spawn().unwrap()
}

/// Fails the test unless the program ends well.
fn ends_well(mut program: Child) {
    let mut said = String::new();
    program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = program.wait().unwrap();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn programs_go_on_after_the_cable_was_pulled_and_nothing_is_lost() {
    let apart = Apart::new();
    let outside = apart.world.outside();
    shell(&outside, "mkdir tree && cd tree && for i in $(seq 1500); do echo $i > f$i; done");
    shell(
        &outside,
        "tar cf tree.tar tree && git init -q --bare origin && git clone -q origin work",
    );
    shell(
        &outside,
        "cp -r tree work && cd work && git add . && git -c user.name=a -c user.email=a@b commit -qm all
         git push -q origin HEAD",
    );
    let mount = apart.mount(&["-o", "wait=forever"]);
    // An editor with a file open, and two programs at work.
    let mut open = File::create(mount.path("open")).unwrap();
    open.write_all(b"before\n").unwrap();
    let outside = outside.display();
    let script = format!("tar xf {outside}/tree.tar; sync -d tree/f1500");
    let untar = start(&mount, &script);
    let clone =
        start(&mount, &format!("git clone -q {outside}/origin clone; sync -d clone/.git/HEAD"));
    wait_until("the programs to begin", PATIENCE, || {
        mount.path("tree/f1").exists() && mount.path("clone/.git").exists()
    });
    apart.network.pull();
    open.write_all(b"meanwhile\n").unwrap();
    std::thread::sleep(Duration::from_secs(scale::count("XFER_PULLED_S", PULLED_S) as u64));
    apart.network.plug_in();
    open.write_all(b"after\n").unwrap();
    open.sync_all().unwrap();
    ends_well(untar);
    ends_well(clone);
    drop(open);
    mount.unmount();
    let mount = apart.mount(&[]);
    mount.shell(&format!("diff -r {outside}/tree tree && diff -r {outside}/tree clone/tree"));
    mount.shell("cd clone && git fsck --strict && test -z \"$(git status --porcelain)\"");
    assert_eq!(fs::read_to_string(mount.path("open")).unwrap(), "before\nmeanwhile\nafter\n");
    mount.unmount();
}

/// A tree of many files and a large one, and how programs bring it to a mount.
const BRING: &str =
    "cp -r '{}'/tree '{}'/big . && sync -d big && diff -r '{}'/tree tree && cmp '{}'/big big";

/// Starts programs that bring a tree to a mount.
fn bring(world: &World, mount: &Mount) -> (Child, String) {
    let outside = world.outside();
    let make = "mkdir tree; for i in $(seq 300); do echo $i > tree/f$i; done
                head -c 8000000 /dev/urandom > big";
    shell(&outside, make);
    let script = BRING.replace("{}", outside.to_str().unwrap());
    (start(mount, &script), script.split_once("&& diff").unwrap().1.to_owned())
}

#[test]
fn a_dead_connection_is_noticed_in_three_seconds_if_both_sides_ask_for_that() {
    let apart = Apart::new();
    let mount = apart.mount(&["-o", "silence=3"]);
    let took = noticed_after(&apart, &mount);
    assert!(took < LATE, "{took:?}");
    // Also over the next connection.
    let took = noticed_after(&apart, &mount);
    assert!(took < LATE, "{took:?}");
    mount.unmount();
    let apart = Apart::with_server(&["--silence=10"]);
    let mut mount = apart.mount(&["-o", "silence=3"]);
    mount.says("the server wants a dead connection to be noticed after 10 s, not 3 s");
    let took = noticed_after(&apart, &mount);
    assert!(took >= LATE, "{took:?}");
    mount.unmount();
}

/// A program's directory in `/proc`.
fn in_proc(program: &Child) -> PathBuf {
    PathBuf::from(format!("/proc/{}", program.id()))
}

#[test]
fn a_link_that_loses_packets_loses_nothing() {
    let apart = Apart::new();
    let mount = apart.mount(&["-o", "wait=forever"]);
    apart.network.lose(50);
    let (program, check) = bring(&apart.world, &mount);
    ends_well(program);
    mount.unmount();
    apart.network.lose(0);
    let mount = apart.mount(&[]);
    mount.shell(&format!("diff {check}"));
    mount.unmount();
}

#[test]
fn a_link_that_is_silent_in_one_direction_is_replaced_and_nothing_is_lost() {
    for way in [Way::Up, Way::Down] {
        let apart = Apart::new();
        let mut mount = apart.mount(&["-o", "wait=forever"]);
        let (program, check) = bring(&apart.world, &mount);
        wait_until("the program to begin", PATIENCE, || mount.path("tree/f1").exists());
        apart.network.cut(way);
        mount.says("the connection to the server is lost");
        apart.network.plug_in();
        ends_well(program);
        mount.unmount();
        let mount = apart.mount(&[]);
        mount.shell(&format!("diff {check}"));
        mount.unmount();
    }
}

/// Mounts through a relay, with nothing of `d/cold` in the cache.
fn cold(world: &World, relay: &Relay) -> Mount {
    let mount = world.mounting("alice").through(relay.address).arg("-o").arg("wait=forever");
    let mount = mount.start();
    mount.sync();
    mount
}

#[test]
fn a_reset_is_noticed_at_once_by_a_program_that_waits_and_by_an_idle_mount() {
    let nowhere = Cut { to_server: true, after: u64::MAX };
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir d && echo cold > d/cold");
    mount.unmount();
    // The best of some rounds, since a busy machine takes its time.
    let rounds = [(); 3].map(|()| {
        let relay = Relay::to(world.server.address);
        let mount = cold(&world, &relay);
        relay.hold_answers();
        let cat = start(&mount, "test $(cat d/cold) = cold");
        wait_until("the answer", PATIENCE, || relay.held() > 0);
        let reset = Instant::now();
        relay.reset(nowhere);
        ends_well(cat);
        let read = reset.elapsed();
        // Now nothing waits for the server, and it would be silent for a minute.
        mount.sync();
        let is_back = || mount.said().matches("the connection to the server is back").count();
        let (reset, before) = (Instant::now(), is_back());
        relay.reset(nowhere);
        wait_until("another connection", PATIENCE, || is_back() > before);
        let back = reset.elapsed();
        mount.unmount();
        (read, back)
    });
    let best = rounds
        .iter()
        .fold((PATIENCE, PATIENCE), |best, round| (best.0.min(round.0), best.1.min(round.1)));
    assert!(best.0 < RESET_MAX && best.1 < RESET_MAX, "{rounds:?}");
}

#[test]
fn links_that_are_reset_again_and_again_lose_nothing() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount =
        world.mounting("alice").through(relay.address).arg("-o").arg("wait=forever").start();
    let mut random = Random::new(Random::seed());
    let (mut program, check) = bring(&world, &mount);
    let mut resets = 0;
    while program.try_wait().unwrap().is_none() {
        // Some links carry a little before they break, some not even all of their opening.
        let next = Cut { to_server: random.below(2) == 0, after: random.below(OPENING_BYTES) };
        relay.reset(next);
        resets += 1;
        std::thread::sleep(Duration::from_millis([20, 150, 700][resets % 3]));
    }
    assert!(resets > 1, "the program was too fast");
    ends_well(program);
    relay.spare_next();
    mount.sync();
    mount.unmount();
    // At the same address: the server may not have heard that the session is over.
    let mount = world.mounting("alice").through(relay.address).start();
    mount.shell(&format!("diff {check}"));
    mount.unmount();
}

#[test]
fn a_connection_that_is_reset_anywhere_in_its_opening_repeats_and_loses_nothing() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mut random = Random::new(Random::seed());
    let mounting = world.mounting("alice").through(relay.address);
    let mount = mounting.arg("-o").arg("wait=forever").start();
    let mut file = File::options().create(true).append(true).open(mount.path("file")).unwrap();
    let mut lines = String::new();
    for round in 0..scale::count("XFER_OPENINGS", OPENINGS) {
        let next = Cut { to_server: round % 2 == 0, after: random.below(OPENING_BYTES) };
        relay.reset(next);
        let line = format!("line {round}\n");
        file.write_all(line.as_bytes()).unwrap();
        lines += &line;
        file.sync_all().unwrap();
        wait_until("the connection that is reset", PATIENCE, || relay.has_reset_next());
    }
    drop(file);
    mount.unmount();
    let mount = world.mounting("alice").through(relay.address).start();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), lines);
    mount.unmount();
}

#[test]
fn without_a_connection_what_is_cached_is_there_and_what_is_not_times_out_as_asked() {
    let apart = Apart::new();
    let mount = apart.mount(&[]);
    mount.shell("mkdir d && echo cold > d/cold && echo warm > warm");
    mount.unmount();
    let mut mount = apart.mount(&["-o", "wait=2"]);
    assert_eq!(fs::read_to_string(mount.path("warm")).unwrap(), "warm\n");
    apart.network.pull();
    fs::write(mount.path("pending"), "x").unwrap();
    mount.says("the connection to the server is lost");
    // What people see.
    let status = mount.xfer("status", &[]).succeeded().stdout;
    assert!(
        status.contains("disconnected") && status.contains("the server fell silent"),
        "{status}"
    );
    // What needs no server.
    let begin = Instant::now();
    assert_eq!(fs::read_to_string(mount.path("warm")).unwrap(), "warm\n");
    fs::write(mount.path("new"), "new").unwrap();
    fs::rename(mount.path("new"), mount.path("renamed")).unwrap();
    mount.shell("df . && stat . && ls");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // What does.
    let begin = Instant::now();
    assert_eq!(errno(fs::read_to_string(mount.path("d/cold"))), libc::ETIMEDOUT);
    let file = File::open(mount.path("renamed")).unwrap();
    assert_eq!(errno(file.sync_all()), libc::ETIMEDOUT);
    let waited = begin.elapsed();
    assert!((4.0..8.0).contains(&waited.as_secs_f64()), "{waited:?}");
    apart.network.plug_in();
    file.sync_all().unwrap();
    assert!(mount.is_connected());
    assert_eq!(fs::read_to_string(mount.path("d/cold")).unwrap(), "cold\n");
    drop(file);
    mount.unmount();
}

#[test]
fn programs_that_wait_without_a_connection_can_be_interrupted_and_killed() {
    let apart = Apart::new();
    let mount = apart.mount(&[]);
    mount.shell("mkdir d && echo cold > d/cold");
    mount.unmount();
    let mut mount = apart.mount(&["-o", "wait=forever"]);
    fs::write(mount.path("file"), "before").unwrap();
    mount.sync();
    apart.network.pull();
    fs::write(mount.path("file"), "x").unwrap();
    mount.says("the connection to the server is lost");
    for (script, signal) in [
        ("exec cat d/cold", Signal::INT),
        ("exec cat d/cold", Signal::KILL),
        ("exec sync -d file", Signal::INT),
        ("exec sync -d file", Signal::KILL),
    ] {
        let mut program = start(&mount, script);
        let pid = Pid::from_child(&program);
        // Not the shell before it: that may wait for a moment too, and takes signals in its own way.
        let name = script.split(' ').nth(1).unwrap();
        let process = in_proc(&program);
        wait_until(&format!("`{script}` to wait for the server"), PATIENCE, || {
            let comm = fs::read_to_string(process.join("comm"));
            waits_for_a_mount(&process) && comm.is_ok_and(|comm| comm.trim_end() == name)
        });
        let begin = Instant::now();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = program.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{script}");
        assert!(begin.elapsed() < KILL_MAX, "{script}: {:?}", begin.elapsed());
    }
    apart.network.plug_in();
    assert_eq!(fs::read_to_string(mount.path("d/cold")).unwrap(), "cold\n");
    mount.unmount();
}

/// A program that touches a page of its standard input. Python would wait with its handler of SIGINT.
const TOUCH: &str = "import mmap, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)
print(mmap.mmap(sys.stdin.fileno(), 0, prot=mmap.PROT_READ)[200000])";

#[test]
fn a_program_that_waits_for_a_page_of_a_mapped_file_without_a_connection_can_be_killed() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    fs::write(mount.path("mapped"), vec![7; 400_000]).unwrap();
    mount.unmount();
    let mut mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    let mapped = File::open(mount.path("mapped")).unwrap();
    world.server.kill();
    mount.says("the connection to the server is lost");
    for signal in [Signal::KILL, Signal::INT] {
        let mut python = Command::new("python3");
        let stdin = mapped.try_clone().unwrap();
        let mut python = python.args(["-c", TOUCH]).stdin(stdin).spawn().unwrap();
        let process = in_proc(&python);
        wait_until("the program to wait for the page", PATIENCE, || waits_for_a_mount(&process));
        let begin = Instant::now();
        rustix::process::kill_process(Pid::from_child(&python), signal).unwrap();
        assert_eq!(python.wait().unwrap().signal(), Some(signal.as_raw()));
        assert!(begin.elapsed() < KILL_MAX, "{signal:?}: {:?}", begin.elapsed());
    }
    world.server.restart();
    let mut byte = [0];
    mapped.read_exact_at(&mut byte, 200_000).unwrap();
    assert_eq!(byte, [7]);
    drop(mapped);
    mount.unmount();
}

/// The longest time of an answer that needs no server.
const ANSWERED_MAX: Duration = Duration::from_secs(2);

/// What file managers and other programs of a desktop ask all the time.
const ASKED_ALL_THE_TIME: [fn(&Path); 4] = [
    |root| assert!(statvfs(root).unwrap().f_blocks > 0),
    |root| {
        // Not what the kernel may have cached.
        let flags = AtFlags::STATX_FORCE_SYNC;
        statx(CWD, root, flags, StatxFlags::BASIC_STATS).unwrap();
    },
    |root| drop(run_within(Command::new("stat").arg("-f").arg(root), PATIENCE).succeeded()),
    |root| drop(run_within(Command::new("df").arg(root), PATIENCE).succeeded()),
];

#[test]
fn df_and_stat_of_the_mount_point_never_wait_for_a_dead_link_that_nobody_has_noticed() {
    let apart = Apart::new();
    let mount = apart.mount(&[]);
    mount.shell("mkdir d && head -c 1000000 /dev/urandom > d/cold");
    mount.unmount();
    // The best of some rounds, since a busy machine takes its time.
    let rounds = (0..3).map(|_| {
        let mount = apart.mount(&["-o", "wait=forever"]);
        mount.sync();
        let mut longest = Duration::ZERO;
        let mut ask_all = || {
            for ask in ASKED_ALL_THE_TIME {
                let begin = Instant::now();
                ask(mount.root());
                longest = longest.max(begin.elapsed());
            }
        };
        apart.network.pull();
        ask_all();
        let cat = start(&mount, "exec cat d/cold > /dev/null");
        let process = in_proc(&cat);
        wait_until("the program to wait", PATIENCE, || waits_for_a_mount(&process));
        ask_all();
        let is_noticed = !mount.is_connected();
        apart.network.plug_in();
        ends_well(cat);
        mount.unmount();
        (longest, is_noticed)
    });
    let mut told = Vec::new();
    for (longest, is_noticed) in rounds {
        if longest < ANSWERED_MAX && !is_noticed {
            return;
        }
        told.push((longest, is_noticed));
    }
    panic!("the longest answers, and whether the loss was noticed by then: {told:?}");
}

#[test]
fn changes_go_on_without_a_connection_until_the_log_is_full_and_what_was_answered_is_sent() {
    const WAIT: Duration = Duration::from_secs(2);
    let mut world = World::new(&["alice"]);
    let mounting = world.mounting("alice").arg("--log-size=16MiB").arg("-o").arg("wait=2");
    let mut mount = mounting.start();
    mount.shell("ls");
    mount.sync();
    world.server.kill();
    mount.says("the connection to the server is lost");
    let file = File::create(mount.path("file")).unwrap();
    let (mut random, mut answered) = (Random::new(Random::seed()), Vec::<u8>::new());
    let (refused, took) = loop {
        let (bytes, begin) = (random.bytes(64 << 10), Instant::now());
        match file.write_at(&bytes, answered.len() as u64) {
            Ok(len) => answered.extend(&bytes[..len]),
            Err(error) => break (error.raw_os_error(), begin.elapsed()),
        }
        assert!(begin.elapsed() < WAIT, "{} bytes", answered.len());
    };
    assert_eq!(refused, Some(libc::ETIMEDOUT));
    assert!((WAIT..WAIT * 3).contains(&took), "{took:?}");
    assert!((12 << 20..=16 << 20).contains(&answered.len()), "{}", answered.len());
    // There is still room for something smaller.
    let make = |number| fs::create_dir(mount.path(&format!("d{number}")));
    let (mut directories, mut begin) = (0, Instant::now());
    let refused = loop {
        match make(directories) {
            Ok(()) => (directories, begin) = (directories + 1, Instant::now()),
            Err(error) => break error.raw_os_error(),
        }
    };
    assert_eq!(refused, Some(libc::ETIMEDOUT));
    assert!((WAIT..WAIT * 3).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!(errno(file.sync_all()), libc::ETIMEDOUT);
    // One that waits by then is made.
    std::thread::scope(|scope| {
        let late = scope.spawn(|| wait_until("room", PATIENCE, || make(directories).is_ok()));
        world.server.restart();
        late.join().unwrap();
    });
    directories += 1;
    wait_until("everything to be on the server", PATIENCE, || file.sync_all().is_ok());
    drop(file);
    mount.unmount();
    let mount = world.mount("alice");
    assert!(fs::read(mount.path("file")).unwrap() == answered);
    let expected: Vec<_> = (0..directories).map(|number| format!("d{number}")).collect();
    let there: Vec<String> = mount.shell("ls -d d* | sort -V").lines().map(String::from).collect();
    assert_eq!(there, expected);
    mount.unmount();
}

#[test]
fn a_loss_is_told_once_however_many_tries_fail_and_so_is_the_return() {
    const TRIES: usize = 5;
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir d && echo cold | tee d/cold1 > d/cold2");
    mount.unmount();
    let mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    mount.sync();
    for number in 1..=2 {
        let before = mount.said().lines().count();
        world.server.kill();
        // A stranger in its place counts the tries, and has them fail in two ways by turns.
        let stranger = TcpListener::bind(world.server.address).unwrap();
        let cat = start(&mount, &format!("test $(cat d/cold{number}) = cold"));
        for turn in 0..TRIES {
            let (mut link, _) = stranger.accept().unwrap();
            assert!(link.read(&mut [0; 4096]).unwrap() > 0, "it greets");
            if turn % 2 == 0 {
                link.write_all(b"SSH-2.0-stranger\r\n").unwrap();
            }
        }
        drop(stranger);
        world.server.restart();
        ends_well(cat);
        let back = "the connection to the server is back";
        wait_until("the return to be told", PATIENCE, || {
            mount.said().matches(back).count() == number
        });
        let said = mount.said();
        let said: Vec<_> = said.lines().skip(before).collect();
        let why = "the tree cannot be reached: ";
        let told = ["the connection to the server is lost", why, why, back];
        let is_told = said.iter().zip(told).all(|(line, text)| line.contains(text));
        assert!(said.len() == told.len() && is_told && said[1] != said[2], "{said:#?}");
    }
    mount.unmount();
}

#[test]
fn a_mount_that_can_not_reach_the_server_is_unmounted_in_time_and_says_what_is_lost() {
    let apart = Apart::new();
    let mut mount = apart.mount(&["-o", "wait=1"]);
    fs::write(mount.path("unsent"), "x").unwrap();
    mount.sync();
    apart.network.pull();
    fs::write(mount.path("lost"), "x").unwrap();
    mount.says("the connection to the server is lost");
    let begin = Instant::now();
    mount.signal(Signal::TERM);
    mount.says("changes");
    assert_eq!(mount.ended(), Some(i32::from(Exit::Lost.code())));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    apart.network.plug_in();
    // The session of the mount that is gone does not keep the next one on this machine out.
    let mount = apart.mount(&[]);
    assert!(mount.path("unsent").exists() && !mount.path("lost").exists());
    mount.unmount();
}

#[test]
fn each_way_to_unmount_works_on_a_dead_link_and_loses_nothing() {
    let apart = Apart::new();
    for way in ["umount", "fusermount3 -u", "xfer unmount", "xfer unmount --abandon"] {
        let mut mount = apart.mount(&["-o", "wait=1"]);
        mount.shell("ls");
        mount.sync();
        apart.network.pull();
        // Nothing has noticed yet that the link is dead.
        fs::write(mount.path("file"), way).unwrap();
        let begin = Instant::now();
        let (name, options) = way.split_once(' ').unwrap_or((way, ""));
        let found = if name == "xfer" { program(name) } else { PathBuf::from(name) };
        let mut command = Command::new(found);
        command.args(options.split_whitespace()).arg(mount.root());
        run_within(apart.world.at_home(&mut command), PATIENCE);
        assert_eq!(mount.ended(), Some(i32::from(Exit::Lost.code())), "{way}: {}", mount.said());
        assert!(begin.elapsed() < Duration::from_secs(20), "{way}: {:?}", begin.elapsed());
        assert!(!mount.is_mounted(), "{way}");
        apart.network.plug_in();
        let mount = apart.mount(&[]);
        let name = apart.world.only_rescue();
        apart.world.rescue(&["apply", &name]).succeeded();
        assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), way);
        apart.world.rescue(&["drop", &name]).succeeded();
        mount.shell("rm file");
        mount.unmount();
    }
}

#[test]
fn the_end_of_a_mount_waits_no_longer_than_a_program_and_says_where_the_rest_is() {
    const WAIT: Duration = Duration::from_secs(5);
    let mut world = World::new(&["alice"]);
    for way in ["unmount", "signal"] {
        let mut mount = world.mounting("alice").arg("-o").arg("wait=5").start();
        mount.shell("ls");
        world.server.kill();
        fs::write(mount.path("file"), way).unwrap();
        mount.says("the connection to the server is lost");
        if way == "signal" {
            // An end that does not come about does not count.
            let open = fs::File::open(mount.path("file")).unwrap();
            mount.xfer("unmount", &[]).refused(1);
            drop(open);
        }
        let begin = Instant::now();
        let said = if way == "unmount" {
            mount.xfer("unmount", &[]).stderr
        } else {
            mount.signal(Signal::TERM);
            mount.ended();
            mount.said()
        };
        assert!((WAIT..WAIT * 2).contains(&begin.elapsed()), "{way}: {:?}", begin.elapsed());
        let place = world.home().join(".local/state/xfer/rescue").display().to_string();
        let says = format!("; all of that is kept in {place}");
        assert!(said.contains(&says), "{way}: {said}");
        assert_eq!(mount.ended(), Some(i32::from(Exit::Lost.code())));
        let name = world.only_rescue();
        world.rescue(&["drop", "--unapplied", &name]).succeeded();
        world.server.restart();
    }
}

#[test]
fn a_read_of_what_is_not_cached_waits_once_though_its_kernel_asks_again() {
    const WAIT: Duration = Duration::from_secs(5);
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    for name in ["read", "mapped"] {
        fs::write(mount.path(name), vec![7; 400_000]).unwrap();
    }
    mount.unmount();
    let mut mount = world.mounting("alice").arg("-o").arg("wait=5").start();
    let [read, mapped] = ["read", "mapped"].map(|name| File::open(mount.path(name)).unwrap());
    world.server.kill();
    mount.says("the connection to the server is lost");
    let begin = Instant::now();
    assert_eq!(errno(read.read_at(&mut [0; 4096], 0)), libc::ETIMEDOUT);
    assert!((WAIT..WAIT * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    // A program that touches a page of a mapping is killed by SIGBUS.
    let begin = Instant::now();
    let touch =
        "import mmap, sys; print(mmap.mmap(sys.stdin.fileno(), 0, prot=mmap.PROT_READ)[200000])";
    let status = Command::new("python3").args(["-c", touch]).stdin(mapped).status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGBUS));
    assert!((WAIT..WAIT * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[test]
fn a_copy_goes_on_though_its_machine_moves_again_and_again() {
    const MOVES: u8 = 4;
    let apart = Apart::new();
    let source = apart.world.outside().join("source");
    let bytes = Random::new(Random::seed()).bytes(48 << 20);
    fs::write(&source, &bytes).unwrap();
    let mount = apart.mount(&["-o", "wait=forever"]);
    mount.shell("ls");
    let durable = || {
        let status = mount.xfer("status", &["--json"]).succeeded().stdout;
        serde_json::from_str::<Value>(&status).unwrap()["durable_seq"].as_u64().unwrap()
    };
    // Each part is durable before the next, so that the copy takes a while.
    let script = format!("dd if={} of=copy bs=1M oflag=dsync status=none", source.display());
    let mut copy = start(&mount, &script);
    for number in 0..MOVES {
        let before = durable();
        wait_until("the copy to get on", PATIENCE, || durable() >= before + 4);
        assert_eq!(copy.try_wait().unwrap(), None, "it goes on");
        apart.network.leave();
        apart.network.join(Ipv4Addr::new(10, 77, 0, 9 + number));
    }
    ends_well(copy);
    mount.unmount();
    let mount = apart.mount(&[]);
    assert!(fs::read(mount.path("copy")).unwrap() == bytes);
    mount.unmount();
}

/// For how long a laptop is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closed {
    ForAMoment,
    /// Until the server has noticed.
    UntilMissed,
}

#[test]
fn an_upload_goes_on_after_its_laptop_was_closed_and_opened_on_another_network() {
    // At this bandwidth, the copy takes some seconds.
    let cable = Cable { round_trip: Duration::from_millis(20), bits_per_s: Some(100_000_000) };
    let apart = Apart::over(cable, &[]);
    let source = apart.world.outside().join("source");
    let bytes = Random::new(Random::seed()).bytes(64 << 20);
    fs::write(&source, &bytes).unwrap();
    let mount = apart.mount(&["--log-size=16MiB"]);
    mount.shell("ls");
    let mut cp = Command::new("cp");
    cp.arg(&source).arg(mount.path("copy")).stderr(Stdio::piped());
    let mut cp = cp.spawn().unwrap();
    let copied = || fs::metadata(mount.path("copy")).map_or(0, |copy| copy.len());
    for (number, closed) in [Closed::UntilMissed, Closed::ForAMoment].into_iter().enumerate() {
        let before = copied();
        wait_until("the copy to get on", PATIENCE, || copied() >= before + (20 << 20));
        // The kernel can't freeze a program that waits for a mount that is frozen already.
        let frozen = [("cp", cp.id()), ("mount", mount.pid())].map(|(name, pid)| {
            let freezer = Freezer::new(&format!("{name}{number}"), pid);
            freezer.freeze();
            freezer
        });
        assert_eq!(cp.try_wait().unwrap(), None, "it is in the middle");
        apart.network.leave();
        if closed == Closed::UntilMissed {
            wait_until("the server to miss the laptop", PATIENCE, || {
                let listed = apart.world.server.command(&["session", "list", "--json"]);
                let sessions: Value = serde_json::from_str(&listed.succeeded().stdout).unwrap();
                sessions[0]["away_secs"].is_u64()
            });
        }
        apart.network.join(Ipv4Addr::new(10, 77, 0, 9 + number as u8));
        drop(frozen);
    }
    ends_well(cp);
    mount.sync();
    mount.unmount();
    let mount = apart.mount(&[]);
    assert!(fs::read(mount.path("copy")).unwrap() == bytes);
    mount.unmount();
}

#[test]
fn an_idle_mount_tries_its_link_at_once_when_a_route_appears() {
    let apart = Apart::new();
    let mount = apart.mount(&[]);
    mount.shell("ls");
    mount.sync();
    apart.network.pull();
    // Its address stays. Without the route it would notice after a minute.
    let begin = Instant::now();
    let add = || shell(Path::new("/"), "ip route add 10.99.0.0/24 dev lo");
    apart.network.client.run(add);
    wait_until("the mount to notice", PATIENCE, || !mount.is_connected());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    apart.network.plug_in();
    mount.unmount();
}

#[test]
fn a_machine_that_moves_to_another_network_is_connected_again_at_once_and_nothing_is_lost() {
    let apart = Apart::new();
    let mount = apart.mount(&[]);
    mount.shell("ls");
    mount.sync();
    // Nothing waits for the server, so only the kernel can tell.
    let left = Instant::now();
    apart.network.leave();
    let says_so = || mount.xfer("status", &[]).succeeded().stdout.contains("address changed");
    wait_until("the mount to notice", PATIENCE, says_so);
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
    fs::write(mount.path("on the way"), "text").unwrap();
    wait_until("a long pause between two tries", PATIENCE, || {
        let status = mount.xfer("status", &["--json"]).succeeded().stdout;
        let after = status.split("\"next_try_seconds\": ").nth(1).unwrap();
        let seconds = after.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap();
        seconds.parse::<f64>().unwrap() > 6.0
    });
    let joined = Instant::now();
    apart.network.join(Ipv4Addr::new(10, 77, 0, 9));
    wait_until("the mount to be connected", PATIENCE, || mount.is_connected());
    assert!(joined.elapsed() < Duration::from_secs(5), "{:?}", joined.elapsed());
    mount.sync();
    mount.unmount();
}
