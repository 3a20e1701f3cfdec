//! A session's tree: the rows that are loaded, and how ops change rows and contents.
//!
//! It is pure with respect to the store: an attempt on it says which rows it misses, and what is to be
//! done to contents. `holding` is how that is done while the tree is not locked. It decides nothing about
//! when to commit, and knows no link.
//!
//! Ops are *planned* one after the other; then the effects of some of them on contents are performed
//! together, and only then they count as applied. If an effect fails, the table is as it was before the
//! first of them.
//!
//! **Invariant:** what the table knows and is not settled yet is newer than the store; everything
//! else is what the store has. So nothing is settled or unloaded while rows are being loaded: whoever
//! does either has the tree's turn.
//!
//! **Invariant:** bytes that committed rows can reach are not given back: [`xfer_protocol::tree::ContentEffect::Free`]
//! and contents that came and went wait for the commit that makes them unreachable.

pub(crate) mod holding;
mod planning;
mod reclaiming;
pub(crate) mod halt;
pub(crate) mod batch;
pub(crate) mod numbers;
pub(crate) mod space;
pub(crate) mod rows_budget;
pub(crate) mod refusing;
pub(crate) mod listing;

use std::collections::BTreeSet;
use std::sync::Arc;

use xfer_protocol::tree::{Delivery, FileData, Loaded, Need, Node, Quota, Row, Rows, Table};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, Seq, Timestamp};
use xfer_store::{Account, AccountId, Batch, Found, Left, Placements, Trims};

use crate::engine::stores::Stores;
use batch::{Free, InFlight, Pending};
use numbers::Numbers;
use rows_budget::RowsShare;
use space::Share;

use planning::Planned;
pub(crate) use planning::Unplanned;
pub(crate) use reclaiming::Reclaimed;

/// A batch, with the contents that must be durable before it.
pub(crate) struct Work {
    pub(crate) batch: Batch,
    pub(crate) contents: Vec<ContentId>,
}

/// The tree of a session.
pub(crate) struct Tree {
    account: AccountId,
    user: Name,
    epoch: Epoch,
    table: Table,
    share: RowsShare,
    room: Share,
    ids: Numbers,
    /// The last op whose effects on contents are performed.
    applied: Seq,
    /// The last op that was given to a commit.
    taken: Seq,
    /// The ops after the last one applied.
    planned: Planned,
    pending: Pending,
    in_flight: InFlight,
    /// Contents that ops which failed may have changed in part.
    torn: Vec<(ContentId, Ino)>,
    /// Contents that such ops made.
    unwanted: Vec<ContentId>,
}

impl Tree {
    pub(crate) fn new(stores: &Stores, account: &Account, ids: IdRange) -> Tree {
        Tree {
            share: stores.rows.share(),
            room: stores.space.share(),
            account: account.id,
            user: account.name.clone(),
            epoch: account.epoch,
            table: Table::new(account.usage, account.quota, account.applied),
            ids: Numbers::new(ids),
            applied: account.applied,
            taken: account.applied,
            planned: Planned::default(),
            pending: Pending::default(),
            in_flight: InFlight::default(),
            torn: Vec::new(),
            unwanted: Vec::new(),
        }
    }

    pub(crate) fn applied(&self) -> Seq {
        self.applied
    }

    /// Whether so much waits that it should be committed at once.
    pub(crate) fn is_large(&self) -> bool {
        self.pending.is_large()
    }

    /// What the session is promised of the disk.
    pub(crate) fn room_mut(&mut self) -> &mut Share {
        &mut self.room
    }

    pub(crate) fn numbers_mut(&mut self) -> &mut Numbers {
        &mut self.ids
    }

    /// Raises the quota. It is never lowered within a session: the client may have sent ops that
    /// it checked against the higher one, and they must not fail after the fact. The client itself
    /// holds to the lower one from when it hears of it, and the next session to it anyway.
    pub(crate) fn raise_quota(&mut self, quota: Quota) {
        let held = self.table.quota();
        self.table.set_quota(Quota {
            bytes: held.bytes.max(quota.bytes),
            nodes: held.nodes.max(quota.nodes),
        });
    }

    /// Sets the quota, for a tree whose changes are all worked out here.
    pub(crate) fn set_quota(&mut self, quota: Quota) {
        self.table.set_quota(quota);
    }

    /// All that changed since the last batch was taken, as of now. None if there is nothing.
    pub(crate) fn take_batch(&mut self, time: Timestamp) -> Option<Work> {
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
            placements: Placements::default(),
            trims,
            deliveries: pending.deliveries,
            unrecorded: pending.unrecorded.into_iter().collect(),
            time,
        };
        let (touched, created, used) = (pending.touched, pending.created, self.room.used());
        self.in_flight = InFlight { touched, created, stillborn, frees, used };
        self.taken = self.applied;
        Some(Work { batch, contents })
    }

    /// Notes that nothing of the batch taken last was written, nor ever will be.
    pub(crate) fn withdraw(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.pending.created.extend(in_flight.created);
        self.pending.touched.extend(in_flight.touched);
    }

    /// What is left that was not committed, when nothing is in a commit any more. Contents that came
    /// into being with a batch whose commit failed may be durable, whatever the database shows now:
    /// they stay for the sweep of the next start.
    pub(crate) fn left(&self) -> Left {
        let planned = &self.planned.pending;
        let created = self.pending.created.iter().chain(&planned.created).chain(&self.unwanted);
        let touched = self.pending.touched.iter().chain(&self.in_flight.touched);
        let touched = touched.chain(&planned.touched);
        let written = touched.filter_map(|(content, ino)| Some((*content, (*ino)?)));
        let mut written: Vec<_> = written.chain(self.torn.iter().copied()).collect();
        let created: BTreeSet<ContentId> = created.copied().collect();
        written.retain(|(content, _)| !created.contains(content));
        written.sort_unstable();
        written.dedup();
        Left { created: created.into_iter().collect(), written }
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
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// A node as of the last op applied.
    ///
    /// # Errors
    /// If it must be loaded first.
    pub(crate) fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, Vec<Need>> {
        known(self.table.node(ino), || Need::Node(ino))
    }

    /// An entry as of the last op applied.
    ///
    /// # Errors
    /// If it must be loaded first.
    pub(crate) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, Vec<Need>> {
        known(self.table.entry(parent, name), || Need::Entry(parent, name.clone()))
    }

    /// A delivery to this user that waits as of the last op applied.
    ///
    /// # Errors
    /// If it must be loaded first.
    pub(crate) fn delivery(&self, id: DeliveryId) -> Result<Option<Arc<Delivery>>, Vec<Need>> {
        known(self.table.delivery(id), || Need::Delivery(id))
    }

    /// Fills in what was found. What the table knows already is at least as new.
    pub(crate) fn fill(&mut self, found: Found) {
        for (ino, node) in found.nodes {
            self.table.fill_node(ino, node);
        }
        for (parent, name, ino) in found.entries {
            self.table.fill_entry(parent, name, ino);
        }
        for directory in found.whole {
            self.table.fill_complete(directory);
        }
        for (id, delivery) in found.deliveries {
            self.table.fill_delivery(id, delivery);
        }
    }

    /// Unloads rows that the store has, if all that are loaded take too much memory.
    pub(crate) fn trim(&mut self) {
        self.table.trim(self.share.bytes());
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

/// What is known of a row.
fn known<T>(row: Loaded<T>, need: impl FnOnce() -> Need) -> Result<Option<T>, Vec<Need>> {
    match row {
        Loaded::Present(row) => Ok(Some(row)),
        Loaded::Absent => Ok(None),
        Loaded::Unknown => Err(vec![need()]),
    }
}

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
