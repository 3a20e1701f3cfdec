//! Servers and clients that are stopped (`SIGSTOP`) for longer than anybody waits for them: what they
//! had goes on, and what they did not send is made or kept.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use xfer_mount::process::exit::Exit;
use xfer_protocol::limits::LEASE_ASKED_MS;
use xfer_protocol::message::Silence;
use xfer_tests::programs::program;
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, Relay, World, run_within, scale, wait_until};

/// How long they are stopped at least, in seconds: longer than a client waits for its server.
const STOPPED_S: usize = 15;

/// Another machine of a user, with a home of its own.
struct Elsewhere<'a> {
    world: &'a World,
    user: &'static str,
    place: PathBuf,
    home: PathBuf,
}

impl Elsewhere<'_> {
    fn new<'a>(world: &'a World, user: &'static str) -> Elsewhere<'a> {
        let place = world.mount_point(&format!("elsewhere-{user}"));
        let home = world.outside().join(user);
        fs::create_dir(&home).unwrap();
        Elsewhere { world, user, place, home }
    }

    /// Tries to mount there, and returns the exit code.
    fn ask(&self) -> Option<i32> {
        let mounting = self.world.mounting(self.user).at(&self.place);
        mounting.env("HOME", self.home.to_str().unwrap()).in_background().code
    }

    fn unmount(&self) {
        let mut xfer = Command::new(program("xfer"));
        let xfer = self.world.at_home(xfer.arg("unmount").arg(&self.place));
        run_within(xfer, PATIENCE).succeeded();
    }
}

/// A program that appends line after line to a file, each of them synced, until it is told to end.
struct Writer {
    program: Child,
    enough: PathBuf,
}

impl Writer {
    fn start(mount: &Mount, outside: &Path) -> Writer {
        let enough = outside.join("enough");
        let script = format!(
            "i=0; while [ ! -e {} ]; do echo $((i += 1)) >> log; sync -d log; done; echo $i > count",
            enough.display()
        );
        let program = bash(mount, &script);
        wait_until("the writer to begin", PATIENCE, || mount.path("log").exists());
        Writer { program, enough }
    }

    /// Fails the test if it met an error.
    fn end(self, mount: &Mount) {
        let line = || fs::metadata(mount.path("log")).unwrap().len();
        let before = line();
        wait_until("the writer to go on", PATIENCE, || line() > before);
        fs::write(self.enough, "").unwrap();
        let (ended_well, said) = ended(self.program);
        assert!(ended_well, "{said}");
    }
}

/// Fails the test unless the file has each line once, on a mount that has nothing in its cache.
fn check_lines(mount: &Mount) {
    mount.shell("diff log <(seq $(cat count))");
}

fn bash(mount: &Mount, script: &str) -> Child {
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", script]).current_dir(mount.root());
    bash.stderr(Stdio::piped()).spawn().unwrap()
}

/// Whether a program ended well, and what it said.
fn ended(mut program: Child) -> (bool, String) {
    let mut said = String::new();
    program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (program.wait().unwrap().success(), said)
}

/// Waits until something was stopped for long enough.
fn wait_since(stopped: Instant) {
    let least = Duration::from_secs(scale::count("XFER_STOPPED_S", STOPPED_S) as u64);
    assert!(least > Silence::LONGEST.time());
    holds_for(least.saturating_sub(stopped.elapsed()), || true);
}

#[test]
fn a_server_that_was_stopped_goes_on_with_a_session_for_which_another_machine_asks() {
    let world = World::new(&["alice"]);
    let mut mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    let writer = Writer::start(&mount, &world.outside());
    let server = Pid::from_raw(world.server.pid() as i32).unwrap();
    let elsewhere = Elsewhere::new(&world, "alice");
    let (goes_on, refused, stop) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let may_be_refused = goes_on.load(Ordering::SeqCst);
                let code = elsewhere.ask();
                assert_ne!(code, Some(0), "another machine has got the seat");
                let is_refused = code == Some(i32::from(Exit::InUse.code()));
                refused.fetch_add(usize::from(is_refused && may_be_refused), Ordering::SeqCst);
            }
        });
        kill_process(server, Signal::STOP).unwrap();
        let stopped = Instant::now();
        mount.says("the server fell silent");
        wait_since(stopped);
        goes_on.store(true, Ordering::SeqCst);
        kill_process(server, Signal::CONT).unwrap();
        wait_until("the other machine to be refused", PATIENCE, || {
            asking.is_finished() || refused.load(Ordering::SeqCst) > 2
        });
        stop.store(true, Ordering::SeqCst);
        asking.join().unwrap();
    });
    writer.end(&mount);
    mount.unmount();
    let mount = world.mount("alice");
    check_lines(&mount);
    mount.unmount();
}

/// A mount that is stopped while it has a change that could not be sent, for which a program waits.
struct Stopped {
    mount: Mount,
    program: Child,
}

impl Stopped {
    fn new(world: &World, user: &str) -> Stopped {
        let relay = Relay::to(world.server.address);
        let mounting = world.mounting(user).through(relay.address);
        let mut mount = mounting.arg("-o").arg("wait=forever").start();
        mount.shell("echo before > before; sync before");
        relay.cut();
        mount.says("the connection to the server is lost");
        let program = bash(&mount, "echo late > late; exec sync -d late");
        let is_written = || fs::read(mount.path("late")).is_ok_and(|text| text == b"late\n");
        wait_until("the change", PATIENCE, is_written);
        mount.signal(Signal::STOP);
        relay.mend();
        Stopped { mount, program }
    }
}

#[test]
fn clients_that_were_stopped_go_on_and_what_they_did_not_send_is_made_or_rescued() {
    let world = World::new(&["alice", "bob", "carol"]);
    let carol = world.mounting("carol").arg("-o").arg("wait=forever").start();
    let writer = Writer::start(&carol, &world.outside());
    let [mut alice, bob] = ["alice", "bob"].map(|user| Stopped::new(&world, user));
    carol.signal(Signal::STOP);
    let stopped = Instant::now();
    // Other machines ask for alice's and bob's trees; nobody asks for carol's.
    let others = ["alice", "bob"].map(|user| Elsewhere::new(&world, user));
    let lease = Duration::from_millis(LEASE_ASKED_MS);
    let mut have = [false; 2];
    let begun = Instant::now();
    wait_until("the others to have the trees", lease + PATIENCE, || {
        for (other, has) in others.iter().zip(&mut have).filter(|(_, has)| !**has) {
            *has = other.ask() == Some(0);
            assert!(!*has || begun.elapsed() >= lease, "{:?}", begun.elapsed());
        }
        have == [true; 2]
    });
    for other in &others {
        assert_eq!(fs::read_to_string(other.place.join("before")).unwrap(), "before\n");
        assert!(!other.place.join("late").exists());
    }
    fs::write(others[0].place.join("theirs"), "theirs").unwrap();
    others.iter().for_each(Elsewhere::unmount);
    wait_since(stopped);
    for mount in [&alice.mount, &bob.mount, &carol] {
        mount.signal(Signal::CONT);
    }
    // Alice's tree was changed meanwhile.
    let (ended_well, said) = ended(alice.program);
    assert!(!ended_well && said.contains("Input/output error"), "{said}");
    alice.mount.says("this mount has the tree again");
    assert_eq!(fs::read_to_string(alice.mount.path("theirs")).unwrap(), "theirs");
    assert!(!alice.mount.path("late").exists());
    let rescue = world.only_rescue();
    world.rescue(&["apply", &rescue]).succeeded();
    assert_eq!(fs::read_to_string(alice.mount.path("late")).unwrap(), "late\n");
    // Bob's was not.
    let (ended_well, said) = ended(bob.program);
    assert!(ended_well, "{said}");
    writer.end(&carol);
    for (user, mount) in [("alice", alice.mount), ("bob", bob.mount), ("carol", carol)] {
        mount.unmount();
        let mount = world.mount(user);
        match user {
            "carol" => check_lines(&mount),
            _ => assert_eq!(mount.shell("cat before late"), "before\nlate"),
        }
        mount.unmount();
    }
}
