//! A file that is sent while the sender's link breaks, or the server is killed, at each step of it. It
//! arrives whole and once, and the recipient's inbox has room as if nothing had happened.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use xfer_tests::files::errno;
use xfer_tests::sending::{arrives, wait_for_state};
use xfer_tests::space::{Space, waiting};
use xfer_tests::{Mount, PATIENCE, Random, Relay, World, wait_until};

/// The sizes of what alice and carol send, in bytes.
const LARGE: usize = 4 << 20;
const SMALL: usize = 3000;

/// The step of a send at which something breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Its data is under way.
    Upload,
    /// Its data is there, and it is about to be closed.
    BeforeClose,
    /// The answer that there is room for it is under way.
    Close,
    /// It was closed, and the server has not heard that it is to be sent.
    BeforeSend,
    /// The server has sent it, and the sender has not heard so.
    Send,
    /// The answer that there is room for it is under way, when it gets its final name.
    Rename,
    /// The recipient has it, and the sender has not heard so.
    Delivery,
}

const STEPS: [Step; 7] = [
    Step::Upload,
    Step::BeforeClose,
    Step::Close,
    Step::BeforeSend,
    Step::Send,
    Step::Rename,
    Step::Delivery,
];

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Link,
    Server,
}

/// A program that makes a file and does what it is told. The test itself must not have the file open: a
/// server that it starts would close it first, and so wait for itself.
const PROGRAM: &str = "
import os, sys
made, final, source = sys.argv[1:]
data = open(source, 'rb').read()
half = len(data) // 2
file = os.open(made, os.O_CREAT | os.O_WRONLY, 0o644)
orders = {
    'begin': lambda: os.write(file, data[:half]),
    'end': lambda: os.write(file, data[half:]),
    'sync': lambda: os.fsync(file),
    'close': lambda: os.close(file),
    'rename': lambda: os.rename(made, final),
}
for line in sys.stdin:
    orders[line.strip()]()
    print('done', flush=True)
";

/// That program.
struct Program {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(made: &Path, name: &Path, data: &Path) -> Program {
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM]).args([made, name, data]);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Program { child, orders, answers: BufReader::new(answers).lines() }
    }

    fn begin(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn finish(&mut self) {
        assert_eq!(self.answers.next().expect("the call succeeds").unwrap(), "done");
    }

    fn run(&mut self, order: &str) {
        self.begin(order);
        self.finish();
    }

    fn end(mut self) {
        drop(self.orders);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Alice, who sends to bob over a relay, and carol, who sends to him too.
struct Senders {
    world: World,
    relay: Relay,
    alice: Mount,
    carol: Mount,
    random: Random,
    /// What a file of alice's and one of carol's take up in an inbox.
    sizes: [Space; 2],
}

impl Senders {
    /// Has bob's inbox take exactly one file of alice's and one of carol's.
    fn new() -> Senders {
        let world = World::new(&["alice", "bob", "carol"]);
        let relay = Relay::to(world.server.address);
        let mount = |user: &str, through| {
            world.mounting(user).through(through).arg("-o").arg("wait=forever").start()
        };
        let alice = mount("alice", relay.address);
        let carol = mount("carol", world.server.address);
        let random = Random::new(Random::seed());
        let mut senders =
            Senders { world, relay, alice, carol, random, sizes: [Space::default(); 2] };
        fs::write(senders.record(), vec![7; LARGE]).unwrap();
        wait_for_state(&senders.record(), "sent");
        let large = senders.waiting();
        senders.send_small();
        wait_for_state(&senders.small_record(), "sent");
        let both = senders.waiting();
        senders.sizes =
            [large, Space { bytes: both.bytes - large.bytes, nodes: both.nodes - large.nodes }];
        let [bytes, items] = [both.bytes, both.nodes].map(|limit| limit.to_string());
        let quota = ["user", "quota", "bob", "--inbox", &bytes, "--inbox-items", &items];
        senders.world.server.command(&quota).succeeded();
        let bob = senders.world.mount("bob");
        senders.receive(&bob, &[7; LARGE]);
        bob.unmount();
        senders
    }

    /// The file that alice sends.
    fn record(&self) -> PathBuf {
        self.alice.path("outbox/bob/large")
    }

    fn waiting(&self) -> Space {
        waiting(&self.world.server, "bob")
    }

    /// The file that carol sends.
    fn small_record(&self) -> PathBuf {
        self.carol.path("outbox/bob/small")
    }

    /// Carol sends her file. Fails the test if there is no room for it.
    fn send_small(&self) {
        let file = self.carol.path("small");
        fs::write(&file, [5; SMALL]).unwrap();
        fs::rename(&file, self.small_record()).unwrap();
    }

    /// Fails the test unless bob gets both files, once and whole. Then they are removed.
    fn receive(&self, bob: &Mount, large: &[u8]) {
        for (path, data) in [("inbox/alice/large", large), ("inbox/carol/small", &[5; SMALL])] {
            assert!(fs::read(arrives(bob, path)).unwrap() == data, "{path}");
        }
        wait_for_state(&self.record(), "received");
        wait_for_state(&self.small_record(), "received");
        wait_until("the inbox to be empty", PATIENCE, || self.waiting() == Space::default());
        assert_eq!(bob.shell("cd inbox; find alice carol -type f"), "alice/large\ncarol/small");
        bob.shell("rm inbox/*/*");
        bob.sync();
        fs::remove_file(self.record()).unwrap();
        fs::remove_file(self.small_record()).unwrap();
    }

    fn break_it(&mut self, broken: Broken) {
        if broken == Broken::Server {
            self.world.server.kill();
        }
        self.relay.break_connections();
        if broken == Broken::Server {
            self.world.server.restart();
        }
    }

    /// Has the program make a call, and breaks once an answer to it is under way.
    fn break_answer(&mut self, broken: Broken, program: &mut Program, call: &str) {
        self.relay.hold_answers();
        program.begin(call);
        wait_until("an answer", PATIENCE, || self.relay.held() > 0);
        self.break_it(broken);
        program.finish();
    }

    /// Alice sends a file, and something breaks meanwhile.
    fn send_large(&mut self, data: &[u8], step: Step, broken: Broken) {
        let source = self.world.outside().join("data");
        fs::write(&source, data).unwrap();
        let record = self.record();
        let temporary = record.with_extension("part");
        let made = if step == Step::Rename { &temporary } else { &record };
        let mut program = Program::start(made, &record, &source);
        program.run("begin");
        if step == Step::Upload {
            self.break_it(broken);
        }
        program.run("end");
        program.run("sync");
        match step {
            Step::Upload => program.run("close"),
            Step::BeforeClose => {
                self.break_it(broken);
                program.run("close");
            }
            Step::Close => self.break_answer(broken, &mut program, "close"),
            Step::BeforeSend => {
                self.relay.hold_changes();
                program.run("close");
                self.break_it(broken);
            }
            Step::Send | Step::Delivery => {
                self.relay.hold_changes();
                program.run("close");
                self.relay.hold_answers();
                self.relay.release_changes();
            }
            Step::Rename => {
                program.run("close");
                self.break_answer(broken, &mut program, "rename");
            }
        }
        if step == Step::Send {
            wait_until("the send", PATIENCE, || self.waiting() == self.sizes[0]);
            self.break_it(broken);
        }
        program.end();
    }

    /// Alice's send breaks at a step.
    fn check(&mut self, step: Step, broken: Broken) {
        println!("{step:?}, {broken:?}");
        let data = self.random.bytes(LARGE);
        let mut bob = (step == Step::Delivery).then(|| self.world.mount("bob"));
        self.send_large(&data, step, broken);
        if let Some(bob) = bob.take() {
            arrives(&bob, "inbox/alice/large");
            self.break_it(broken);
            self.send_small();
            self.receive(&bob, &data);
            return bob.unmount();
        }
        wait_for_state(&self.record(), "sent");
        assert_eq!(self.waiting(), self.sizes[0], "{step:?}, {broken:?}");
        // The rest of the room is carol's, and none of it is kept for alice.
        self.send_small();
        wait_for_state(&self.small_record(), "sent");
        fs::write(self.carol.path("more"), "").unwrap();
        let more = fs::rename(self.carol.path("more"), self.carol.path("outbox/bob/more"));
        assert_eq!(errno(more), libc::EDQUOT);
        let bob = self.world.mount("bob");
        self.receive(&bob, &data);
        bob.unmount();
    }

    fn check_all(broken: Broken) {
        let mut senders = Senders::new();
        for step in STEPS {
            senders.check(step, broken);
        }
        let Senders { alice, carol, .. } = senders;
        alice.unmount();
        carol.unmount();
    }
}

#[test]
fn a_send_whose_link_breaks_at_any_step_arrives_once_and_leaves_the_inbox_its_room() {
    Senders::check_all(Broken::Link);
}

#[test]
fn a_send_whose_server_is_killed_at_any_step_arrives_once_and_leaves_the_inbox_its_room() {
    Senders::check_all(Broken::Server);
}
