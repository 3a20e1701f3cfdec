//! The loaded rows of one tree: the client's replica, and the server's working state.
//!
//! A row is *known* (present or absent) or not loaded. Known rows are never older than any store's
//! or peer's, since only this tree's log changes them. So fetched rows never override known ones. A
//! changed row stays until it is *durable* (durable at the server); only durable rows can be
//! unloaded.

mod returning;
mod unloading;
mod weight;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{Changes, Delivery, DeliveryEffect, Loaded, Node, Quota, Rows, Usage, Xattrs};
use crate::{DeliveryId, Ino, Name, Seq};

/// Identifies a row.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Row {
    /// A node.
    Node(Ino),
    /// An entry of a directory.
    Entry(Ino, Name),
}

/// Rows of one tree, each with the op that changed it last.
#[derive(Debug)]
pub struct Table {
    nodes: BTreeMap<Ino, NodeRow>,
    directories: BTreeMap<Ino, Directory>,
    deliveries: BTreeMap<DeliveryId, DeliveryRow>,
    /// The memory that nodes and directories take, in bytes.
    bytes: usize,
    usage: Usage,
    quota: Quota,
    /// Changes that are not durable, oldest first.
    volatile: VecDeque<(Seq, Row)>,
    /// Nodes whose removal is durable, and that are still known to be absent.
    tombstones: Vec<Ino>,
    durable: Seq,
    /// Nodes that stay loaded, with their listings, and how many pins each has.
    pinned: BTreeMap<Ino, usize>,
    unloadings: u64,
    /// The memory left after the last trimming, in bytes, for as long as another can't free more.
    left: usize,
}

#[derive(Debug)]
struct DeliveryRow {
    delivery: Option<Arc<Delivery>>,
    changed: Seq,
}

#[derive(Debug)]
struct NodeRow {
    node: Option<Arc<Node>>,
    changed: Seq,
}

#[derive(Debug, Default)]
struct Directory {
    /// `None` marks a name that is known to be absent.
    entries: BTreeMap<Name, (Option<Ino>, Seq)>,
    /// Whether every entry is loaded, so that any other name is absent.
    complete: bool,
    /// Whether it was read since listings were last unloaded.
    used: Cell<bool>,
}

impl Table {
    /// A table with nothing loaded, whose tree's log is durable up to `durable`.
    pub fn new(usage: Usage, quota: Quota, durable: Seq) -> Table {
        Table {
            nodes: BTreeMap::new(),
            directories: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            bytes: 0,
            usage,
            quota,
            volatile: VecDeque::new(),
            tombstones: Vec::new(),
            durable,
            pinned: BTreeMap::new(),
            unloadings: 0,
            left: 0,
        }
    }

    /// Applies the changes of op `seq`, which [`super::plan`] worked out from this very table.
    pub fn apply(&mut self, changes: &Changes, seq: Seq) {
        for (ino, node) in &changes.nodes {
            let existed = matches!(self.node(*ino), Loaded::Present(_));
            self.insert_node(*ino, NodeRow { node: node.clone(), changed: seq });
            self.volatile.push_back((seq, Row::Node(*ino)));
            match node {
                Some(node) if !existed && node.is_directory() => {
                    self.directory_mut(*ino).complete = true;
                }
                // A removed directory keeps its tombstones until they are durable.
                Some(_) | None => {}
            }
        }
        for (parent, name, ino) in &changes.entries {
            let directory = self.directory_mut(*parent);
            if directory.entries.insert(name.clone(), (*ino, seq)).is_none() {
                self.bytes += weight::of_entry(name);
            }
            self.volatile.push_back((seq, Row::Entry(*parent, name.clone())));
        }
        for effect in &changes.deliveries {
            match effect {
                DeliveryEffect::Sent { .. } => {}
                DeliveryEffect::Accepted(id) | DeliveryEffect::Declined(id) => {
                    self.deliveries.insert(*id, DeliveryRow { delivery: None, changed: seq });
                }
            }
        }
        self.usage = changes.usage;
    }

    /// Adds a fetched node, unless the row is known.
    pub fn fill_node(&mut self, ino: Ino, node: Option<Node>) {
        if !self.nodes.contains_key(&ino) {
            self.insert_node(ino, NodeRow { node: node.map(Arc::new), changed: Seq::default() });
        }
    }

    /// Adds the fetched attributes of a node that was loaded without them. They are still current,
    /// since any change of them would have needed to load them.
    pub fn fill_xattrs(&mut self, ino: Ino, xattrs: Xattrs) {
        let Some(row) = self.nodes.get_mut(&ino) else { return };
        let Some(node) = &mut row.node else { return };
        if matches!(node.xattrs, Xattrs::LeftOut { .. }) {
            let before = weight::of_node(Some(node));
            Arc::make_mut(node).xattrs = xattrs;
            self.bytes = self.bytes + weight::of_node(Some(node)) - before;
        }
    }

    /// Adds a fetched entry, unless the row is known.
    pub fn fill_entry(&mut self, parent: Ino, name: Name, ino: Option<Ino>) {
        let directory = self.directory_mut(parent);
        if !directory.complete && !directory.entries.contains_key(&name) {
            let bytes = weight::of_entry(&name);
            directory.entries.insert(name, (ino, Seq::default()));
            self.bytes += bytes;
        }
    }

    /// Notes that all entries of a directory have been added.
    pub fn fill_complete(&mut self, parent: Ino) {
        self.directory_mut(parent).complete = true;
    }

    /// Adds a fetched delivery, unless it is known.
    pub fn fill_delivery(&mut self, id: DeliveryId, delivery: Option<Arc<Delivery>>) {
        let changed = Seq::default();
        self.deliveries.entry(id).or_insert(DeliveryRow { delivery, changed });
    }

    /// Sets the quota, after a change by the server.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Whether all entries of a directory are known.
    pub fn is_complete(&self, directory: Ino) -> bool {
        self.directories.get(&directory).is_some_and(|directory| directory.complete)
    }

    /// The known entries of a directory after a name, in order of names. A name that is known to be
    /// absent comes with `None`.
    pub fn known_entries(
        &self,
        directory: Ino,
        after: Option<&Name>,
    ) -> impl Iterator<Item = (&Name, Option<Ino>)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.directories
            .get(&directory)
            .into_iter()
            .flat_map(move |known| known.entries.range::<Name, _>((start, Bound::Unbounded)))
            .map(|(name, (ino, _))| (name, *ino))
    }

    /// The loaded entries that refer to a node. All loaded entries are looked through.
    pub fn find_entries(&self, ino: Ino) -> impl Iterator<Item = (Ino, Name)> {
        self.directories.iter().flat_map(move |(parent, directory)| {
            let entries = directory.entries.iter();
            let found = entries.filter(move |(_, (at, _))| *at == Some(ino));
            found.map(|(name, _)| (*parent, name.clone()))
        })
    }

    /// The op that last changed a node, as far as known; 0 if it is unchanged since it was loaded.
    pub fn changed(&self, ino: Ino) -> Seq {
        self.nodes.get(&ino).map_or(Seq::default(), |row| row.changed)
    }

    /// The rows that ops after `after` changed, each once.
    pub fn changed_rows(&self, after: Seq) -> BTreeSet<Row> {
        let start = self.volatile.partition_point(|(seq, _)| *seq <= after);
        self.volatile.range(start..).map(|(_, row)| row.clone()).collect()
    }

    /// Marks all ops up to `seq` as durable.
    pub fn mark_durable(&mut self, seq: Seq) {
        self.mark_rows_durable(seq, Tombstones::Needed);
    }

    /// The same, for an owner that reads the store directly and has no earlier answer in flight.
    /// Settled absences are dropped, since the store has no such rows either.
    pub fn mark_durable_in_store(&mut self, seq: Seq) {
        self.mark_rows_durable(seq, Tombstones::InStore);
    }

    fn insert_node(&mut self, ino: Ino, row: NodeRow) {
        self.bytes += weight::of_node(row.node.as_deref());
        if let Some(before) = self.nodes.insert(ino, row) {
            self.bytes -= weight::of_node(before.node.as_deref());
        }
    }

    fn remove_node(&mut self, ino: Ino) {
        if let Some(row) = self.nodes.remove(&ino) {
            self.bytes -= weight::of_node(row.node.as_deref());
        }
    }

    /// The directory's listing, created if this is the first that is known of it.
    fn directory_mut(&mut self, ino: Ino) -> &mut Directory {
        self.directories.entry(ino).or_insert_with(|| {
            self.bytes += weight::OF_DIRECTORY;
            Directory::default()
        })
    }

    fn remove_directory(&mut self, ino: Ino) {
        if let Some(directory) = self.directories.remove(&ino) {
            let entries = directory.entries.keys().map(weight::of_entry);
            self.bytes -= weight::OF_DIRECTORY + entries.sum::<usize>();
        }
    }

    fn mark_rows_durable(&mut self, seq: Seq, tombstones: Tombstones) {
        if seq > self.durable {
            self.durable = seq;
            self.left = 0;
        }
        while self.volatile.front().is_some_and(|(changed, _)| *changed <= seq) {
            if let Some((_, row)) = self.volatile.pop_front() {
                self.drop_tombstone(&row, tombstones);
            }
        }
    }

    /// Whether a node's removal is durable.
    fn is_gone(&self, ino: Ino) -> bool {
        let gone = |row: &NodeRow| row.node.is_none() && row.changed <= self.durable;
        self.nodes.get(&ino).is_some_and(gone)
    }

    fn keep_tombstone(&mut self, ino: Ino) {
        self.tombstones.push(ino);
        if self.tombstones.len() >= TOMBSTONES_MAX {
            self.drop_tombstones();
            self.unloadings += 1;
        }
    }

    fn drop_tombstones(&mut self) {
        for ino in std::mem::take(&mut self.tombstones) {
            if self.is_gone(ino) {
                self.remove_row(ino);
            }
        }
    }

    fn remove_row(&mut self, ino: Ino) {
        self.remove_node(ino);
        self.remove_directory(ino);
    }

    fn drop_tombstone(&mut self, row: &Row, tombstones: Tombstones) {
        let durable = self.durable;
        match row {
            Row::Node(ino) if self.is_gone(*ino) => match tombstones {
                Tombstones::Needed => self.keep_tombstone(*ino),
                Tombstones::InStore => self.remove_row(*ino),
            },
            Row::Node(_) => {}
            Row::Entry(parent, name) => {
                let Some(directory) = self.directories.get_mut(parent) else { return };
                let gone = |entry: &(Option<Ino>, Seq)| entry.0.is_none() && entry.1 <= durable;
                let needed = match tombstones {
                    Tombstones::Needed => !directory.complete,
                    Tombstones::InStore => false,
                };
                if !needed && directory.entries.get(name).is_some_and(gone) {
                    directory.entries.remove(name);
                    self.bytes -= weight::of_entry(name);
                }
            }
        }
    }
}

/// What happens to nodes, and to names in a directory that is not completely loaded, that are known to
/// be absent, once that is durable.
#[derive(Clone, Copy)]
enum Tombstones {
    /// They stay, until rows are unloaded: an answer in flight may still show them.
    Needed,
    /// They are dropped: the store has no such rows either.
    InStore,
}

/// The most removed nodes that are known to be absent. At worst, questions that are in flight are asked
/// again once in so many removals.
const TOMBSTONES_MAX: usize = 4096;

impl Rows for Table {
    fn node(&self, ino: Ino) -> Loaded<Arc<Node>> {
        match self.nodes.get(&ino) {
            Some(NodeRow { node: Some(node), .. }) => Loaded::Present(node.clone()),
            Some(NodeRow { node: None, .. }) => Loaded::Absent,
            None => Loaded::Unknown,
        }
    }

    fn entry(&self, parent: Ino, name: &Name) -> Loaded<Ino> {
        let Some(directory) = self.directories.get(&parent) else { return Loaded::Unknown };
        directory.used.set(true);
        match directory.entries.get(name) {
            Some((Some(ino), _)) => Loaded::Present(*ino),
            Some((None, _)) => Loaded::Absent,
            None if directory.complete => Loaded::Absent,
            None => Loaded::Unknown,
        }
    }

    fn children(&self, parent: Ino) -> Option<Vec<(Name, Ino)>> {
        let directory = self.directories.get(&parent).filter(|directory| directory.complete)?;
        directory.used.set(true);
        let present =
            |(name, (ino, _)): (&Name, &(Option<Ino>, Seq))| Some((name.clone(), (*ino)?));
        Some(directory.entries.iter().filter_map(present).collect())
    }

    fn delivery(&self, id: DeliveryId) -> Loaded<Arc<Delivery>> {
        match self.deliveries.get(&id) {
            Some(DeliveryRow { delivery: Some(delivery), .. }) => Loaded::Present(delivery.clone()),
            Some(DeliveryRow { delivery: None, .. }) => Loaded::Absent,
            None => Loaded::Unknown,
        }
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn quota(&self) -> Quota {
        self.quota
    }
}
