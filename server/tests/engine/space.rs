//! The space that contents take up on the disk. It never exceeds the users' charges, however files
//! are shared, truncated and dropped, in any order; and the remaining files keep their bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use xfer_protocol::message::{Answer, Ask};
use xfer_protocol::tree::{Action, FallocateMode, Quota};
use xfer_protocol::{ContentId, DeliveryId, Ino};
use xfer_server::engine::Engine;
use xfer_store::embedded::{self, SqliteStore};

use crate::client::{Client, OWNER, Reads};
use crate::log::truncate;
use crate::world::{World, name};

/// The unit of writes, truncations and copies, in bytes: far more than the map of a file takes up.
const UNIT: u64 = 64 << 10;

/// A copy of this many units from a file's start shares its content, even if the file is longer.
const SHARED_PART: u64 = (64 << 20) / UNIT;

/// The space that a content may take up in addition to its data: a block for the map of a file with
/// many parts.
const MAP_BYTES: u64 = 4096;

const PATIENCE: Duration = Duration::from_secs(30);

/// A random number generator that gives the same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// A random unit of a file, near its start or near the end of a shared part.
    fn unit(&mut self) -> u64 {
        let near = self.below(10);
        if self.below(3) == 0 { SHARED_PART - 5 + near } else { near }
    }
}

/// The expected data of a file: the last byte written to each unit with data.
#[derive(Clone, Default)]
struct Content {
    size: u64,
    units: BTreeMap<u64, u8>,
}

impl Content {
    fn cut(&mut self, size: u64) {
        self.units.retain(|unit, _| *unit < size);
        self.size = size;
    }
}

struct User {
    client: Client,
    reads: Reads,
    files: BTreeMap<u64, (Ino, Content)>,
}

impl User {
    async fn login(world: &World, user: &str) -> User {
        let client = world.login(user).await;
        let reads = world.reads(&client.grant).await;
        User { client, reads, files: BTreeMap::new() }
    }

    async fn file(&mut self, number: u64) -> Ino {
        if let Some((ino, _)) = self.files.get(&number) {
            return *ino;
        }
        let ino = self.client.create(Ino::ROOT, &format!("file{number}")).await;
        self.files.insert(number, (ino, Content::default()));
        ino
    }

    async fn write(&mut self, number: u64, unit: u64, byte: u8) {
        let ino = self.file(number).await;
        self.client.write(ino, unit * UNIT, &[byte; UNIT as usize]).await;
        let (_, content) = self.files.get_mut(&number).unwrap();
        content.units.insert(unit, byte);
        content.size = content.size.max(unit + 1);
    }

    async fn cut(&mut self, number: u64, size: u64) {
        let ino = self.file(number).await;
        let mut action = truncate(ino, size * UNIT);
        if let Action::SetAttr { fresh, .. } = &mut action {
            *fresh = ContentId(self.client.id());
        }
        self.client.act(vec![action], &[]).await;
        self.files.get_mut(&number).unwrap().1.cut(size);
    }

    async fn fallocate(&mut self, number: u64, unit: u64, count: u64, mode: FallocateMode) {
        let ino = self.file(number).await;
        let (fresh, len) = (ContentId(self.client.id()), count * UNIT);
        let action = Action::Fallocate { ino, offset: unit * UNIT, len, mode, fresh };
        self.client.act(vec![action], &[]).await;
        if let FallocateMode::PunchHole = mode {
            let content = &mut self.files.get_mut(&number).unwrap().1;
            content.units.retain(|at, _| !(unit..unit + count).contains(at));
        }
    }

    /// Copies units from one file to the same place in another.
    async fn copy(&mut self, from: u64, to: u64, start: u64, count: u64) {
        let (source, target) = (self.file(from).await, self.file(to).await);
        let content = self.files[&from].1.clone();
        let end = content.size.min(start + count);
        if from == to || start >= end {
            return;
        }
        let fresh = ContentId(self.client.id());
        let (from_offset, to_offset, len) = (start * UNIT, start * UNIT, count * UNIT);
        let (from, number, to) = (source, to, target);
        let action = Action::CopyRange { from, from_offset, to, to_offset, len, fresh };
        self.client.act(vec![action], &[]).await;
        let copy = &mut self.files.get_mut(&number).unwrap().1;
        copy.units.retain(|unit, _| !(start..end).contains(unit));
        copy.units.extend(content.units.range(start..end));
        copy.size = copy.size.max(end);
    }

    async fn remove(&mut self, number: u64) {
        let Some((ino, _)) = self.files.remove(&number) else { return };
        self.client.unlink(Ino::ROOT, &format!("file{number}")).await;
        self.client.act(vec![Action::ForgetOrphan { ino }], &[]).await;
    }

    /// Fails the test unless all files hold the expected data.
    async fn check(&mut self, what: &str) {
        for (number, (ino, content)) in &self.files {
            let (answer, _) = self.reads.ask(self.client.seq, Ask::Node(*ino)).await;
            let Ok(Answer::Node(Some(node))) = answer else { panic!("{what}: {answer:?}") };
            let data = node.file().unwrap();
            assert_eq!(data.size, content.size * UNIT, "{what}: file {number}");
            for (unit, byte) in &content.units {
                let (ino, content) = (*ino, data.content.unwrap());
                let ask = Ask::Read { ino, content, offset: unit * UNIT, len: UNIT as u32 };
                let (answer, bytes) = self.reads.ask(self.client.seq, ask).await;
                assert_eq!(answer, Ok(Answer::Data), "{what}: file {number}, unit {unit}");
                let whole = bytes.len() as u64 == UNIT && bytes.iter().all(|one| one == byte);
                assert!(whole, "{what}: file {number}, unit {unit}");
            }
        }
    }
}

fn charged(meta: &SqliteStore) -> u64 {
    let accounts = meta.accounts().unwrap();
    let inbox = |account: &xfer_store::Account| account.waiting.bytes;
    accounts.iter().map(|account| account.usage.bytes + inbox(account)).sum()
}

/// Waits until the disk holds no more than is charged.
pub async fn check_disk(world: &World, what: &str) {
    let start = Instant::now();
    loop {
        let (charged, (count, bytes)) = (charged(&world.meta), world.on_disk());
        if bytes <= charged + count * MAP_BYTES {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {bytes} on the disk, {charged} charged");
        sleep(Duration::from_millis(2)).await;
    }
}

fn world() -> World {
    let world = World::new();
    let bob = world.meta.account(&name("bob")).unwrap().unwrap();
    world.meta.set_inbox(bob.id, Quota::UNLIMITED).unwrap();
    world
}

pub fn restarted(world: World) -> World {
    let (meta, contents) = world.reopen();
    world.over_again(Engine::new(embedded::over(Arc::new(meta), Arc::new(contents)), 64 << 20))
}

/// Sends a copy of a file, and returns the delivery.
async fn send(alice: &mut User, mailbox: Ino, from: u64, record_stays: bool) -> DeliveryId {
    let (ino, content) = alice.files[&from].clone();
    let file = format!("record{}", alice.client.id());
    let record = alice.client.create(mailbox, &file).await;
    if content.size > 0 {
        let (fresh, len) = (ContentId(alice.client.id()), content.size * UNIT);
        let (from, to) = (ino, record);
        let action = Action::CopyRange { from, from_offset: 0, to, to_offset: 0, len, fresh };
        alice.client.act(vec![action], &[]).await;
    }
    let (to, from) = (name("bob"), alice.client.grant.user.clone());
    let delivery = DeliveryId(alice.client.id());
    alice.client.act(vec![Action::Send { to, name: name(&file), from, delivery }], &[]).await;
    if !record_stays {
        alice.client.unlink(mailbox, &file).await;
        alice.client.act(vec![Action::ForgetOrphan { ino: record }], &[]).await;
    }
    delivery
}

async fn accept(bob: &mut User, delivery: DeliveryId, number: u64, content: Content) {
    bob.remove(number).await;
    let first = Ino(bob.client.id());
    let (parent, name) = (Ino::ROOT, name(&format!("file{number}")));
    let action = Action::Accept { delivery, parent, name, first, owner: OWNER };
    bob.client.act(vec![action], &[]).await;
    bob.files.insert(number, (first, content));
}

async fn change(user: &mut User, chance: &mut Chance) {
    let (number, other) = (chance.below(4), chance.below(4));
    let (unit, byte) = (chance.unit(), 1 + chance.below(250) as u8);
    match chance.below(12) {
        0..=2 => user.write(number, unit, byte).await,
        3 | 4 => user.cut(number, unit).await,
        5 => user.fallocate(number, unit, 1 + chance.below(4), FallocateMode::PunchHole).await,
        6 => {
            let mode = FallocateMode::AllocateKeepSize;
            user.fallocate(number, unit, 1 + chance.below(4), mode).await;
        }
        7 | 8 => user.copy(number, other, 0, 2 * SHARED_PART).await,
        9 => user.copy(number, other, 0, SHARED_PART).await,
        10 => {
            let from = user.files.get(&other).map_or(0, |(_, content)| content.size);
            user.copy(number, other, from, 2 * SHARED_PART).await;
        }
        _ => user.remove(number).await,
    }
}

async fn run(seed: u64) {
    let mut chance = Chance(seed);
    let mut world = world();
    let (mut alice, mut bob) =
        (User::login(&world, "alice").await, User::login(&world, "bob").await);
    let mailbox = alice.client.mailbox("bob").await;
    for stretch in 0..5 {
        let mut sent = Vec::new();
        for _ in 0..30 {
            change(&mut alice, &mut chance).await;
            change(&mut bob, &mut chance).await;
            let number = chance.below(4);
            if alice.files.contains_key(&number) && chance.below(6) == 0 {
                let delivery = send(&mut alice, mailbox, number, chance.below(2) == 0).await;
                sent.push((delivery, alice.files[&number].1.clone()));
            }
            if chance.below(8) == 0 {
                alice.client.sync().await;
            }
        }
        let what = format!("seed {seed}, stretch {stretch}");
        alice.client.sync().await;
        for (delivery, content) in sent {
            match chance.below(3) {
                0 => bob.client.act(vec![Action::Decline { delivery }], &[]).await,
                1 => {}
                _ => accept(&mut bob, delivery, chance.below(4), content).await,
            }
        }
        bob.client.sync().await;
        check_disk(&world, &what).await;
        alice.check(&what).await;
        bob.check(&what).await;
        if chance.below(2) == 0 {
            let files = (alice.files, bob.files);
            alice.client.logout().await;
            bob.client.logout().await;
            world = restarted(world);
            (alice, bob) = (User::login(&world, "alice").await, User::login(&world, "bob").await);
            (alice.files, bob.files) = files;
            check_disk(&world, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_never_holds_more_than_is_charged_and_nothing_that_is_reached_goes() {
    for seed in 1..=12 {
        run(seed).await;
    }
}

/// Makes a file of 16 units and a copy that shares its content and is truncated to one unit. Then
/// drops the whole file.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_dropped_copy_had_is_given_back() {
    let mut world = world();
    let mut alice = User::login(&world, "alice").await;
    for round in 0..3 {
        for unit in 0..16 {
            alice.write(100, unit, 1).await;
        }
        alice.copy(100, round, 0, 16).await;
        alice.cut(round, 1).await;
        if round == 1 {
            alice.client.sync().await;
        }
        alice.remove(100).await;
        alice.client.sync().await;
        check_disk(&world, &format!("round {round}")).await;
        alice.check("cut").await;
    }
    let files = alice.files;
    alice.client.logout().await;
    world = restarted(world);
    alice = User::login(&world, "alice").await;
    alice.files = files;
    check_disk(&world, "after a restart").await;
    alice.check("after a restart").await;
}

/// The rows note space to be reclaimed, but the server died before it did that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_died_did_not_give_back_the_next_one_does() {
    let world = world();
    let mut alice = User::login(&world, "alice").await;
    for (file, copy) in [(1, None), (2, Some(3))] {
        for unit in 0..16 {
            alice.write(file, unit, 1).await;
        }
        if let Some(copy) = copy {
            alice.copy(file, copy, 0, 16).await;
        }
    }
    alice.client.sync().await;
    let files = alice.files.clone();
    // The rows are as after a batch that truncates all files to one unit, whose server died before
    // it reclaimed anything.
    let account = world.meta.account(&name("alice")).unwrap().unwrap();
    let mut cut = Vec::new();
    for (ino, _) in files.values() {
        let mut node = world.meta.node(account.id, *ino).unwrap().unwrap();
        let xfer_protocol::tree::Kind::File(data) = &mut node.kind else { unreachable!() };
        data.extents.resize(data.size, UNIT);
        data.size = UNIT;
        cut.push((*ino, node));
    }
    alice.client.logout().await;
    let mut batch = xfer_store::Batch {
        account: account.id,
        epoch: account.epoch,
        applied: account.applied,
        usage: account.usage,
        next_id: 0,
        nodes: Vec::new(),
        entries: Vec::new(),
        references: Vec::new(),
        trims: xfer_store::Trims::default(),
        deliveries: Vec::new(),
        placements: xfer_store::Placements::default(),
        unrecorded: Vec::new(),
        time: crate::world::time(),
    };
    batch.usage.bytes = 3 * UNIT;
    for (ino, node) in cut {
        let data = node.file().unwrap();
        match data.sealed {
            true => batch.trims.shared.push(data.content.unwrap()),
            false => batch.trims.own.push((data.content.unwrap(), ino)),
        }
        batch.nodes.push((ino, Some(Arc::new(node))));
    }
    world.meta.commit(&[batch]).unwrap();
    let world = restarted(world);
    let mut alice = User::login(&world, "alice").await;
    alice.files = files;
    alice.files.values_mut().for_each(|(_, content)| content.cut(1));
    check_disk(&world, "after the crash").await;
    let (count, bytes) = world.on_disk();
    assert!(bytes <= 2 * UNIT + count * MAP_BYTES, "{bytes} bytes of two contents");
    alice.check("after the crash").await;
}

/// The range was allocated in a content that was then shared. The file grows over it in a new
/// content, and must read as zeros, not as damaged.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_before_a_copy_is_zeros_when_the_file_grows_over_it() {
    let world = world();
    let mut alice = User::login(&world, "alice").await;
    alice.write(0, 0, 7).await;
    alice.fallocate(0, 0, 4, FallocateMode::AllocateKeepSize).await;
    alice.copy(0, 1, 0, 1).await;
    alice.write(0, 0, 8).await;
    alice.cut(0, 4).await;
    let zeros = (1..4).map(|unit| (unit, 0));
    alice.files.get_mut(&0).unwrap().1.units.extend(zeros);
    alice.check("grown").await;
    alice.client.sync().await;
    check_disk(&world, "grown").await;
    alice.check("durable").await;
}

/// Sends actions in frames that are short enough.
async fn act_in_parts(client: &mut Client, actions: Vec<Action>) {
    for part in actions.chunks(200) {
        client.act(part.to_vec(), &[]).await;
    }
    client.sync().await;
}

/// The bound is the one in SEMANTICS: twice the charge, plus 2 KiB for each node.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_holds_little_more_of_names_and_targets_than_is_charged() {
    let world = world();
    let mut alice = world.login("alice").await;
    let before = world.rows_on_disk();
    let (file, parent) = (alice.create(Ino::ROOT, "file").await, alice.mkdir(Ino::ROOT, "d").await);
    let links = (0..20_000).map(|number| {
        let name = name(&format!("{number:0255}"));
        Action::Link { ino: file, parent, name }
    });
    act_in_parts(&mut alice, links.collect()).await;
    let symlink = |target: usize| {
        let (ino, target) = (Ino(alice.id()), vec![b'x'; target].into());
        let name = name(&format!("link{}", ino.0));
        Action::Symlink { parent, name, ino, target, owner: OWNER }
    };
    let targets = std::iter::repeat_n(4095, 2_000).chain(std::iter::repeat_n(511, 2_000));
    let links = targets.map(symlink).collect();
    act_in_parts(&mut alice, links).await;
    let usage = world.meta.account(&name("alice")).unwrap().unwrap().usage;
    let grown = world.rows_on_disk() - before;
    assert!(usage.bytes > 13 << 20, "{usage:?}");
    let may_grow = 2 * usage.bytes + 2048 * usage.nodes;
    assert!(grown <= may_grow, "{grown} bytes of {may_grow}, {usage:?}");
    println!("{grown} bytes, {usage:?}");
}
