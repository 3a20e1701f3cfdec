//! A session's tree: the rows that are loaded, and how ops change rows and contents.
//!
//! A tree never calls the store: an attempt on it returns the rows that it misses and the effects
//! on contents. `holding` loads the rows and reclaims space, and the tree's owner, usually the
//! driver, has the effects of ops performed; both do so without the tree's lock. A tree does not
//! decide when to commit, and knows no link.
//!
//! Ops are *planned* one after the other. Then the effects of several ops on contents are performed
//! together, and only then do these ops count as applied. If an effect fails, the table is restored
//! to its state before the first of them.
//!
//! **Invariant:** rows in the table that are not durable yet are newer than the store's; all others
//! equal the store's. So no row is marked durable or unloaded while rows are being loaded: a task
//! that does any of these has the tree's turn.
//!
//! **Invariant:** an op that is applied again after a crash has the effect that it had the first
//! time. So a content from which an op copied is not changed in place before that op is durable.
//!
//! **Invariant:** bytes that committed rows can reach are not reclaimed:
//! [`xfer_protocol::tree::ContentEffect::Free`], and the removal of contents that were created and
//! dropped again, wait for the commit that makes the bytes unreachable.

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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xfer_protocol::tree::{Delivery, FileData, Loaded, Need, Node, Quota, Row, Rows, Table};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino, Name, Seq, Timestamp};
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
    /// The last op in a batch that was taken.
    taken: Seq,
    /// The ops that are planned after the last one applied.
    planned: Planned,
    pending: Pending,
    in_flight: InFlight,
    /// The contents from which ops copied that are not durable, each with the last of these ops.
    copied: BTreeMap<ContentId, Seq>,
    /// Contents that failed ops may have changed in part.
    torn: Vec<(ContentId, Ino)>,
    /// Contents that failed ops created.
    unwanted: Vec<ContentId>,
}

impl Tree {
    pub(crate) fn new(stores: &Stores, account: &Account, ids: Numbers) -> Tree {
        Tree {
            share: stores.rows.share(),
            room: stores.space.share(),
            account: account.id,
            user: account.name.clone(),
            epoch: account.epoch,
            table: Table::new(account.usage, account.quota, account.applied),
            ids,
            applied: account.applied,
            taken: account.applied,
            planned: Planned::default(),
            pending: Pending::default(),
            in_flight: InFlight::default(),
            copied: BTreeMap::new(),
            torn: Vec::new(),
            unwanted: Vec::new(),
        }
    }

    pub(crate) fn applied(&self) -> Seq {
        self.applied
    }

    /// Whether the batch is so large that it should be committed at once.
    pub(crate) fn is_large(&self) -> bool {
        self.pending.is_large()
    }

    /// The session's share of the disk.
    pub(crate) fn room_mut(&mut self) -> &mut Share {
        &mut self.room
    }

    pub(crate) fn numbers_mut(&mut self) -> &mut Numbers {
        &mut self.ids
    }

    /// Raises the quota. It is never lowered within a session: the client may have sent ops that it
    /// checked against the higher quota, and these must not fail afterwards. The client keeps to a
    /// lower quota from the moment it learns of it, and the next session begins with it.
    pub(crate) fn raise_quota(&mut self, quota: Quota) {
        let held = self.table.quota();
        self.table.set_quota(Quota {
            bytes: held.bytes.max(quota.bytes),
            nodes: held.nodes.max(quota.nodes),
        });
    }

    /// Sets the quota, even to a lower one, for a tree whose ops no client has checked beforehand.
    pub(crate) fn set_quota(&mut self, quota: Quota) {
        self.table.set_quota(quota);
    }

    /// Takes a batch of all changes since the last one. None if there are no changes.
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
            next_id: self.ids.next(),
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

    /// Notes that the batch taken last was not committed and never will be.
    pub(crate) fn withdraw(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.pending.created.extend(in_flight.created);
        self.pending.touched.extend(in_flight.touched);
    }

    /// Returns the contents with changes that were not committed. To be called when no batch is in
    /// a commit any more. If a commit failed, contents that its batch created may be durable,
    /// whatever the database shows now. They are left to the sweep at the next start.
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

    /// Returns the file data of the node in `free`, if the table knows the node and it still has
    /// that content.
    fn owner(&self, free: &Free) -> Option<FileData> {
        let Loaded::Present(node) = self.table.node(free.ino) else { return None };
        node.file().filter(|data| data.content == Some(free.content)).cloned()
    }
}

/// Rows, as they pass between the table and the store.
impl Tree {
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// Looks up a node as of the last op applied.
    ///
    /// # Errors
    /// If it must be loaded first.
    pub(crate) fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, Vec<Need>> {
        known(self.table.node(ino), || Need::Node(ino))
    }

    /// Looks up an entry as of the last op applied.
    ///
    /// # Errors
    /// If it must be loaded first.
    pub(crate) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, Vec<Need>> {
        known(self.table.entry(parent, name), || Need::Entry(parent, name.clone()))
    }

    /// Looks up a delivery that waits for this user as of the last op applied.
    ///
    /// # Errors
    /// If it must be loaded first.
    pub(crate) fn delivery(&self, id: DeliveryId) -> Result<Option<Arc<Delivery>>, Vec<Need>> {
        known(self.table.delivery(id), || Need::Delivery(id))
    }

    /// Fills loaded rows into the table. A row that the table knows already is kept, because it is
    /// at least as new.
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

    /// Unloads durable rows if all loaded rows together take too much memory.
    pub(crate) fn trim(&mut self) {
        self.table.trim(self.share.bytes());
    }

    /// Returns the rows that changed since the last batch was taken. A row that the table no longer
    /// knows was removed with its directory.
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

/// Returns a row, or the need to load it.
fn known<T>(row: Loaded<T>, need: impl FnOnce() -> Need) -> Result<Option<T>, Vec<Need>> {
    match row {
        Loaded::Present(row) => Ok(Some(row)),
        Loaded::Absent => Ok(None),
        Loaded::Unknown => Err(vec![need()]),
    }
}

/// Returns the parts of `free` in which its node has no data. The node must be the content's only
/// owner.
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
