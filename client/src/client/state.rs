//! All that the client knows and owes, behind one lock: replica, log, cache, handles.
//!
//! Nothing here waits. What can't be done yet says what it waits for ([`Pause`]), and is tried again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::message::{DeliveryHead, DeliveryState, Grant};
use xfer_protocol::tree::{
    Action, Changes, ContentEffect, Loaded, Need, Node, Op, Room, Rows, STATE_XATTR, Stop, Table,
    XattrMap, plan,
};
use xfer_protocol::{ContentId, DeliveryId, Errno, IdRange, Ino, Name, Seq};

use super::Options;
use super::cache::{Cache, FetchOrder};
use super::handles::Handles;
use super::kernel::Notice;
use super::log::Log;
use super::outbox::{self, drafts::Drafts};
use super::room::Rooms;
use super::walk::Walk;

/// Why an attempt could not be answered yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pause {
    /// It is refused.
    Refused(Errno),
    /// These rows must be fetched.
    Rows(Vec<Need>),
    /// These fetches of bytes must be waited for.
    Data(Vec<u64>),
    /// Something must become durable, or granted, or the log must get shorter.
    Progress,
    /// Room in another user's inbox must be asked for.
    Room(RoomNeed),
    /// What became of a delivery must be asked.
    State(DeliveryId),
}

/// Room that a send needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomNeed {
    /// What is to be sent.
    pub(super) ino: Ino,
    /// To whom.
    pub(super) to: Name,
    /// How many bytes.
    pub(super) bytes: u64,
    /// How many items.
    pub(super) items: u32,
}

impl From<Errno> for Pause {
    fn from(errno: Errno) -> Pause {
        Pause::Refused(errno)
    }
}

impl From<Stop> for Pause {
    fn from(stop: Stop) -> Pause {
        match stop {
            Stop::Need(need) => Pause::Rows(vec![need]),
            Stop::Refused(errno) => Pause::Refused(errno),
        }
    }
}

/// Where the session stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// All is well.
    Connected,
    /// No more changes are taken; what there is becomes durable.
    Draining(String),
    /// The session is over.
    Over(String),
}

/// All that the client knows and owes.
#[derive(Debug)]
pub struct State {
    pub(super) table: Table,
    pub(super) log: Log,
    pub(super) cache: Cache,
    pub(super) handles: Handles,
    pub(super) walk: Walk,
    pub(super) drafts: Drafts,
    /// The mailboxes, as far as they were looked for, and whose they are.
    pub(super) mailboxes: HashMap<Ino, Name>,
    /// The records of what was sent in this session, until it is known what became of it.
    pub(super) sent: HashMap<DeliveryId, Ino>,
    /// The number that something of a name got last in the inbox, by its sender and name.
    pub(super) numbered: HashMap<(Name, Name), u32>,
    /// Room in inboxes for what is about to be moved into a mailbox.
    pub(super) moving: HashMap<Ino, outbox::drafts::Room>,
    /// Whether something that was not sent is to be tried again soon.
    pub(super) resend: bool,
    pub(super) phase: Phase,
    /// The account's own name.
    pub(super) user: Name,
    /// Users that can be sent to.
    pub(super) users: HashSet<Name>,
    /// How often those changed.
    pub(super) users_changes: u64,
    /// Deliveries that wait to be placed in the inbox.
    pub(super) waiting: VecDeque<DeliveryHead>,
    /// What became of what was sent, as far as asked or told.
    pub(super) deliveries: HashMap<DeliveryId, DeliveryState>,
    /// What may be used of the server's disk.
    pub(super) rooms: Rooms,
    /// The op that a program waits for.
    pub(super) barrier: Seq,
    /// When a sign of life was asked for, until it comes.
    pub(super) pinged: Option<Instant>,
    /// How long the last one took.
    pub(super) round_trip: Option<Duration>,
    /// Whether more numbers were asked for and have not come.
    pub(super) ids_asked: bool,
    /// Fetches of bytes to be made, each with a node that has the content.
    pub(super) orders: Vec<(Ino, FetchOrder)>,
    /// What the kernel is to be told of.
    pub(super) notices: Vec<Notice>,
    /// What went wrong that no program was told.
    pub(super) errors: Vec<String>,
    /// The most memory that rows take, in bytes.
    tree_bytes: usize,
    /// Operations that need all that is loaded, however much it is.
    holds: usize,
    numbers: VecDeque<IdRange>,
}

/// Numbers left below which more are asked for.
const IDS_LOW: u64 = 1 << 17;

/// The most errors kept to be shown.
const ERRORS_MAX: usize = 100;

impl State {
    pub(super) fn new(grant: &Grant, options: &Options) -> State {
        State {
            table: Table::new(grant.usage, grant.quota, grant.applied),
            log: Log::new(grant.applied, options.log_bytes),
            cache: Cache::new(options.cache_bytes, grant.applied),
            handles: Handles::default(),
            walk: Walk::default(),
            drafts: Drafts::default(),
            mailboxes: HashMap::new(),
            sent: HashMap::new(),
            numbered: HashMap::new(),
            moving: HashMap::new(),
            resend: false,
            phase: Phase::Connected,
            user: grant.user.clone(),
            users: grant.users.iter().cloned().collect(),
            users_changes: 0,
            waiting: grant.deliveries.iter().cloned().collect(),
            deliveries: HashMap::new(),
            rooms: Rooms::new(grant.disk, grant.limit),
            barrier: Seq::default(),
            pinged: None,
            round_trip: None,
            ids_asked: false,
            orders: Vec::new(),
            notices: Vec::new(),
            errors: Vec::new(),
            tree_bytes: options.tree_bytes,
            holds: 0,
            numbers: [grant.ids].into(),
        }
    }

    /// The node, which must exist.
    pub(super) fn node(&self, ino: Ino) -> Result<Arc<Node>, Pause> {
        match self.table.node(ino) {
            Loaded::Present(node) => Ok(node),
            Loaded::Absent => Err(Errno::ESTALE.into()),
            Loaded::Unknown => Err(self.load(Need::Node(ino))),
        }
    }

    /// All extended attributes of the node, which must exist.
    pub(super) fn all_xattrs(&self, ino: Ino) -> Result<Arc<XattrMap>, Pause> {
        self.node(ino)?.xattrs.all().ok_or_else(|| self.load(Need::Attributes(ino)))
    }

    /// What the entry refers to, if it exists.
    pub(super) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, Pause> {
        match self.table.entry(parent, name) {
            Loaded::Present(ino) => Ok(Some(ino)),
            Loaded::Absent => Ok(None),
            Loaded::Unknown => Err(self.load(Need::Entry(parent, name.clone()))),
        }
    }

    /// All entries of a directory.
    pub(super) fn children(&self, directory: Ino) -> Result<Vec<(Name, Ino)>, Pause> {
        self.table.children(directory).ok_or_else(|| self.load(Need::Children(directory)))
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// Refuses what would be asked of a tree that somebody else may change by now: once the session
    /// is over, only what was open before can be used.
    pub(super) fn must_have_session(&self) -> Result<(), Pause> {
        match self.phase {
            Phase::Connected | Phase::Draining(_) => Ok(()),
            Phase::Over(_) => Err(Errno::EIO.into()),
        }
    }

    /// As [`State::must_have_session`], for what can be asked of an open node too.
    pub(super) fn must_be_usable(&self, ino: Ino) -> Result<(), Pause> {
        match self.phase {
            Phase::Over(_) if self.handles.is_open(ino) => Ok(()),
            Phase::Connected | Phase::Draining(_) | Phase::Over(_) => self.must_have_session(),
        }
    }

    /// Whether the session can still fetch: once it is over, what is not known stays so.
    fn load(&self, need: Need) -> Pause {
        match self.phase {
            Phase::Connected | Phase::Draining(_) => Pause::Rows(vec![need]),
            Phase::Over(_) => Pause::Refused(Errno::EIO),
        }
    }

    /// Whether a change would be refused, without making it.
    pub(super) fn check(&self, action: &Action) -> Result<(), Pause> {
        let op = Op { time: SystemTime::now().into(), action: action.clone() };
        plan(&self.table, &op)?;
        Ok(())
    }

    /// Makes a change: predicts it, appends it to the log, and shows it from now on.
    pub(super) fn change(&mut self, action: Action) -> Result<(), Pause> {
        self.change_with(action, Bytes::new())
    }

    /// Makes a change that carries data.
    pub(super) fn change_with(&mut self, action: Action, payload: Bytes) -> Result<(), Pause> {
        if self.phase != Phase::Connected {
            return Err(Errno::EIO.into());
        }
        if !self.has_room_for(&action, &payload) {
            return Err(Pause::Progress);
        }
        let op = Op { time: SystemTime::now().into(), action };
        let changes = plan(&self.table, &op)?;
        let room = Room::of(&changes, self.table.usage());
        if !self.rooms.fits(room) {
            if self.rooms.is_refused(room) {
                // What was removed before this may make room, once it is durable.
                self.durable(self.log.last())?;
                return Err(Errno::ENOSPC.into());
            }
            self.rooms.want(room);
            return Err(Pause::Progress);
        }
        self.rooms.take(room);
        let seq = self.log.next();
        self.expect_contents(&changes, seq);
        self.table.commit(&changes, seq);
        for effect in &changes.contents {
            self.cache.follow(effect, &payload, seq);
        }
        if let Some((first, count)) = numbers_of(&op.action, &changes) {
            self.use_numbers(first, count);
        }
        self.notice(&op.action, &changes);
        if is_awaited(&op.action) {
            self.barrier = seq;
        }
        self.log.append(op, payload);
        Ok(())
    }

    /// The next number that can be given to something new.
    pub(super) fn fresh(&self) -> Result<u64, Pause> {
        self.fresh_run(1)
    }

    /// The first of so many numbers that follow each other.
    pub(super) fn fresh_run(&self, count: u64) -> Result<u64, Pause> {
        let fits = |range: &&IdRange| range.end - range.first >= count;
        match (self.numbers.iter().find(fits), &self.phase) {
            (Some(range), _) => Ok(range.first),
            (None, Phase::Connected) => Err(Pause::Progress),
            (None, Phase::Draining(_) | Phase::Over(_)) => Err(Errno::EIO.into()),
        }
    }

    /// Adds numbers that were granted. False if they can't be.
    pub(super) fn add_numbers(&mut self, range: IdRange) -> bool {
        let newest = self.numbers.back().map_or(Ino::FIRST_GRANTED, |last| last.end);
        let possible =
            newest <= range.first && range.first <= range.end && range.end - range.first <= IDS_MAX;
        if possible {
            self.ids_asked = false;
            self.numbers.push_back(range);
        }
        possible
    }

    /// Whether more numbers should be asked for.
    pub(super) fn numbers_are_low(&self) -> bool {
        let left: u64 = self.numbers.iter().map(|range| range.end - range.first).sum();
        left < IDS_LOW && !self.ids_asked
    }

    /// Waits until the op is durable.
    pub(super) fn durable(&mut self, seq: Seq) -> Result<(), Pause> {
        if self.log.durable() >= seq {
            return Ok(());
        }
        if self.is_over() {
            return Err(Errno::EIO.into());
        }
        self.barrier = self.barrier.max(seq);
        Err(Pause::Progress)
    }

    /// Notes that the ops up to `seq` are durable. False if that can't be.
    pub(super) fn settle(&mut self, seq: Seq) -> bool {
        if seq < self.log.durable() {
            return true;
        }
        let possible = self.log.retire(seq);
        if possible {
            self.table.settle(seq);
            self.cache.settle(seq);
            self.trim();
        }
        possible
    }

    /// Unloads rows that the server has too, if all rows take more memory than they may.
    pub(super) fn trim(&mut self) {
        if self.holds == 0 {
            self.table.trim(self.tree_bytes);
        }
    }

    /// Keeps all rows that are loaded, until [`State::release_rows`].
    pub(super) fn hold_rows(&mut self) {
        self.holds += 1;
    }

    /// Takes one [`State::hold_rows`] back.
    pub(super) fn release_rows(&mut self) {
        self.holds -= 1;
        self.trim();
    }

    /// Keeps an error for `xfer status`.
    pub(super) fn note_error(&mut self, error: String) {
        tracing::error!("{error}");
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// Tells the kernel of changes that it did not ask for.
    fn notice(&mut self, action: &Action, changes: &Changes) {
        if !matches!(action, Action::Mailbox { .. } | Action::Send { .. } | Action::Accept { .. }) {
            return;
        }
        let entries = changes.entries.iter();
        self.notices.extend(entries.map(|(parent, name, _)| Notice::Entry(*parent, name.clone())));
        self.notices.extend(changes.nodes.iter().map(|(ino, _)| Notice::Node(*ino)));
    }

    /// Whether the log takes the op now. What follows from an op that was taken always is.
    fn has_room_for(&self, action: &Action, payload: &Bytes) -> bool {
        let follows = match action {
            Action::SetXattr { name, .. } | Action::RemoveXattr { name, .. } => name == STATE_XATTR,
            action => matches!(action, Action::Send { .. } | Action::ForgetOrphan { .. }),
        };
        follows || if payload.is_empty() { !self.log.is_full() } else { self.log.has_room() }
    }

    /// Nodes that get a content by an op have it on the server only after that op.
    fn expect_contents(&mut self, changes: &Changes, seq: Seq) {
        for (ino, node) in &changes.nodes {
            let before = match self.table.node(*ino) {
                Loaded::Present(node) => node.content(),
                Loaded::Absent | Loaded::Unknown => None,
            };
            let after = node.as_ref().and_then(|node| node.content());
            if let Some(content) = after.filter(|_| after != before) {
                self.cache.expect(content, seq);
            }
        }
    }

    /// Uses numbers up, and all before them: they are used in order.
    fn use_numbers(&mut self, first: u64, count: u64) {
        let next = first + count;
        self.numbers.retain_mut(|range| {
            range.first = range.first.max(next);
            range.first < range.end
        });
    }
}

/// The numbers that an op used up: the first, and how many.
fn numbers_of(action: &Action, changes: &Changes) -> Option<(u64, u64)> {
    match action {
        Action::Create { ino, .. }
        | Action::Mkdir { ino, .. }
        | Action::Symlink { ino, .. }
        | Action::Mknod { ino, .. }
        | Action::Mailbox { ino, .. } => Some((ino.0, 1)),
        Action::Send { delivery, .. } => Some((delivery.0, 1)),
        Action::Accept { first, .. } => {
            // The directory that it was placed in changed too.
            let new = first.0..first.0 + changes.nodes.len() as u64;
            let made = changes.nodes.iter().filter(|(ino, _)| new.contains(&ino.0));
            Some((first.0, made.count() as u64))
        }
        Action::SetAttr { .. }
        | Action::Write { .. }
        | Action::Fallocate { .. }
        | Action::CopyRange { .. } => {
            changes.contents.iter().find_map(made).map(|content| (content.0, 1))
        }
        Action::Link { .. }
        | Action::Unlink { .. }
        | Action::Rmdir { .. }
        | Action::Rename { .. }
        | Action::SetXattr { .. }
        | Action::RemoveXattr { .. }
        | Action::ForgetOrphan { .. }
        | Action::Revise { .. }
        | Action::Decline { .. } => None,
    }
}

/// Whether another user waits for an op to be durable, though no program here does.
fn is_awaited(action: &Action) -> bool {
    matches!(action, Action::Send { .. } | Action::Accept { .. } | Action::Decline { .. })
}

/// The content that an effect brings into being.
fn made(effect: &ContentEffect) -> Option<ContentId> {
    match effect {
        ContentEffect::Create { content } | ContentEffect::Clone { to: content, .. } => {
            Some(*content)
        }
        ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Copy { .. }
        | ContentEffect::Free { .. } => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use xfer_protocol::message::Secret;
    use xfer_protocol::tree::{Quota, Room, Usage};
    use xfer_protocol::{Epoch, SessionId};

    use super::super::Ids;
    use super::*;

    fn state(ids: IdRange) -> State {
        let grant = Grant {
            session: SessionId([0; 16]),
            secret: Secret([0; 32]),
            epoch: Epoch(1),
            applied: Seq(0),
            user: Name::new(b"alice").unwrap(),
            ids,
            usage: Usage::default(),
            quota: Quota::UNLIMITED,
            disk: Room::default(),
            limit: Room::default(),
            users: Vec::new(),
            deliveries: Vec::new(),
        };
        let (cache_bytes, log_bytes, tree_bytes) = (1 << 20, 1 << 20, 1 << 20);
        let (ids, label) = (Ids::Stored, String::new());
        State::new(&grant, &Options { cache_bytes, log_bytes, tree_bytes, ids, label })
    }

    fn first(run: Result<u64, Pause>) -> u64 {
        run.expect("there are numbers")
    }

    #[test]
    fn numbers_are_used_in_order_though_a_run_does_not_fit_what_is_left() {
        let mut state = state(IdRange { first: 5000, end: 5010 });
        assert!(state.add_numbers(IdRange { first: 7000, end: 8000 }));
        assert_eq!(first(state.fresh_run(5)), 5000);
        assert_eq!(first(state.fresh_run(50)), 7000);
        state.use_numbers(7000, 50);
        assert_eq!(first(state.fresh()), 7050);
    }
}
