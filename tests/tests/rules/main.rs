//! Random operations of two users on real clients and a real server, compared with the pure rules
//! of the tree and with an independent model.
//!
//! The server's stores are real; the clock jumps ahead when all tasks are idle. Meanwhile both
//! sides unload rows and blocks, sessions end, users go over to another machine, links are cut,
//! cables are pulled, clients vanish and send what they have left, or are overtaken by others while
//! they work offline, the server restarts, is killed in the middle of a commit or loses its power, and
//! deliveries between the two users arrive.
//!
//! Reading order: `program` (single operations, and notes of their results), `chance` (drawing
//! them), `user`, `model` and `whole` (the two trees to compare with), `history` (the comparison),
//! `left` (what clients leave), `in_place` (what lost changes leave), `crashed` (what a store holds after a
//! crash), and this file (events in the life of sessions).
#![allow(clippy::unwrap_used, clippy::missing_docs_in_private_items)]

mod program;
mod chance;
mod user;
mod model;
mod whole;
mod history;
mod left;
mod in_place;
mod crashed;
mod short;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};
use xfer_client::core;
use xfer_protocol::Ino;
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::{Quota, Room, Usage};
use xfer_server::engine::HeldForSessions;
use xfer_store::{Beginner, Fate, Left, Reservation, Reserved, Store};
use xfer_tests::cable::{Cable, Cut, Lane, LinkKind, Way};
use xfer_tests::links::wayward::Bug;
use xfer_tests::local_disk;
use xfer_tests::peers::{Host, Simulated, name};
use xfer_tests::{Random, scale};

use history::{Post, Tally};
use model::Flaw;
use user::{User, rows_bytes};

/// The number of operations in a run.
const OPERATIONS: usize = 15_000;

/// The number of shorter runs in memory.
const RUNS: usize = 100;

/// The number of seeds with a fifth of the operations.
const SHORT_RUNS: usize = 400;

/// The number of operations of each.
const OPERATIONS_IN_MEMORY: usize = OPERATIONS / 10;

/// A run prints its progress after this many operations.
const OPERATIONS_SHOWN: usize = 100_000;

/// The quota of a tree: small enough to be exhausted at times. An administrator lowers it at times.
const QUOTA: Quota = Quota { bytes: 640 << 10, nodes: 70 };

/// The quotas that an administrator sets.
const QUOTAS: [Quota; 3] = [QUOTA, QUOTA, Quota { bytes: 400 << 10, nodes: 40 }];

/// The most that may wait in an inbox: it is full at times.
const INBOX: Quota = Quota { bytes: 24 << 10, nodes: 2 };

/// The time limit, on the jumping clock, for some operations and the event after them.
const PART_TIME: Duration = Duration::from_secs(100_000);

/// The longest times for which a cable is pulled, in milliseconds: some links are not missed, and
/// some for longer than a seat is kept.
const AWAY_MS: [u64; 3] = [8_000, 40_000, 400_000];

/// The most bytes after which a link is cut.
const CUT_AFTER_BYTES: [u64; 3] = [50, 500, 5_000];

/// The most times that a user changes machines one after the other.
const MACHINE_CHANGES: u64 = 5;

/// The most that is left on a disk that other programs fill.
const FULL: Room = Room { bytes: 100 << 10, files: 10 };

/// Until everybody has heard that there is room: a refusal stands for a second, and clients ask again
/// with each heartbeat, or when they come back.
const HEARD_OF_ROOM: Duration = Duration::from_secs(60);

/// How long a kill of the server waits for a commit to be under way.
const COMMIT_WAIT: Duration = Duration::from_secs(1);

/// The time that a stopping server gives its clients.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the store is.
#[derive(Clone, Copy)]
enum Place {
    /// In a directory, with the engine that servers use.
    OnDisk,
    /// In memory: the run depends on nothing but its seed.
    InMemory,
}

struct Run {
    host: Host,
    users: [User; 2],
    post: Post,
    random: Random,
    operations: usize,
}

impl Run {
    async fn new(seed: u64, place: Place, flaw: Flaw) -> Run {
        let mut random = Random::new(seed);
        let (users, rows) = (["alice", "bob"], rows_bytes(&mut random));
        let host = match place {
            Place::OnDisk => Host::with(&directory(), &users, QUOTA, rows),
            Place::InMemory => Host::simulated_with(&users, QUOTA, INBOX, rows).await,
        };
        host.hide_changes(flaw == Flaw::HidesChanges);
        if let Some(simulated) = &host.simulated {
            plant(flaw, simulated);
        }
        let alice = User::new(&host, name("alice"), QUOTA, flaw).await;
        let bob = User::new(&host, name("bob"), QUOTA, flaw).await;
        let users = [alice, bob];
        Run { host, users, post: Post::default(), random, operations: 0 }
    }

    async fn run(&mut self, operations: usize) {
        let mut shown = 0;
        while self.operations < operations {
            let part = async {
                for _ in 0..10 + self.random.below(100) {
                    self.turn().await;
                }
                self.happen().await;
            };
            timeout(PART_TIME, part).await.expect("something waits for ever");
            if self.operations >= shown + OPERATIONS_SHOWN {
                shown = self.operations;
                println!("{shown} operations");
            }
        }
        for at in [0, 1] {
            self.remount(at).await;
        }
        self.must_hold_no_garbage().await;
        for (at, other) in [(0, 1), (1, 0)] {
            // It may be refused. What is reserved must be given back at the end.
            let to = self.users[other].name.clone();
            let _ = self.users[at].begin_to_send(&to, &mut self.random).await;
        }
        for user in &mut self.users {
            user.end(&self.host).await;
        }
        self.must_have_given_all_back().await;
    }

    /// The counts of both users.
    fn tally(&self) -> Tally {
        let mut sum = Tally::new();
        for (what, by) in self.users.iter().flat_map(|user| user.history.tally()) {
            *sum.entry(what.clone()).or_default() += by;
        }
        sum
    }

    /// Prints the counts of all kinds of op.
    fn show(&self) {
        for user in &self.users {
            println!("{}, {:?} ops: {:?}", user.name, user.history.at(), user.history.tally());
        }
    }

    async fn turn(&mut self) {
        self.operations += turn(&mut self.users, &mut self.random).await;
    }

    /// Causes an event in the sessions, or lets time pass.
    async fn happen(&mut self) {
        let at = self.random.below(2) as usize;
        let kind = self.random.below(26);
        match kind {
            0..=3 => self.users[at].settle().await,
            4 | 5 => sleep(Duration::from_millis(self.random.below(5000))).await,
            6 | 7 => self.look_at_all().await,
            8..=10 => self.remount(at).await,
            11 | 20 => self.abandon(at).await,
            12 => self.leave(at).await,
            13 => self.restart().await,
            14 => self.crash().await,
            15 => self.pull(at).await,
            16 => self.cut(at).await,
            17 | 18 => self.change_machines(at).await,
            19 => self.take_over(at).await,
            21 => self.change_quota(at).await,
            22 => self.fill_disk(at).await,
            23 | 24 => self.close_inbox(at).await,
            _ => {
                let count = self.users[at].walk_amid_changes(&mut self.random).await;
                self.operations += count;
            }
        }
        self.catch_up();
        self.come_back().await;
    }

    fn catch_up(&mut self) {
        // Each history may wait for a delivery in the other, so alternate until both stand still.
        loop {
            let before = self.users.each_ref().map(|user| user.history.at());
            self.users.iter_mut().for_each(|user| user.catch_up(&mut self.post));
            if before == self.users.each_ref().map(|user| user.history.at()) {
                break;
            }
        }
        if let Some(simulated) = &self.host.simulated {
            let count = self.post.take_back(&simulated.rows.refused());
            self.users[0].history.count("delivery without room", count);
        }
    }

    async fn settle(&mut self) {
        for user in &self.users {
            user.settle().await;
        }
        self.catch_up();
    }

    /// Waits until nothing is in flight, except deliveries without room.
    async fn quiesce(&mut self) {
        let standing = |user: &User| {
            user.program().map(|program| {
                let standing = program.client().status();
                (standing.last, standing.waiting)
            })
        };
        loop {
            let before = self.users.each_ref().map(standing);
            self.settle().await;
            sleep(Duration::from_millis(100)).await;
            if before == self.users.each_ref().map(standing) {
                break;
            }
        }
        self.settle().await;
    }

    /// Checks everything that is shown, stored and counted.
    async fn look_at_all(&mut self) {
        self.quiesce().await;
        for user in &self.users {
            user.walk().await;
        }
        self.quiesce().await;
        self.take_back_unrecorded().await;
        for user in &self.users {
            self.audit(user).await;
        }
    }

    /// Takes deliveries back that have neither a record nor a place in an inbox.
    async fn take_back_unrecorded(&mut self) {
        let Some(simulated) = &self.host.simulated else { return };
        let mut refused = simulated.rows.unrecorded();
        for user in &self.users {
            for head in self.host.waiting(&user.name).await {
                refused.remove(&head.id);
            }
        }
        let count = self.post.take_back(&refused);
        self.users[0].history.count("delivery without room", count);
    }

    async fn audit(&self, user: &User) {
        user.history.audit();
        let (whole, at) = (user.history.whole(), user.history.at());
        let account = self.host.account(&user.name).await;
        assert_eq!((account.applied, account.usage), (at, whole.usage()), "of {}", user.name);
        let waiting = self.host.waiting(&user.name).await;
        let waiting: BTreeSet<_> = waiting.into_iter().map(|head| head.id).collect();
        assert_eq!(waiting, self.post.waiting(&user.name).into_iter().collect());
        if let Some(program) = user.program() {
            let standing = program.client().status();
            let other = standing.errors.iter().find(|error| !local_disk::is_full(error));
            assert_eq!(other, None);
            assert_eq!((standing.last, standing.usage), (at, whole.usage()), "of {}", user.name);
            assert_eq!(standing.quota, account.quota, "of {}", user.name);
            let held = user.held();
            let lost: Vec<_> = whole.orphans().into_iter().filter(|i| !held.contains(i)).collect();
            assert!(
                user.lingers || lost.is_empty(),
                "nobody has these nodes of {} open, and they have no names: {lost:?}",
                user.name
            );
        }
    }

    async fn begin(&mut self, at: usize, purpose: Purpose) {
        self.users[at].begin(&self.host, purpose, &mut self.random, &mut self.post).await;
        self.look_at_all().await;
    }

    /// Ends a session and begins another, which knows only what the server has.
    async fn remount(&mut self, at: usize) {
        self.settle().await;
        if self.random.below(2) == 0 {
            self.users[at].close_all().await;
        }
        self.users[at].end(&self.host).await;
        self.settle().await;
        self.begin(at, Purpose::Mount).await;
    }

    /// Ends a session; the user stays away for a while.
    async fn leave(&mut self, at: usize) {
        self.users[at].end(&self.host).await;
        for _ in 0..self.random.below(100) {
            self.turn().await;
        }
        self.settle().await;
    }

    async fn come_back(&mut self) {
        for at in [0, 1] {
            if self.users[at].mounted.is_none() {
                self.settle().await;
                self.begin(at, Purpose::Mount).await;
            }
        }
    }

    /// Has a user go over to the other machine, perhaps back, and so on.
    async fn change_machines(&mut self, at: usize) {
        for _ in 0..1 + self.random.below(MACHINE_CHANGES) {
            // The other user may have sent something that was accepted there.
            self.users[1 - at].settle().await;
            self.catch_up_with_store().await;
            let Run { host, users, post, random, .. } = self;
            users[at].change_machines(host, random, post).await;
            self.look_at_all().await;
            self.operations += self.users[at].edit(&mut self.random).await;
            self.some_turns(20).await;
        }
    }

    /// Changes a user's quota; the client may be away.
    async fn change_quota(&mut self, at: usize) {
        let quota = *self.random.pick(&QUOTAS);
        let user = &mut self.users[at];
        self.host.set_quota(&user.name, quota).await;
        user.history.count("change of quota", 1);
    }

    /// Has an administrator close a user's inbox for a while, just when the other user sends something.
    async fn close_inbox(&mut self, at: usize) {
        if self.host.simulated.is_none() {
            return;
        }
        let to = self.users[at].name.clone();
        // It may be refused at once.
        let _ = self.users[1 - at].send(&to, &mut self.random).await;
        self.host.set_inbox(&to, Quota { bytes: 0, nodes: 0 }).await;
        self.some_turns(10).await;
        match self.random.below(6) {
            0 => self.cut(1 - at).await,
            1 => self.crash().await,
            _ => {}
        }
        self.some_turns(10).await;
        self.host.set_inbox(&to, INBOX).await;
    }

    /// Has other programs fill the server's disk for a while, in which links may break, and the server
    /// may crash.
    async fn fill_disk(&mut self, at: usize) {
        let Some(simulated) = self.host.simulated.clone() else { return };
        let left =
            Room { bytes: self.random.below(FULL.bytes), files: self.random.below(FULL.files) };
        match self.random.below(3) {
            0 => simulated.disk.fill_unsaid(left),
            _ => simulated.disk.fill(left),
        }
        self.some_turns(10).await;
        match self.random.below(6) {
            0 => self.cut(at).await,
            1 => self.pull(at).await,
            2 => self.crash().await,
            3 => self.restart().await,
            _ => {}
        }
        self.some_turns(10).await;
        simulated.disk.clear();
        sleep(HEARD_OF_ROOM).await;
        simulated.disk.end_shortage();
        self.users[at].history.count("full disk", 1);
    }

    async fn some_turns(&mut self, most: u64) {
        for _ in 0..self.random.below(most) {
            self.turn().await;
        }
    }

    /// Cuts the links of a client, which goes on over others: at once, or later in the middle of
    /// something.
    async fn cut(&mut self, at: usize) {
        let Some(cable) = self.users[at].cable() else { return };
        for _ in 0..1 + self.random.below(3) {
            if self.random.below(3) == 0 {
                cable.cut();
                self.some_turns(5).await;
            } else {
                let kind = *self.random.pick(&[LinkKind::Log, LinkKind::Log, LinkKind::Read]);
                let lane = Lane { kind, way: *self.random.pick(&[Way::Up, Way::Down]) };
                let cut = *self.random.pick(&[Cut::Closed, Cut::Closed, Cut::Silent]);
                let most = *self.random.pick(&CUT_AFTER_BYTES);
                cable.end_after(lane, self.random.below(most), cut);
                self.some_turns(5).await;
                let was_cut = usize::from(cable.was_cut(lane));
                self.users[at].history.count("cut in the middle", was_cut);
                // A later client on this machine may use the cable.
                cable.end_never(lane);
            }
        }
    }

    /// Pulls a cable for a while, perhaps for longer than the server keeps the seat; or has it be
    /// silent in one direction, or say late what it was given.
    async fn pull(&mut self, at: usize) {
        let Some(cable) = self.users[at].cable() else { return };
        let longest = *self.random.pick(&AWAY_MS);
        let away = Duration::from_millis(self.random.below(longest));
        let mend: fn(&Cable) = match self.random.below(4) {
            0 => {
                cable.pull();
                Cable::plug_in
            }
            1 => {
                cable.silence(*self.random.pick(&[Way::Up, Way::Down]));
                Cable::plug_in
            }
            _ => {
                cable.stall();
                Cable::release
            }
        };
        let mended = tokio::spawn(async move {
            sleep(away).await;
            mend(&cable);
        });
        for _ in 0..self.random.below(10) {
            self.turn().await;
        }
        mended.await.unwrap();
    }

    /// Kills the server in the middle of work, and starts another one.
    async fn crash(&mut self) {
        for _ in 0..self.random.below(10) {
            self.turn().await;
        }
        if let Some(simulated) = &self.host.simulated
            && self.random.below(2) == 0
        {
            // A commit is the moment that matters most, if there is one.
            let _ = timeout(COMMIT_WAIT, simulated.rows.wait_for_commit()).await;
        }
        self.host.kill();
        self.users.iter().flat_map(User::cables).for_each(Cable::cut);
        // The machine may have crashed too.
        if let Some(simulated) = &self.host.simulated
            && self.random.below(2) == 0
        {
            simulated.disk.lose_power(&mut self.random).await;
        }
        self.audit_store().await;
        self.work_until_reopened(None).await;
    }

    /// Lets the trees catch up with what the store has, though the clients may not have heard of it.
    async fn catch_up_with_store(&mut self) {
        loop {
            let before = self.users.each_ref().map(|user| user.history.at());
            for user in &mut self.users {
                user.catch_up_with_store(&self.host, &mut self.post).await;
            }
            if before == self.users.each_ref().map(|user| user.history.at()) {
                break;
            }
        }
        self.catch_up();
    }

    /// Looks at what the store holds just after a crash. One on a disk may still be at work.
    async fn audit_store(&mut self) {
        if self.host.simulated.is_none() {
            return;
        }
        self.catch_up_with_store().await;
        for user in &self.users {
            user.audit_store(&self.host).await;
        }
        self.users[0].history.count("store audited after a crash", 1);
    }

    /// Goes on working while the server is away.
    async fn work_until_reopened(&mut self, stopping: Option<JoinHandle<()>>) {
        let rows = rows_bytes(&mut self.random);
        let (away, turns) = (self.random.below(60_000), self.random.below(10));
        let Run { host, users, random, operations, .. } = self;
        let reopened = async {
            if let Some(stopping) = stopping {
                stopping.await.unwrap();
            }
            sleep(Duration::from_millis(away)).await;
            host.reopen(rows);
        };
        let work = async {
            for _ in 0..turns {
                *operations += turn(users, random).await;
            }
        };
        tokio::join!(reopened, work);
    }

    /// Has a client vanish; the server keeps what it has received. The next client on the same
    /// machine takes its seat.
    async fn abandon(&mut self, at: usize) {
        if self.users[at].mounted.is_none() {
            return;
        }
        self.users[at].leave_other().await;
        // The user may already have accepted the other's deliveries, so those must be in the history.
        self.users[1 - at].settle().await;
        self.catch_up_with_store().await;
        self.users[at].pull();
        for _ in 0..self.random.below(20) {
            self.operations += self.users[at].turn(&mut self.random).await;
        }
        let Run { host, users, post, random, .. } = self;
        users[at].lose(host, random, post).await;
        if self.random.below(3) == 0 {
            self.work_elsewhere(at).await;
        }
        self.begin(at, Purpose::Mount).await;
    }

    /// Has a user work on another machine for a while.
    async fn work_elsewhere(&mut self, at: usize) {
        let Run { host, users, post, random, .. } = self;
        users[at].begin_elsewhere(host, random, post).await;
        self.look_at_all().await;
        for _ in 0..self.random.below(10) {
            self.turn().await;
        }
        self.settle().await;
        self.users[at].end(&self.host).await;
        self.settle().await;
    }

    /// Has another machine take the tree from a client that is cut off, and goes on with its work.
    async fn take_over(&mut self, at: usize) {
        if self.users[at].mounted.is_none() {
            return;
        }
        self.users[at].leave_other().await;
        // The nodes of open files would be gone when it comes back.
        self.users[at].close_all().await;
        // As for a client that vanishes.
        self.users[1 - at].settle().await;
        self.catch_up_with_store().await;
        self.users[at].pull();
        for _ in 0..self.random.below(20) {
            self.operations += self.users[at].turn(&mut self.random).await;
        }
        self.users[at].close_all().await;
        let Run { host, users, post, random, .. } = self;
        users[at].be_overtaken(host, random, post).await;
        self.look_at_all().await;
    }

    /// Stops the server in the middle of work, and starts another one.
    async fn restart(&mut self) {
        let engine = self.host.engine.clone();
        let stopping = tokio::spawn(async move { engine.stop(PATIENCE).await });
        self.work_until_reopened(Some(stopping)).await;
    }

    /// The server's disk must hold all referenced contents and, after a while, nothing else.
    async fn must_hold_no_garbage(&mut self) {
        let trees = self.users.iter().flat_map(|user| user.history.whole().contents());
        let mut needed: BTreeSet<_> = trees.collect();
        needed.extend(self.post.contents());
        for _ in 0..1000 {
            if self.host.contents().is_none_or(|held| held == needed) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.host.contents(), Some(needed));
    }
}

impl Run {
    /// Nothing may be held for sessions that are over.
    async fn must_have_given_all_back(&self) {
        let nothing = HeldForSessions::default();
        for _ in 0..1000 {
            if self.host.engine.held() == nothing {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.host.engine.held(), nothing);
        let [alice, bob] = &self.users;
        self.must_have_released(alice, bob).await;
        self.must_have_released(bob, alice).await;
    }

    /// A session may reserve all free room of the other's inbox, which it could not if an earlier one
    /// still had some.
    async fn must_have_released(&self, from: &User, to: &User) {
        let Store { trees, deliveries, .. } = &self.host.store;
        let (sender, recipient) =
            (self.host.account(&from.name).await.id, self.host.account(&to.name).await);
        let epoch = trees.begin(sender, Beginner::Claimant).await.unwrap().account.epoch;
        let size = Usage {
            bytes: recipient.inbox.bytes.saturating_sub(recipient.waiting.bytes),
            nodes: recipient.inbox.nodes.saturating_sub(recipient.waiting.nodes),
        };
        let to = to.name.clone();
        let all = Reservation { from: sender, epoch, to, ino: Ino::ROOT, size };
        assert_eq!(deliveries.reserve(all).await.unwrap(), Reserved::Kept, "by {}", from.name);
        deliveries.release(sender).await.unwrap();
        trees.end(sender, epoch, Left::default(), Fate::Over).await.unwrap();
    }
}

/// Plants a flaw that lies in the store.
fn plant(flaw: Flaw, simulated: &Simulated) {
    match flaw {
        Flaw::SkipsSyncs => simulated.disk.skip_syncs(),
        Flaw::OfRows(bug) => simulated.rows.plant(bug),
        Flaw::None
        | Flaw::LinkKeepsTime
        | Flaw::PunchesShort
        | Flaw::LosesAnOp
        | Flaw::HidesChanges
        | Flaw::KeepsLate
        | Flaw::OfClients(_) => {}
    }
}

/// Has one of the users do something. Returns the number of operations.
async fn turn(users: &mut [User; 2], random: &mut Random) -> usize {
    let at = random.below(2) as usize;
    let operations = users[at].turn(random).await;
    for _ in 0..random.below(4) {
        yield_now().await;
    }
    operations
}

/// The store's directory: in memory where possible, since these tests are not about
/// disks.
fn directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Runs on a clock that jumps ahead.
fn run(seed: u64, place: Place, operations: usize, flaw: Flaw) -> Run {
    run_with(seed, place, operations, flaw, |_| {})
}

/// Runs after some preparation.
fn run_with(
    seed: u64,
    place: Place,
    operations: usize,
    flaw: Flaw,
    prepare: impl FnOnce(&mut Run),
) -> Run {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed, place, flaw).await;
        prepare(&mut run);
        for at in [0, 1] {
            run.begin(at, Purpose::Mount).await;
        }
        run.run(operations).await;
        run
    })
}

#[test]
fn random_operations_of_two_users_give_what_the_pure_rules_give() {
    let operations = scale::count("XFER_RULES_OPERATIONS", OPERATIONS);
    run(Random::seed(), Place::OnDisk, operations, Flaw::None).show();
}

/// The number of seeds that are run twice.
const SEEDS: usize = 100;

/// The number of operations of such a run.
const FEW_OPERATIONS: usize = 30;

/// Everything that happened in a run, as text.
fn transcript(seed: u64) -> String {
    let run = run_with(seed, Place::InMemory, FEW_OPERATIONS, Flaw::None, |run| {
        run.users.iter_mut().for_each(|user| user.history.keep_transcript());
    });
    let ends =
        run.users.iter().map(|user| format!("{:?} {:?}", user.history.at(), user.history.tally()));
    let texts = run.users.iter().map(|user| user.history.transcript().to_owned());
    texts.chain(ends).collect()
}

/// Runs a seed twice, and gives its history.
fn run_twice(seed: u64) -> String {
    let (first, second) = (transcript(seed), transcript(seed));
    assert!(first.len() > 1000, "seed {seed} does next to nothing");
    let at = first.bytes().zip(second.bytes()).position(|(one, other)| one != other);
    assert!(
        first == second,
        "seed {seed} gives two histories, which differ at {at:?}:\n{}\n{}",
        shown(&first, at),
        shown(&second, at),
    );
    first
}

#[test]
fn the_same_seed_gives_the_same_history_byte_for_byte() {
    let seeds = scale::count("XFER_RULES_SEEDS", SEEDS) as u64;
    let histories: BTreeSet<String> = on_all_cores(0..seeds, run_twice).into_iter().collect();
    assert_eq!(histories.len() as u64, seeds, "different seeds give one history");
}

/// Does something with each seed, on as many threads as this machine has cores.
fn on_all_cores<T: Send>(seeds: Range<u64>, each: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let each = &each;
    std::thread::scope(|scope| {
        let part = |first| seeds.clone().skip(first).step_by(threads).map(each).collect::<Vec<T>>();
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("a part of the seeds")).collect()
    })
}

/// What stands around a place in a transcript.
fn shown(transcript: &str, at: Option<usize>) -> String {
    let at = at.unwrap_or(transcript.len());
    String::from_utf8_lossy(
        &transcript.as_bytes()[at.saturating_sub(400)..(at + 400).min(transcript.len())],
    )
    .into_owned()
}

#[test]
fn random_operations_of_many_seeds_give_what_the_pure_rules_give() {
    must_pass(scale::count("XFER_RULES_RUNS", RUNS), OPERATIONS_IN_MEMORY);
}

#[test]
fn few_operations_of_many_more_seeds_give_what_the_pure_rules_give() {
    must_pass(scale::count("XFER_RULES_SHORT_RUNS", SHORT_RUNS), OPERATIONS_IN_MEMORY / 5);
}

fn must_pass(count: usize, operations: usize) {
    let first = Random::seed();
    let tallies = on_all_cores(first..first + count as u64, |seed| {
        let run = || run(seed, Place::InMemory, operations, Flaw::None).tally();
        // The others still run.
        let done = catch_unwind(run);
        println!("seed {seed}: {}", if done.is_ok() { "passed" } else { "FAILED" });
        done.ok()
    });
    let all: Option<Vec<Tally>> = tallies.into_iter().collect();
    let mut sum = Tally::new();
    for (what, by) in all.expect("a seed failed; see above").into_iter().flatten() {
        *sum.entry(what).or_default() += by;
    }
    println!("{sum:?}");
    if count >= SEEDS {
        EDGES.iter().for_each(|edge| assert!(sum.get(*edge) > Some(&0), "there was no {edge}"));
    }
}

/// What must happen in many runs, if they are to show anything.
const EDGES: [&str; 8] = [
    "change of machines",
    "close with a full inbox",
    "cut in the middle",
    "delivery without room",
    "forced takeover",
    "full disk",
    "op sent again",
    "store audited after a crash",
];

/// The number of runs in which a flaw must be found.
const RUNS_OF_A_FLAW: u64 = 60;

/// The seeds are fixed, since this tests the test itself.
#[track_caller]
fn must_be_found(flaw: Flaw) {
    let is_found = |seed| {
        let run = || drop(run(seed, Place::InMemory, OPERATIONS_IN_MEMORY, flaw));
        catch_unwind(run).is_err()
    };
    let found = (1..=RUNS_OF_A_FLAW).find(|seed| is_found(*seed));
    println!("{flaw:?} was found by seed {found:?}");
    assert!(found.is_some(), "nobody noticed: {flaw:?}");
}

#[test]
fn the_oracle_sees_a_link_that_does_not_change_a_time() {
    must_be_found(Flaw::LinkKeepsTime);
}

#[test]
fn the_oracle_sees_a_byte_that_should_be_gone() {
    must_be_found(Flaw::PunchesShort);
}

#[test]
fn the_oracle_sees_a_row_that_was_kept_though_another_machine_has_changed_it() {
    must_be_found(Flaw::HidesChanges);
}

#[test]
fn the_oracle_sees_a_change_that_was_said_to_be_kept_on_this_machine_and_was_not() {
    must_be_found(Flaw::KeepsLate);
}

#[test]
fn the_oracle_sees_a_sync_that_was_skipped() {
    must_be_found(Flaw::SkipsSyncs);
}

#[test]
fn the_oracle_sees_a_commit_that_was_acknowledged_early() {
    must_be_found(Flaw::OfRows(Bug::AcknowledgesEarly));
}

#[test]
fn the_oracle_sees_an_op_that_was_applied_twice() {
    must_be_found(Flaw::OfRows(Bug::AppliesTwice));
}

#[test]
fn the_oracle_sees_an_op_that_got_lost() {
    must_be_found(Flaw::LosesAnOp);
}

#[test]
fn the_oracle_sees_an_old_row_that_a_server_follows_over_a_newer_one() {
    must_be_found(Flaw::OfRows(Bug::ReadsOldNodes));
}

#[test]
fn the_oracle_sees_a_fetched_row_that_a_client_follows_over_a_newer_one() {
    must_be_found(Flaw::OfClients(core::Bug::FollowsOldRows));
}

#[test]
fn the_oracle_sees_bytes_that_a_client_has_kept_though_another_machine_has_changed_them() {
    must_be_found(Flaw::OfClients(core::Bug::KeepsOldBytes));
}
