//! A session's tree: the rows that are loaded, and how ops change rows and contents.
//!
//! Synchronous, and called only from threads that may block. It decides nothing about when to
//! commit, and knows no link.
//!
//! **Invariant:** what the table knows and is not settled yet is newer than the store; everything
//! else is what the store has.
//!
//! **Invariant:** bytes that committed rows can reach are not given back: [`ContentEffect::Free`]
//! and contents that came and went wait for the commit that makes them unreachable.

pub(crate) mod halt;
pub(crate) mod batch;
pub(crate) mod ids;
pub(crate) mod space;
pub(crate) mod rows_budget;
pub(crate) mod listing;
mod loading;

use std::sync::Arc;

use xfer_protocol::limits::PAGE_BYTES;
use xfer_protocol::tree::{
    Action, Changes, ContentEffect, Delivery, FileData, Loaded, Need, Node, Op, Quota, Room, Row,
    Rows, STATE_XATTR, Stop, Table, plan,
};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Errno, IdRange, Ino, Name, Seq, Timestamp};
use xfer_store::{Account, AccountId, Batch, ListMax, StoreError, Trims};

use super::stores::Stores;
use crate::engine::durable::leftovers::Left;
use batch::{Free, InFlight, Pending};
use halt::Halt;
use ids::Ids;
use rows_budget::RowsShare;
use space::Share;

/// How much of a directory is loaded from the store at a time.
pub(super) const LOADED_AT_ONCE: ListMax = ListMax { count: 1_000, bytes: PAGE_BYTES };

/// A batch, with the contents that must be durable before it.
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) contents: Vec<ContentId>,
}

/// The tree of a session.
pub(super) struct Tree {
    stores: Stores,
    account: AccountId,
    user: Name,
    epoch: Epoch,
    table: Table,
    share: RowsShare,
    room: Share,
    ids: Ids,
    applied: Seq,
    /// The last op that was given to a commit.
    taken: Seq,
    pending: Pending,
    in_flight: InFlight,
    /// Contents that an op which failed may have changed in part.
    torn: Vec<(ContentId, Ino)>,
}

impl Tree {
    pub(super) fn new(stores: Stores, account: &Account, ids: IdRange) -> Tree {
        Tree {
            share: stores.rows.share(),
            room: stores.space.share(),
            stores,
            account: account.id,
            user: account.name.clone(),
            epoch: account.epoch,
            table: Table::new(account.usage, account.quota, account.applied),
            ids: Ids::new(ids),
            applied: account.applied,
            taken: account.applied,
            pending: Pending::default(),
            in_flight: InFlight::default(),
            torn: Vec::new(),
        }
    }

    pub(super) fn applied(&self) -> Seq {
        self.applied
    }

    /// Whether so much waits that it should be committed at once.
    pub(super) fn is_large(&self) -> bool {
        self.pending.is_large()
    }

    /// What the session is promised of the disk.
    pub(super) fn room_mut(&mut self) -> &mut Share {
        &mut self.room
    }

    pub(super) fn ids_mut(&mut self) -> &mut Ids {
        &mut self.ids
    }

    /// Raises the quota. It is never lowered within a session: the client may have sent ops that
    /// it checked against the higher one, and they must not fail after the fact. The client itself
    /// holds to the lower one from when it hears of it, and the next session to it anyway.
    pub(super) fn raise_quota(&mut self, quota: Quota) {
        let held = self.table.quota();
        self.table.set_quota(Quota {
            bytes: held.bytes.max(quota.bytes),
            nodes: held.nodes.max(quota.nodes),
        });
    }

    /// Sets the quota, for a tree whose changes are all worked out here.
    pub(super) fn set_quota(&mut self, quota: Quota) {
        self.table.set_quota(quota);
    }

    /// Applies the next op, with its data.
    pub(super) fn apply(&mut self, op: &Op, data: &[u8]) -> Result<(), Halt> {
        let seq = self.applied.next();
        let refused = |errno| Halt::Refused { seq, errno };
        self.check(op).map_err(refused)?;
        let changes = self.plan(op, seq)?;
        self.ids.admit(&self.table, &changes).map_err(refused)?;
        if !self.room.admit(Room::of(&changes, self.table.usage())) {
            return Err(refused(Errno::ENOSPC));
        }
        for effect in &changes.contents {
            if let Err(halt) = self.perform(effect, &changes, data) {
                self.torn.extend(self.pending.owned_by(&changes));
                return Err(halt.of_op(seq));
            }
        }
        self.pending.note(&self.table, &changes);
        self.table.commit(&changes, seq);
        self.applied = seq;
        Ok(())
    }

    /// All that changed since the last batch was taken, as of now. None if there is nothing.
    pub(super) fn take_batch(&mut self, time: Timestamp) -> Option<Work> {
        if self.applied == self.taken {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        let (nodes, entries) = self.changed_rows();
        let stillborn = pending.stillborn();
        let contents = pending.touched.keys().filter(|id| !stillborn.contains(id)).copied();
        let contents = contents.collect();
        let mut trims = Trims { done: pending.freed, ..Trims::default() };
        let mut shared = pending.dropped;
        let mut frees = Vec::new();
        for free in pending.frees {
            match self.owner(&free) {
                Some(data) if data.sealed => drop(shared.insert(free.content)),
                Some(data) => {
                    trims.own.push((free.content, free.ino));
                    frees.extend(unused_parts(&free, &data));
                }
                None => {}
            }
        }
        shared.retain(|content| !stillborn.contains(content));
        trims.shared.extend(shared);
        let batch = Batch {
            account: self.account,
            epoch: self.epoch,
            applied: self.applied,
            usage: self.table.usage(),
            nodes,
            entries,
            references: pending.references.into_iter().filter(|(_, by)| *by != 0).collect(),
            trims,
            deliveries: pending.deliveries,
            refused: Vec::new(),
            unrecorded: pending.unrecorded.into_iter().collect(),
            time,
        };
        let (touched, created, used) = (pending.touched, pending.created, self.room.used());
        self.in_flight = InFlight { touched, created, stillborn, frees, used };
        self.taken = self.applied;
        Some(Work { batch, contents })
    }

    /// Notes that the batch taken last is durable, and gives back what it made unreachable. Says
    /// whether there was anything.
    ///
    /// # Errors
    /// If not all of that could be given back. Nothing else is wrong then.
    pub(super) fn settle(&mut self, seq: Seq) -> Result<bool, StoreError> {
        self.table.settle_in_store(seq);
        let in_flight = std::mem::take(&mut self.in_flight);
        self.room.settle(in_flight.used);
        let gives_back = !in_flight.stillborn.is_empty() || !in_flight.frees.is_empty();
        self.trim();
        for content in in_flight.stillborn {
            self.stores.contents.remove(content)?;
        }
        for free in in_flight.frees {
            self.load_node(free.ino)?;
            let owner = self.owner(&free);
            if owner.as_ref().is_some_and(|data| data.sealed) {
                // Shared meanwhile, though not yet in what is committed: noted with that.
                self.pending.dropped.insert(free.content);
                continue;
            }
            self.pending.freed.push(free.content);
            for part in owner.map_or(Vec::new(), |data| unused_parts(&free, &data)) {
                let len = part.range.end - part.range.start;
                self.stores.contents.free(part.content, part.range.start, len)?;
            }
        }
        Ok(gives_back)
    }

    /// Notes that nothing of the batch taken last was written, nor ever will be.
    pub(super) fn withdraw(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.pending.created.extend(in_flight.created);
        self.pending.touched.extend(in_flight.touched);
    }

    /// What is left that was not committed, when nothing is in a commit any more. Contents that came
    /// into being with a batch whose commit failed may be durable, whatever the database shows now:
    /// they stay for the sweep of the next start.
    pub(super) fn left(&self) -> Left {
        let touched = self.pending.touched.iter().chain(&self.in_flight.touched);
        let written = touched.filter_map(|(content, ino)| Some((*content, (*ino)?)));
        let mut written: Vec<_> = written.chain(self.torn.iter().copied()).collect();
        written.retain(|(content, _)| !self.pending.created.contains(content));
        written.sort_unstable();
        written.dedup();
        Left { created: self.pending.created.iter().copied().collect(), written }
    }

    /// Checks what the rules can't know.
    fn check(&self, op: &Op) -> Result<(), Errno> {
        match &op.action {
            Action::Send { from, .. } if *from != self.user => Err(Errno::EINVAL),
            Action::SetXattr { name, .. }
                if name.starts_with(b"user.xfer.") && name != STATE_XATTR =>
            {
                Err(Errno::EPERM)
            }
            Action::Accept { first, .. } if !self.ids.is_free(first.0) => Err(Errno::EINVAL),
            Action::Send { .. }
            | Action::SetXattr { .. }
            | Action::Accept { .. }
            | Action::Create { .. }
            | Action::Mkdir { .. }
            | Action::Symlink { .. }
            | Action::Mknod { .. }
            | Action::Link { .. }
            | Action::Unlink { .. }
            | Action::Rmdir { .. }
            | Action::Rename { .. }
            | Action::SetAttr { .. }
            | Action::RemoveXattr { .. }
            | Action::Write { .. }
            | Action::Fallocate { .. }
            | Action::CopyRange { .. }
            | Action::ForgetOrphan { .. }
            | Action::Mailbox { .. }
            | Action::Revise { .. }
            | Action::Decline { .. } => Ok(()),
        }
    }

    fn plan(&mut self, op: &Op, seq: Seq) -> Result<Changes, Halt> {
        loop {
            let need = match plan(&self.table, op) {
                Ok(changes) => return Ok(changes),
                Err(Stop::Refused(errno)) => return Err(Halt::Refused { seq, errno }),
                Err(Stop::Need(need)) => need,
            };
            match (&need, &op.action) {
                // The rules start over for each row they miss; so all that is sent is loaded at once.
                (Need::Children(ino), Action::Send { .. }) => self.load_subtree(*ino)?,
                (
                    Need::Children(_)
                    | Need::Node(_)
                    | Need::Attributes(_)
                    | Need::Entry(..)
                    | Need::Delivery(_),
                    _,
                ) => self.load(&need)?,
            }
        }
    }

    fn perform(
        &mut self,
        effect: &ContentEffect,
        changes: &Changes,
        data: &[u8],
    ) -> Result<(), Halt> {
        let contents = self.stores.contents.clone();
        match effect {
            ContentEffect::Create { content } => {
                self.pending.created.insert(*content);
                self.pending.touch(changes, *content, 0);
                contents.create(*content)?;
            }
            ContentEffect::Write { content, offset, len } => {
                let missing = || Halt::Protocol("a write without its data".to_owned());
                let data = data.get(..*len as usize).ok_or_else(missing)?;
                self.pending.touch(changes, *content, *len);
                contents.write(*content, *offset, data)?;
            }
            ContentEffect::Zero { content, offset, len } => {
                self.pending.touch(changes, *content, 0);
                contents.zero(*content, *offset, *len)?;
            }
            ContentEffect::Clone { from, to, ranges } => {
                self.pending.created.insert(*to);
                self.pending.touch(
                    changes,
                    *to,
                    ranges.iter().map(|range| range.end - range.start).sum(),
                );
                contents.duplicate(*from, *to, ranges)?;
            }
            ContentEffect::Copy { from, from_offset, to, to_offset, len } => {
                self.pending.touch(changes, *to, *len);
                contents.copy((*from, *from_offset), (*to, *to_offset), *len)?;
            }
            // Noted with the op's other changes, and done after the commit.
            ContentEffect::Free { .. } => {}
        }
        Ok(())
    }

    /// The data of the node of `free`, as far as the table knows it, unless it has another content by
    /// now.
    fn owner(&self, free: &Free) -> Option<FileData> {
        let Loaded::Present(node) = self.table.node(free.ino) else { return None };
        node.file().filter(|data| data.content == Some(free.content)).cloned()
    }
}

/// Rows, between the table and the store.
impl Tree {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn stores(&self) -> &Stores {
        &self.stores
    }

    pub(super) fn account(&self) -> AccountId {
        self.account
    }

    /// A node as of the last op applied.
    pub(super) fn node(&mut self, ino: Ino) -> Result<Option<Arc<Node>>, StoreError> {
        self.load_node(ino)?;
        match self.table.node(ino) {
            Loaded::Present(node) => Ok(Some(node)),
            Loaded::Absent | Loaded::Unknown => Ok(None),
        }
    }

    /// An entry as of the last op applied. It is not kept: there is no end of names that may be
    /// asked for, in directories that need not exist.
    pub(super) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, StoreError> {
        match self.table.entry(parent, name) {
            Loaded::Present(ino) => Ok(Some(ino)),
            Loaded::Absent => Ok(None),
            Loaded::Unknown => self.stores.meta.entry(self.account, parent, name),
        }
    }

    /// A delivery to this user that waits as of the last op applied.
    pub(super) fn delivery(&mut self, id: DeliveryId) -> Result<Option<Arc<Delivery>>, StoreError> {
        match self.table.delivery(id) {
            Loaded::Present(delivery) => return Ok(Some(delivery)),
            Loaded::Absent => return Ok(None),
            Loaded::Unknown => {}
        }
        // One that is not there yet may come, so only what is there is noted.
        let delivery = self.stores.meta.delivery(self.account, id)?;
        if delivery.is_some() {
            self.table.fill_delivery(id, delivery.clone());
        }
        Ok(delivery)
    }

    /// Unloads rows that the store has, if all that are loaded take too much memory.
    pub(super) fn trim(&mut self) {
        self.table.trim(self.share.bytes());
    }

    fn load_node(&mut self, ino: Ino) -> Result<(), StoreError> {
        match self.table.node(ino) {
            Loaded::Unknown => self.load(&Need::Node(ino)),
            Loaded::Present(_) | Loaded::Absent => Ok(()),
        }
    }

    /// Loads the row, so that it is known afterwards.
    fn load(&mut self, need: &Need) -> Result<(), StoreError> {
        let meta = &self.stores.meta;
        match need {
            Need::Node(ino) => self.table.fill_node(*ino, meta.node(self.account, *ino)?),
            // Nodes are loaded with all that they have.
            Need::Attributes(ino) => {
                let line = format!("the attributes of node {ino} are missing");
                return Err(StoreError::Database(line));
            }
            Need::Entry(parent, name) => {
                let ino = meta.entry(self.account, *parent, name)?;
                self.table.fill_entry(*parent, name.clone(), ino);
            }
            Need::Children(ino) => self.load_children(*ino)?,
            Need::Delivery(id) => {
                let delivery = meta.delivery(self.account, *id)?;
                self.table.fill_delivery(*id, delivery);
            }
        }
        Ok(())
    }

    /// The rows that changed since the last batch was taken. One that the table no longer knows
    /// went with its directory.
    fn changed_rows(&self) -> (NodeRows, EntryRows) {
        let (mut nodes, mut entries) = (Vec::new(), Vec::new());
        for row in self.table.changed_rows(self.taken) {
            match row {
                Row::Node(ino) => match self.table.node(ino) {
                    Loaded::Present(node) => nodes.push((ino, Some(node))),
                    Loaded::Absent | Loaded::Unknown => nodes.push((ino, None)),
                },
                Row::Entry(parent, name) => match self.table.entry(parent, &name) {
                    Loaded::Present(ino) => entries.push((parent, name, Some(ino))),
                    Loaded::Absent | Loaded::Unknown => entries.push((parent, name, None)),
                },
            }
        }
        (nodes, entries)
    }
}

/// Rows as [`Batch::nodes`] has them.
type NodeRows = Vec<(Ino, Option<Arc<Node>>)>;

/// Rows as [`Batch::entries`] has them.
type EntryRows = Vec<(Ino, Name, Option<Ino>)>;

/// The parts of `free` that its node, which alone has the content, has no data in.
fn unused_parts(free: &Free, data: &FileData) -> Vec<Free> {
    let mut parts = Vec::new();
    let mut at = free.range.start;
    let used = data.extents.data_in(data.size, free.range.clone());
    for run in used.into_iter().chain(std::iter::once(free.range.end..free.range.end)) {
        if at < run.start {
            parts.push(Free { range: at..run.start, ..free.clone() });
        }
        at = run.end;
    }
    parts
}
