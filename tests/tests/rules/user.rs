//! One user: a client that comes and goes, the files open on it, and its history.
//!
//! Operations run as the kernel allows them: only one changes names at a time, while others read
//! and write open files; operations that change nothing run beside each other.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::sleep;
use xfer_client::core::{Found, HandleId, Link, Options, Status};
use xfer_protocol::message::{Opened, Purpose, Refusal};
use xfer_protocol::tree::{Need, Quota};
use xfer_protocol::{Errno, Ino, Name, Seq, SessionId};
use xfer_store::{Account, ListMax, Part};
use xfer_tests::Random;
use xfer_tests::cable::{Cable, Wiretap, Wiring};
use xfer_tests::links::wayward::Bug;
use xfer_tests::local_disk::LocalDisk;
use xfer_tests::peers::{self, Host, Peer, roomy};

use crate::chance::{self, End};
use crate::crashed;
use crate::history::{History, Post};
use crate::in_place;
use crate::left::{Left, Machine};
use crate::model::Flaw;
use crate::program::{Place, Program};

/// How long operations wait for the server: longer than it is ever away.
const WAIT: Duration = Duration::from_secs(600);

/// Longer than the server keeps the seat of a client that is away, once another one asks for it.
const ASKED: Duration = Duration::from_secs(60);

/// The delays of log links, in each direction.
pub const LOG_LAGS_MS: [u64; 4] = [0, 0, 5, 40];

/// How often a client that is about to end gets its turn before time passes.
const YIELDS_MAX: usize = 1000;

/// The most files that a user holds open at once.
pub const SLOTS: usize = 4;

/// An open file, held by one lookup.
#[derive(Clone, Copy)]
pub struct Slot {
    /// The file's node.
    pub ino: Ino,
    /// The client's handle of it.
    pub handle: HandleId,
    /// Whether it is open for writing.
    pub writable: bool,
}

/// A mount, with a tap on its log.
pub struct Mounted {
    /// The programs on it.
    pub program: Program,
    cable: Cable,
    tap: Wiretap,
    session: SessionId,
    machine: Machine,
    /// What it has made that others have overtaken.
    overtaken: Option<Left>,
    /// Whether there may have been nodes, before others overtook it, that only clients which are gone
    /// have open.
    lingered: bool,
}

impl Mounted {
    /// Whether its client has the tree, as far as it knows.
    fn has_seat(&self) -> bool {
        self.program.client().status().has_seat
    }
}

/// One of the two users.
pub struct User {
    /// The user's name.
    pub name: Name,
    /// The mount, while there is one.
    pub mounted: Option<Mounted>,
    /// The mount on the user's other machine. Nobody works there now.
    other: Option<Mounted>,
    /// The open files.
    pub slots: [Option<Slot>; SLOTS],
    /// Files to be closed once no operation on them is running.
    closing: Vec<Slot>,
    /// The session of the last mount. Its client may be gone without having ended it.
    last: Option<SessionId>,
    /// All sessions that the server may know.
    sessions: Vec<SessionId>,
    /// What clients have left whose machines crashed.
    left: Vec<Left>,
    /// Whether there may be nodes without names that only a client without the tree has open.
    pub lingers: bool,
    flaw: Flaw,
    /// The history so far.
    pub history: History,
}

/// A path through the tree to a place in it, with the nodes on it held.
pub struct Way {
    held: Vec<Ino>,
    /// The place at its end.
    pub place: Place,
}

/// An operation that runs beside others. Its errors are in the notes, too.
pub type Task = Pin<Box<dyn Future<Output = Result<(), Errno>> + Send>>;

impl User {
    /// A user with a new tree.
    pub async fn new(host: &Host, name: Name, quota: Quota, flaw: Flaw) -> User {
        let (account, trees) = (host.account(&name).await.id, &host.store.trees);
        let root = trees.load(account, vec![Need::Node(Ino::ROOT)]).await.unwrap().nodes;
        let mut fixtures: Vec<_> =
            root.into_iter().map(|(ino, node)| (ino, node.expect("the root"))).collect();
        let max = ListMax { count: 10, bytes: usize::MAX };
        let part = Part { directory: Ino::ROOT, after: None, max };
        let rows = trees.list(account, vec![part]).await.unwrap().remove(0).rows;
        let names: Vec<_> = rows.iter().map(|(name, ino, _)| (name.clone(), *ino)).collect();
        fixtures.extend(rows.into_iter().map(|(_, ino, node)| (ino, node)));
        let history = History::new(&name, &fixtures, &names, quota, flaw);
        let (mounted, other, last, left, lingers) = (None, None, None, Vec::new(), false);
        let (slots, closing, sessions) = ([None; SLOTS], Vec::new(), Vec::new());
        User { name, mounted, other, slots, closing, last, sessions, left, lingers, flaw, history }
    }

    /// Begins a session, which knows nothing yet. What was left on its machine is sent before.
    pub async fn begin(
        &mut self,
        host: &Host,
        purpose: Purpose,
        random: &mut Random,
        post: &mut Post,
    ) {
        let mut replaces = self.last;
        let mut waiting = VecDeque::from(std::mem::take(&mut self.left));
        while let Some(left) = waiting.pop_front() {
            // The server may not hear of the end of this session.
            replaces = Some(left.session);
            let are_others = !waiting.is_empty();
            let settled = left.settle(host, &self.name, are_others, &mut self.history, random);
            if let Some(before) = settled.await {
                waiting.iter_mut().for_each(|later| later.overtake(before));
            }
        }
        self.begin_on(host, purpose, replaces, random, post).await;
    }

    /// Begins a session on another machine than the one whose client is gone.
    pub async fn begin_elsewhere(&mut self, host: &Host, random: &mut Random, post: &mut Post) {
        self.begin_on(host, Purpose::TakeOver, None, random, post).await;
        let base = self.history.at();
        self.left.iter_mut().for_each(|left| left.overtake(base));
    }

    async fn begin_on(
        &mut self,
        host: &Host,
        purpose: Purpose,
        replaces: Option<SessionId>,
        random: &mut Random,
        post: &mut Post,
    ) {
        let (mounted, applied) = self.mount(host, purpose, replaces, random).await;
        self.last = Some(mounted.session);
        self.lingers = self.knows_others(host, &[mounted.session]).await;
        let lost = u64::from(self.flaw == Flaw::LosesAnOp && applied > Seq(1));
        let lost = self.history.begin(Seq(applied.0 - lost), self.lingers, post);
        in_place::take_over(host, &mut self.history, &lost).await;
        (self.slots, self.closing) = ([None; SLOTS], Vec::new());
        self.mounted = Some(mounted);
    }

    /// Whether the server knows other sessions, whose clients may come back. It does not always hear of
    /// the end of one.
    async fn knows_others(&mut self, host: &Host, than: &[SessionId]) -> bool {
        let account = host.account(&self.name).await.id;
        let mut known = Vec::new();
        for session in std::mem::take(&mut self.sessions) {
            let found = host.store.trees.session_of(account, session).await.unwrap();
            known.extend(found.map(|_| session));
        }
        self.sessions = known;
        self.sessions.iter().any(|session| !than.contains(session))
    }

    async fn mount(
        &mut self,
        host: &Host,
        purpose: Purpose,
        replaces: Option<SessionId>,
        random: &mut Random,
    ) -> (Mounted, Seq) {
        let tap = Wiretap::default();
        let cache_bytes = *random.pick(&[256 << 10, 64 << 20]);
        let (tree_bytes, wait, handoff) = (rows_bytes(random), Some(WAIT), true);
        let offline_bytes = *random.pick(&[None, Some(1 << 20)]);
        let options =
            Options { cache_bytes, tree_bytes, wait, handoff, offline_bytes, ..roomy("test") };
        let name = std::str::from_utf8(self.name.as_bytes()).unwrap();
        let lag = Duration::from_millis(*random.pick(&[0, 5, 30]));
        let log_lag = Duration::from_millis(*random.pick(&LOG_LAGS_MS));
        let wiring = Wiring { tap: Some(tap.clone()), lag, log_lag, ..Wiring::default() };
        let disk = Arc::new(LocalDisk::new(self.flaw == Flaw::KeepsLate));
        let on = peers::Machine { replaces, disk: Some(disk.clone()), device: None };
        let mount = || host.mount_on(&on, name, purpose, options.clone(), wiring.clone());
        let mut peer = mount().await;
        // The server may not have heard of the end of another client.
        if matches!(peer, Err(Opened::Refused(Refusal::InUse { .. }))) {
            sleep(ASKED).await;
            peer = mount().await;
        }
        let Peer { client, cable, applied, session, key } = match peer {
            Ok(peer) => peer,
            Err(Opened::Refused(refusal)) => panic!("{name} cannot mount: {refusal}"),
            Err(other) => panic!("{name} cannot mount: {other:?}"),
        };
        if let Flaw::OfClients(bug) = self.flaw {
            client.plant(bug);
        }
        self.sessions.push(session);
        let (program, machine) = (Program::new(client, host.shortage()), Machine { disk, key });
        (
            Mounted { program, cable, tap, session, machine, overtaken: None, lingered: false },
            applied,
        )
    }

    /// Goes over to the user's other machine, which then asks for the tree.
    pub async fn change_machines(&mut self, host: &Host, random: &mut Random, post: &mut Post) {
        if self.mounted.is_none() {
            return;
        }
        // A file that is open for writing would keep the tree, and one that is open for reading may
        // be removed there.
        self.close_all().await;
        self.settle().await;
        self.catch_up(post);
        let next = match self.other.take() {
            Some(other) => other,
            None => self.mount(host, Purpose::TakeOver, None, random).await.0,
        };
        self.last = Some(next.session);
        self.other = self.mounted.replace(next);
        self.history.count("change of machines", 1);
        self.walk().await;
        // One without a connection hears of it later, and shows until then what it knows.
        while self.other.as_ref().is_some_and(Mounted::has_seat) {
            sleep(Duration::from_secs(1)).await;
        }
        // It sends the changes that the server does not have, if nobody else has changed the tree.
        self.settle().await;
        let mounted = self.mounted.as_mut().expect("there is a mount");
        let lingered = mounted.lingered;
        if let Some(overtaken) = mounted.overtaken.take() {
            // It may have accepted a delivery at last.
            let left = self.other.as_ref().expect("the mount that was left");
            let before = left.program.client().status().durable;
            let now = host.account(&self.name).await.applied;
            overtaken.must_be_there(before, now, &mut self.history);
            // It has removed what it has open no more.
            let there = self.mounted.iter().chain(&self.other).map(|mounted| mounted.session);
            self.lingers = lingered || self.knows_others(host, &there.collect::<Vec<_>>()).await;
        }
    }

    /// Has the other machine take the tree from a client whose cable was pulled. That one comes back,
    /// without the changes that the server does not have.
    pub async fn be_overtaken(&mut self, host: &Host, random: &mut Random, post: &mut Post) {
        let mut old = self.mounted.take().expect("there is a mount");
        let mut left = self.see_off(&old, post).await;
        old.lingered = self.lingers;
        self.begin_on(host, Purpose::TakeOver, None, random, post).await;
        let base = self.history.at();
        left.overtake(base);
        // What it has sent to nowhere since, by itself.
        drop(old.tap.take());
        old.program.survive();
        old.cable.plug_in();
        // Until it hears of it, it goes on as one without a connection does.
        while old.has_seat() && self.mounted.as_ref().is_some_and(Mounted::has_seat) {
            sleep(Duration::from_secs(1)).await;
        }
        if old.has_seat() {
            // A program of it waited. The other machine may have accepted a delivery before.
            let next = self.mounted.as_ref().expect("there is a mount");
            self.history.note(next.tap.take(), next.program.take_notes());
            let before = self.history.said();
            old.program.client().sync().await.unwrap();
            let now = host.account(&self.name).await.applied;
            left.must_be_there(before, now, &mut self.history);
        } else {
            old.overtaken = Some(left);
        }
        self.other = Some(old);
        self.history.count("forced takeover", 1);
    }

    /// Ends the mount on the user's other machine.
    pub async fn leave_other(&mut self) {
        let Some(other) = self.other.take() else { return };
        let finished = other.program.client().finish().await;
        match other.overtaken {
            // The next mount on that machine sends it.
            Some(overtaken) if other.program.client().status().all_kept => {
                self.left.push(overtaken);
            }
            Some(overtaken) => overtaken.must_be_kept(&other.program, &mut self.history),
            None => finished.expect("a mount without the tree loses nothing"),
        }
        self.history.note(other.tap.take(), other.program.take_notes());
    }

    /// Ends the session in order.
    pub async fn end(&mut self, host: &Host) {
        self.leave_other().await;
        let Some(mounted) = self.mounted.take() else { return };
        self.count_questions(host);
        mounted.program.client().finish().await.expect("a session that ends loses nothing");
        self.history.note(mounted.tap.take(), mounted.program.take_notes());
    }

    /// All cables to the server.
    pub fn cables(&self) -> impl Iterator<Item = &Cable> {
        self.mounted.iter().chain(&self.other).map(|mounted| &mounted.cable)
    }

    /// The cable to the server, if there is a mount.
    pub fn cable(&self) -> Option<Cable> {
        self.mounted.as_ref().map(|mounted| mounted.cable.clone())
    }

    /// Pulls the cable for good; ops sent from now on are lost.
    pub fn pull(&mut self) {
        let mounted = self.mounted.as_ref().expect("there is a mount");
        mounted.program.doom();
        mounted.cable.pull();
    }

    /// Ends a client whose cable was pulled, since its machine crashes.
    pub async fn lose(&mut self, host: &Host, random: &mut Random, post: &mut Post) {
        let mounted = self.mounted.take().expect("there is a mount");
        self.count_questions(host);
        let mut left = self.see_off(&mounted, post).await;
        left.crash(random);
        self.left.push(left);
        // It depends on timing whether ops were lost.
        let _ = mounted.program.client().finish().await;
    }

    /// Waits until a client whose cable was pulled sends no more. All observations of its programs until
    /// then must have been right.
    async fn see_off(&mut self, mounted: &Mounted, post: &mut Post) -> Left {
        let client = mounted.program.client();
        let mut yields = 0;
        // The last ops still have to be sent, to nowhere.
        while client.status().link == Link::Up
            && mounted.tap.last().unwrap_or(self.history.said()) < client.status().last
        {
            yields += 1;
            match yields < YIELDS_MAX {
                true => yield_now().await,
                // What sends them may wait for time to pass, which stands still meanwhile.
                false => sleep(Duration::from_millis(1)).await,
            }
        }
        self.history.note(mounted.tap.take(), mounted.program.take_notes());
        self.history.catch_up(client.status().durable, post);
        self.history.check_ahead(post);
        Left::by(mounted.session, &mounted.machine, &mounted.program, &self.history)
    }

    fn count_questions(&mut self, host: &Host) {
        let asked = host.engine.counts(&self.name).map_or(0, |counts| counts.reads);
        self.history.count("question", asked as usize);
    }

    /// Records ops and observations, and lets the trees catch up with the durable ops.
    pub fn catch_up(&mut self, post: &mut Post) {
        let mut durable = self.history.said();
        // Whatever the other machine did came before.
        for (place, mounted) in self.other.iter().chain(&self.mounted).enumerate() {
            self.history.note(mounted.tap.take(), mounted.program.take_notes());
            let there = mounted.program.client().status().durable;
            durable = if place == 0 { there } else { durable.max(there) };
        }
        self.history.catch_up(durable, post);
    }

    /// Lets the trees catch up with the ops that the store has.
    pub async fn catch_up_with_store(&mut self, host: &Host, post: &mut Post) {
        self.catch_up(post);
        let Account { applied, .. } = host.account(&self.name).await;
        assert!(applied >= self.history.at(), "{} lost what was durable", self.name);
        self.history.catch_up(applied, post);
    }

    /// Fails the test unless the store of a server that is dead holds all that was durable, and the tree
    /// of a prefix of the log. The trees have caught up with it.
    pub async fn audit_store(&self, host: &Host) {
        // What is read there is wrong.
        if self.flaw == Flaw::OfRows(Bug::ReadsOldNodes) {
            return;
        }
        let Account { id, applied, usage, .. } = host.account(&self.name).await;
        let reached = (self.history.at(), self.history.whole().usage());
        assert_eq!((applied, usage), reached, "of {}, after a crash", self.name);
        crashed::audit(host, id, &self.history).await;
    }

    /// Waits until everything so far is durable.
    pub async fn settle(&self) {
        if let Some(mounted) = &self.mounted {
            let settled = mounted.program.client().sync().await;
            assert!(settled.is_ok() || mounted.program.is_doomed(), "{settled:?}");
        }
    }

    /// The programs on the mount, if there is one.
    pub fn program(&self) -> Option<Program> {
        self.mounted.as_ref().map(|mounted| mounted.program.clone())
    }

    /// Runs some operations at once; returns their number.
    pub async fn turn(&mut self, random: &mut Random) -> usize {
        let Some(program) = self.program() else { return 0 };
        let Status { usage, quota, .. } = program.client().status();
        let crowded = usage.nodes + 10 > quota.nodes || usage.bytes + (40 << 10) > quota.bytes;
        if crowded && random.below(20) == 0 {
            return self.tidy(&program, random).await;
        }
        let (mut tasks, mut count, alone) = (JoinSet::new(), 0, random.below(2) == 0);
        for _ in 0..random.below(3) {
            if let Some(task) = chance::on_files(&program, &self.slots, random) {
                tasks.spawn(task);
            }
        }
        let looking = if alone { 0 } else { 1 + random.below(2) };
        for _ in 0..looking {
            let path = chance::path(self.history.model(), End::There, random);
            tasks.spawn(chance::on_looking(&program, path, random));
        }
        count += tasks.len();
        if random.below(4) == 0 {
            let (program, far) = (program.clone(), random.below(2) == 0);
            tasks.spawn(async move {
                if far { program.client().sync().await } else { program.fsync().await }
            });
        }
        if random.below(2) == 0 {
            yield_now().await;
        }
        self.close_now().await;
        if alone {
            self.change_names(&program, random).await;
            count += 1;
        }
        while let Some(done) = tasks.join_next().await {
            let _ = joined(done);
        }
        count
    }

    /// Puts an open file into a slot; the file there before will be closed.
    pub fn keep_open(&mut self, at: usize, slot: Slot) {
        self.closing.extend(self.slots[at].replace(slot));
    }

    /// Empties a slot; the file in it will be closed.
    pub fn close(&mut self, at: usize) {
        self.closing.extend(self.slots[at].take());
    }

    /// Closes everything.
    pub async fn close_all(&mut self) {
        (0..SLOTS).for_each(|at| self.close(at));
        self.close_now().await;
    }

    /// The nodes of all open files.
    pub fn held(&self) -> Vec<Ino> {
        let open = self.slots.iter().flatten().chain(&self.closing);
        open.map(|slot| slot.ino).collect()
    }

    async fn close_now(&mut self) {
        let Some(program) = self.program() else { return };
        for Slot { ino, handle, .. } in std::mem::take(&mut self.closing) {
            // Errors are in the notes.
            if program.close(ino, handle).await == Err(Errno::EDQUOT) {
                self.history.count("close with a full inbox", 1);
            }
            program.forget(ino).await;
        }
    }

    /// Reads the whole tree while open files change and changes become durable. So some answers
    /// arrive that are older than the known rows.
    pub async fn walk_amid_changes(&mut self, random: &mut Random) -> usize {
        let Some(program) = self.program() else { return 0 };
        self.close_now().await;
        let walk = tokio::spawn(walk(program.clone()));
        let (mut tasks, mut count) = (JoinSet::new(), 0);
        for _ in 0..random.below(50) {
            if walk.is_finished() {
                break;
            }
            for _ in 0..random.below(4) {
                let task = chance::on_files(&program, &self.slots, random);
                count += usize::from(task.is_some());
                task.into_iter().for_each(|task| drop(tasks.spawn(task)));
            }
            match random.below(3) {
                0 => self.settle().await,
                1 => yield_now().await,
                _ => sleep(Duration::from_millis(random.below(15))).await,
            }
        }
        while let Some(done) = tasks.join_next().await {
            let _ = joined(done);
        }
        count + joined(walk.await)
    }

    /// Reads the whole tree.
    pub async fn walk(&self) {
        if let Some(program) = self.program() {
            walk(program).await;
        }
    }

    /// Overwrites a few bytes in some of the files. Returns the number of operations.
    pub async fn edit(&self, random: &mut Random) -> usize {
        let Some(program) = self.program() else { return 0 };
        let mut count = 0;
        for (ino, size) in files(&program).await {
            if size == 0 || random.below(3) > 0 {
                continue;
            }
            let Ok(handle) = program.open(ino, true).await else { continue };
            let edited = Bytes::from(vec![random.below(256) as u8; 1 + random.below(9) as usize]);
            // Errors are in the notes.
            let _ = program.write(ino, random.below(size), edited, false).await;
            let _ = program.close(ino, handle).await;
            count += 1;
        }
        count
    }

    /// Empties one of the directories in the root.
    async fn tidy(&self, program: &Program, random: &mut Random) -> usize {
        let there = program.list(Ino::ROOT).await.unwrap_or_default();
        if there.is_empty() {
            return 1;
        }
        let (name, found) = random.pick(&there).clone();
        1 + remove(program, (Ino::ROOT, name), found).await
    }
}

/// Reads the whole tree; returns the number of operations.
async fn walk(program: Program) -> usize {
    let (mut waiting, mut count) = (vec![Ino::ROOT], 0);
    while let Some(directory) = waiting.pop() {
        count += 1;
        for (_, (ino, node)) in program.list(directory).await.unwrap_or_default() {
            if node.is_directory() {
                waiting.push(ino);
            } else if let Some(data) = node.file() {
                let Ok(handle) = program.open(ino, false).await else { continue };
                count += 1;
                let _ = program.read(handle, ino, 0..data.size + 10).await;
                let _ = program.close(ino, handle).await;
            }
        }
    }
    count
}

/// All files, each with its size in bytes.
async fn files(program: &Program) -> Vec<(Ino, u64)> {
    let (mut waiting, mut files) = (vec![Ino::ROOT], Vec::new());
    while let Some(directory) = waiting.pop() {
        for (_, (ino, node)) in program.list(directory).await.unwrap_or_default() {
            match node.file() {
                Some(data) => files.push((ino, data.size)),
                None if node.is_directory() => waiting.push(ino),
                None => {}
            }
        }
    }
    files
}

/// The result of a task; the test fails if the task panicked.
fn joined<T>(task: Result<T, JoinError>) -> T {
    task.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Memory for rows: the minimum, a little, or enough for all.
pub fn rows_bytes(random: &mut Random) -> usize {
    let some = (4 << 10) + random.below(28 << 10) as usize;
    if random.below(20) == 0 { 1 } else { *random.pick(&[some, some, some, 64 << 20]) }
}

/// Removes a node, after everything in it; returns the number of operations.
fn remove(program: &Program, place: Place, (ino, node): Found) -> Removal<'_> {
    Box::pin(async move {
        let mut count = 1;
        // A refused removal is in the notes.
        if !node.is_directory() {
            let _ = program.unlink(&place).await;
            return count;
        }
        for (name, found) in program.list(ino).await.unwrap_or_default() {
            count += remove(program, (ino, name), found).await;
        }
        let _ = program.rmdir(&place).await;
        count + 1
    })
}

type Removal<'a> = Pin<Box<dyn Future<Output = usize> + 'a>>;

impl Way {
    /// Walks along a path up to its last name.
    pub async fn along(program: &Program, path: &[Name]) -> Result<Way, Errno> {
        let (last, above) = path.split_last().expect("paths have names");
        let mut way = Way { held: Vec::new(), place: (Ino::ROOT, last.clone()) };
        for name in above {
            let found = program.lookup(&(way.place.0, name.clone())).await;
            let next = match found {
                Ok(Some((ino, node))) => {
                    way.held.push(ino);
                    if node.is_directory() { Ok(ino) } else { Err(Errno::ENOTDIR) }
                }
                Ok(None) => Err(Errno::ENOENT),
                Err(errno) => Err(errno),
            };
            match next {
                Ok(ino) => way.place.0 = ino,
                Err(errno) => {
                    way.leave(program).await;
                    return Err(errno);
                }
            }
        }
        Ok(way)
    }

    /// Walks along a path to its node, which is held too.
    pub async fn to(program: &Program, path: &[Name]) -> Result<(Way, Found), Errno> {
        let mut way = Way::along(program, path).await?;
        match program.lookup(&way.place).await {
            Ok(Some(found)) => {
                way.held.push(found.0);
                Ok((way, found))
            }
            missing => {
                way.leave(program).await;
                Err(missing.err().unwrap_or(Errno::ENOENT))
            }
        }
    }

    /// Keeps the last node held; the caller releases it.
    pub fn keep_last(&mut self) {
        self.held.pop();
    }

    /// Releases the nodes on the path.
    pub async fn leave(self, program: &Program) {
        for ino in self.held {
            program.forget(ino).await;
        }
    }
}
