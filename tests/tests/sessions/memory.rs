//! Both processes stay within their memory bounds, whatever the load.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use xfer_client::connect::{Credentials, NewSession, Reader, Writer};
use xfer_link::send;
use xfer_protocol::frame::{Bounds, Header};
use xfer_protocol::message::{Ask, Request, ToServer};
use xfer_protocol::tree::{Action, Limit, Op, Owner};
use xfer_protocol::{Ino, Name, Seq};
use xfer_server::program::control;
use xfer_tests::files::{read_write, set_xattr, xattr};
use xfer_tests::load::Usage;
use xfer_tests::memory::{Allowed, MIB};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, Random, Server, World, by_hand, scale, wait_until};

/// The smallest allowed value of every option.
const LITTLE: Allowed =
    Allowed { cache: 16 * MIB, log: 16 * MIB, tree: 16 * MIB, server_tree: 16 * MIB };

/// The number of files, unless `XFER_MEMORY_FILES` sets another. With their attributes they exceed the
/// memory of either process.
const FILES: usize = 4_000;

/// The size of each file's attribute, in bytes.
const ATTRIBUTE_BYTES: usize = 60_000;

/// The number of files in a directory: a directory is completely in memory while it is listed.
const IN_DIRECTORY: usize = 100;

/// The size of the large file, in bytes.
const LARGE: u64 = 200 * MIB;

const PART: u64 = 64 << 10;

fn world() -> World {
    let tree_size = LITTLE.server_tree.to_string();
    World::with_server(&["alice"], |store| {
        Server::start_with(store, "127.0.0.1:0", &["--tree-size", &tree_size])
    })
}

fn mount(world: &World) -> Mount {
    let sizes =
        [("--cache-size", LITTLE.cache), ("--log-size", LITTLE.log), ("--tree-size", LITTLE.tree)];
    let mut mounting = world.mounting("alice");
    for (option, size) in sizes {
        mounting = mounting.arg(option).arg(&size.to_string());
    }
    mounting.start()
}

/// The path of a file, with a name of 200 bytes.
fn place(mount: &Mount, index: usize) -> PathBuf {
    mount.path(&format!("directory-{}/{index:0>200}", index / IN_DIRECTORY))
}

fn text(index: usize) -> String {
    format!("file {index}\n").repeat(1 + index % 300)
}

/// The value of a file's attribute.
fn attribute(index: usize) -> Vec<u8> {
    Random::new(index as u64).bytes(ATTRIBUTE_BYTES)
}

/// Walks over the whole tree as programs do, and checks every tenth file completely.
fn check_tree(mount: &Mount, files: usize) {
    assert_eq!(mount.shell("find . -type f -name '0*' -size +0 | wc -l"), files.to_string());
    for index in (0..files).step_by(10) {
        let path = place(mount, index);
        assert_eq!(fs::read_to_string(&path).unwrap(), text(index));
        assert!(xattr(&path, "user.attribute").unwrap() == attribute(index), "of file {index}");
    }
}

#[test]
fn a_mount_with_little_memory_works_on_a_tree_far_larger_and_stays_within_it() {
    let files = scale::count("XFER_MEMORY_FILES", FILES);
    let world = world();
    let first = mount(&world);
    for index in 0..files {
        let path = place(&first, index);
        if index % IN_DIRECTORY == 0 {
            fs::create_dir(path.parent().unwrap()).unwrap();
        }
        fs::write(&path, text(index)).unwrap();
        set_xattr(&path, "user.attribute", &attribute(index)).unwrap();
    }
    LITTLE.check(&world, &first);
    first.unmount();

    let second = mount(&world);
    check_tree(&second, files);
    LITTLE.check(&world, &second);
    for directory in 0..files.div_ceil(IN_DIRECTORY) {
        fs::remove_dir_all(second.path(&format!("directory-{directory}"))).unwrap();
    }
    LITTLE.check(&world, &second);
    second.unmount();
}

#[test]
fn a_mount_with_little_memory_reads_and_writes_a_file_far_larger_and_stays_within_it() {
    let mut random = Random::new(Random::seed());
    let world = world();
    let first = mount(&world);
    let parts = LARGE / PART;
    // The seed that each part of the file was last written from.
    let mut seeds: Vec<u64> = (0..parts).map(|_| random.number()).collect();
    let bytes = |seed: u64| Random::new(seed).bytes(PART as usize);
    let file = read_write(&first.path("large"));
    for (at, seed) in (0..).zip(&seeds) {
        file.write_all_at(&bytes(*seed), at * PART).unwrap();
    }
    for _ in 0..parts / 2 {
        let at = random.below(parts);
        seeds[at as usize] = random.number();
        file.write_all_at(&bytes(seeds[at as usize]), at * PART).unwrap();
        let other = random.below(parts);
        let mut found = vec![0; PART as usize];
        file.read_exact_at(&mut found, other * PART).unwrap();
        assert!(found == bytes(seeds[other as usize]), "part {other} is another");
    }
    drop(file);
    LITTLE.check(&world, &first);
    first.unmount();

    let second = mount(&world);
    let file = File::open(second.path("large")).unwrap();
    let mut found = vec![0; PART as usize];
    for (at, seed) in (0..).zip(&seeds) {
        file.read_exact_at(&mut found, at * PART).unwrap();
        assert!(found == bytes(*seed), "part {at} is another");
    }
    drop(file);
    LITTLE.check(&world, &second);
    second.unmount();
}

/// The most read links of a session.
const READ_LINKS: usize = 32;

/// The most unanswered questions that the server accepts on a link.
const QUESTIONS: u32 = 64;

/// The number of files in the directory that is listed.
const ENTRIES: u64 = 3_000;

/// The memory that a busy session may add to the server's: answers, incoming changes, and buffers made
/// from both, with memory that the allocator does not return.
const BUSY_SESSION: u64 = (32 + 24 + 32) * MIB;

/// A session whose client asks much, reads no answers, and begins frames without ending them.
struct Burden {
    session: NewSession,
    links: Vec<(Reader, Writer)>,
    seq: Seq,
}

impl Burden {
    async fn new(world: &World, user: &Name) -> Burden {
        let session = by_hand::login(&world.server, user, &world.outside()).await.unwrap();
        Burden { seq: session.link.grant.applied, session, links: Vec::new() }
    }

    async fn act(&mut self, actions: Vec<Action>) {
        let time = SystemTime::now().into();
        let ops: Vec<Op> = actions.into_iter().map(|action| Op { time, action }).collect();
        let first = self.seq.next();
        self.seq = Seq(self.seq.0 + ops.len() as u64);
        let message = ToServer::Ops { first, ops };
        send(&mut self.session.link.writer, &message, &[], Bounds::OPEN).await.unwrap();
    }

    /// Sends a heartbeat; in the middle of a frame, just more of that frame.
    async fn ping(&mut self) {
        let ping = ToServer::Ping { limit: Limit::default() };
        send(&mut self.session.link.writer, &ping, &[], Bounds::OPEN).await.unwrap();
    }

    /// Makes a directory with enough entries for a listing page of the full size.
    async fn prepare(&mut self) -> Ino {
        let owner = Owner { uid: 1000, gid: 1000 };
        let first = self.session.link.grant.ids[0].first;
        let directory = Ino(first);
        let make = |at: u64| Action::Create {
            parent: directory,
            name: Name::new(format!("{at}").as_bytes()).unwrap(),
            ino: Ino(first + 1 + at),
            mode: 0o644,
            owner,
        };
        let name = Name::new(b"directory").unwrap();
        let parent = Ino::ROOT;
        let mkdir = Action::Mkdir { parent, name, ino: directory, mode: 0o755, owner };
        self.act(std::iter::once(mkdir).chain((0..ENTRIES).map(make)).collect()).await;
        directory
    }

    /// Asks as many questions as the server accepts, on all links.
    async fn ask(&mut self, directory: Ino) {
        for _ in 0..READ_LINKS {
            let credentials = Credentials::new(&self.session.link.grant);
            let (reader, mut writer) = self.session.dial.read_link(credentials).await.unwrap();
            for id in 0..QUESTIONS {
                let ask = Ask::List { directory, after: None };
                let request = Request { id, after: self.seq, ask };
                send(&mut writer, &request, &[], Bounds::REQUEST).await.unwrap();
            }
            self.links.push((reader, writer));
        }
    }

    /// Begins the largest possible frame on every link.
    async fn begin_frames(&mut self) {
        let Bounds { message_max, payload_max } = Bounds::OPEN;
        let header = Header { message_len: message_max, payload_len: payload_max };
        let mut frame = header.encode(Bounds::OPEN).unwrap().to_vec();
        // Leave room for the heartbeats, so that they don't complete the frame.
        frame.resize(message_max + payload_max - (64 << 10), 1);
        for writer in self.links.iter_mut().map(|(_, writer)| writer) {
            // The server may close the link once it has seen the header.
            let _ = tokio::time::timeout(WRITE_MAX, writer.write_all(&frame)).await;
        }
        let _ = tokio::time::timeout(WRITE_MAX, self.session.link.writer.write_all(&frame)).await;
    }
}

/// The longest time for the server to receive a frame.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// The server's peak memory.
fn peak(world: &World) -> u64 {
    Usage::of(world.server.pid()).resident_max
}

/// Waits until the server's peak has stopped growing for a while.
fn wait_until_settled(world: &World, runtime: &Runtime, burden: &mut Burden) {
    let mut before = peak(world);
    while !holds_for(Duration::from_secs(3), || peak(world) == before) {
        before = peak(world);
        runtime.block_on(burden.ping());
    }
}

/// The number of questions that the server has begun to answer in its only session.
fn questions(world: &World) -> u64 {
    match control::ask(world.server.store(), &control::Command::List).unwrap() {
        control::Answer::Sessions { sessions } => sessions.iter().map(|one| one.counts.reads).sum(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_reads_no_answers_and_ends_no_frames_keeps_the_server_within_its_bounds() {
    let user = Name::new(b"alice").unwrap();
    let world = World::of_many(std::slice::from_ref(&user));
    let runtime = Runtime::new().unwrap();
    let mut burden = runtime.block_on(Burden::new(&world, &user));
    let before = peak(&world);
    runtime.block_on(async {
        let directory = burden.prepare().await;
        burden.ask(directory).await;
    });
    let all = READ_LINKS as u64 * u64::from(QUESTIONS);
    wait_until("all questions are taken in", Duration::from_secs(60), || questions(&world) == all);
    wait_until_settled(&world, &runtime, &mut burden);
    runtime.block_on(burden.begin_frames());
    wait_until_settled(&world, &runtime, &mut burden);
    let more = peak(&world) - before;
    println!("one session took the server {} MiB more", more / MIB);
    assert!(more <= BUSY_SESSION, "one session took the server {more} bytes more");
    drop(burden);
}
