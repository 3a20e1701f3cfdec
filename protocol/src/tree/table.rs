//! The loaded rows of one tree: the client's replica, and the server's working state.
//!
//! A row is *known* (present or absent) or not loaded. What is known is never older than what any
//! store or peer can say, since only this tree's log changes it: so filling in what was fetched
//! never overrides what is known. Rows that changed stay until they are *settled* (durable at the
//! server); only settled rows can be unloaded.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{Changes, Delivery, DeliveryEffect, Loaded, Node, Quota, Rows, Usage};
use crate::{DeliveryId, Ino, Name, Seq};

/// The name of a row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Row {
    /// A node.
    Node(Ino),
    /// An entry of a directory.
    Entry(Ino, Name),
}

/// Rows of one tree, with the op that changed each last.
#[derive(Debug)]
pub struct Table {
    nodes: HashMap<Ino, NodeRow>,
    directories: HashMap<Ino, Directory>,
    /// How many entries all directories hold, absent ones included.
    entries: usize,
    deliveries: HashMap<DeliveryId, DeliveryRow>,
    usage: Usage,
    quota: Quota,
    /// Changes that are not settled, oldest first.
    unsettled: VecDeque<(Seq, Row)>,
    settled: Seq,
    unloadings: u64,
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
    /// `None` for a name known to be absent.
    entries: BTreeMap<Name, (Option<Ino>, Seq)>,
    /// Whether every entry is loaded, so that any other name is absent.
    complete: bool,
}

impl Table {
    /// A table with nothing loaded, whose tree's log is settled up to `settled`.
    pub fn new(usage: Usage, quota: Quota, settled: Seq) -> Table {
        Table {
            nodes: HashMap::new(),
            directories: HashMap::new(),
            entries: 0,
            deliveries: HashMap::new(),
            usage,
            quota,
            unsettled: VecDeque::new(),
            settled,
            unloadings: 0,
        }
    }

    /// Makes the changes of op `seq`, which [`super::plan`] worked out from this very table.
    pub fn commit(&mut self, changes: &Changes, seq: Seq) {
        for (ino, node) in &changes.nodes {
            let row = NodeRow { node: node.clone(), changed: seq };
            let before = self.nodes.insert(*ino, row).and_then(|row| row.node);
            self.unsettled.push_back((seq, Row::Node(*ino)));
            match node {
                Some(node) if before.is_none() && node.is_directory() => {
                    self.directories.entry(*ino).or_default().complete = true;
                }
                // The tombstones of a directory that goes are still to be settled.
                Some(_) | None => {}
            }
        }
        for (parent, name, ino) in &changes.entries {
            let directory = self.directories.entry(*parent).or_default();
            let before = directory.entries.insert(name.clone(), (*ino, seq));
            self.entries += usize::from(before.is_none());
            self.unsettled.push_back((seq, Row::Entry(*parent, name.clone())));
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

    /// Fills in a fetched node, unless it is known.
    pub fn fill_node(&mut self, ino: Ino, node: Option<Node>) {
        let changed = Seq::default();
        self.nodes.entry(ino).or_insert_with(|| NodeRow { node: node.map(Arc::new), changed });
    }

    /// Fills in a fetched entry, unless it is known.
    pub fn fill_entry(&mut self, parent: Ino, name: Name, ino: Option<Ino>) {
        let directory = self.directories.entry(parent).or_default();
        if !directory.complete {
            directory.entries.entry(name).or_insert_with(|| {
                self.entries += 1;
                (ino, Seq::default())
            });
        }
    }

    /// Notes that all entries of a directory were filled in.
    pub fn fill_complete(&mut self, parent: Ino) {
        self.directories.entry(parent).or_default().complete = true;
    }

    /// Fills in a fetched delivery, unless it is known.
    pub fn fill_delivery(&mut self, id: DeliveryId, delivery: Option<Arc<Delivery>>) {
        let changed = Seq::default();
        self.deliveries.entry(id).or_insert(DeliveryRow { delivery, changed });
    }

    /// Sets the quota anew.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Whether all entries of a directory are known.
    pub fn is_complete(&self, directory: Ino) -> bool {
        self.directories.get(&directory).is_some_and(|directory| directory.complete)
    }

    /// What is known of a directory's entries after a name, in order of names; a name that is known
    /// to be absent comes with `None`.
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

    /// The op that changed a node last, as far as known; 0 if it did not change since it was loaded.
    pub fn changed(&self, ino: Ino) -> Seq {
        self.nodes.get(&ino).map_or(Seq::default(), |row| row.changed)
    }

    /// The rows that ops after `after` changed, each once.
    pub fn changed_rows(&self, after: Seq) -> HashSet<Row> {
        let start = self.unsettled.partition_point(|(seq, _)| *seq <= after);
        self.unsettled.range(start..).map(|(_, row)| row.clone()).collect()
    }

    /// Notes that all ops up to `seq` are durable.
    pub fn settle(&mut self, seq: Seq) {
        self.settle_rows(seq, Tombstones::Needed);
    }

    /// The same, for whoever has the store at hand and nothing under way that was asked for before:
    /// what is absent from now on is absent from the store, and need not be remembered.
    pub fn settle_in_store(&mut self, seq: Seq) {
        self.settle_rows(seq, Tombstones::InStore);
    }

    /// Unloads settled rows until about `rows_max` rows are left, or no more can go.
    pub fn trim(&mut self, rows_max: usize) {
        if self.len() <= rows_max {
            return;
        }
        let settled = |row: &&NodeRow| row.changed <= self.settled;
        let mut old: Vec<Ino> =
            self.nodes.iter().filter(|(_, row)| settled(row)).map(|(ino, _)| *ino).collect();
        while self.len() > rows_max {
            let Some(ino) = old.pop() else { break };
            self.unload(ino);
        }
        // Whoever changes a directory changes its node: without the node, the entries are settled.
        let nodes = &self.nodes;
        self.directories.retain(|ino, _| nodes.contains_key(ino));
        self.count_entries();
        if self.len() > rows_max {
            self.unload_settled_entries();
        }
        let settled = self.settled;
        self.deliveries.retain(|_, row| row.changed > settled);
        self.unloadings += 1;
    }

    /// Unloads a node and, if it is a directory, its listing, unless changes of it are not settled.
    pub fn unload(&mut self, ino: Ino) {
        if self.changed(ino) <= self.settled {
            self.nodes.remove(&ino);
            self.remove_directory(ino);
            self.unloadings += 1;
        }
    }

    /// Rises with every unloading. What was asked for over a network before one, and comes after
    /// it, must not be filled in: it may be older than what was known and has been unloaded.
    pub fn unloadings(&self) -> u64 {
        self.unloadings
    }

    /// How many nodes and entries are loaded.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.entries
    }

    /// Whether nothing is loaded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn settle_rows(&mut self, seq: Seq, tombstones: Tombstones) {
        self.settled = self.settled.max(seq);
        while self.unsettled.front().is_some_and(|(changed, _)| *changed <= seq) {
            if let Some((_, row)) = self.unsettled.pop_front() {
                self.drop_tombstone(&row, tombstones);
            }
        }
    }

    fn drop_tombstone(&mut self, row: &Row, tombstones: Tombstones) {
        let settled = self.settled;
        match row {
            Row::Node(ino) => {
                let gone = |row: &NodeRow| row.node.is_none() && row.changed <= settled;
                if self.nodes.get(ino).is_some_and(gone) {
                    self.nodes.remove(ino);
                    self.remove_directory(*ino);
                }
            }
            Row::Entry(parent, name) => {
                let Some(directory) = self.directories.get_mut(parent) else { return };
                let gone = |entry: &(Option<Ino>, Seq)| entry.0.is_none() && entry.1 <= settled;
                let needed = match tombstones {
                    Tombstones::Needed => !directory.complete,
                    Tombstones::InStore => false,
                };
                if !needed && directory.entries.get(name).is_some_and(gone) {
                    directory.entries.remove(name);
                    self.entries -= 1;
                }
            }
        }
    }

    fn remove_directory(&mut self, ino: Ino) {
        if let Some(directory) = self.directories.remove(&ino) {
            self.entries -= directory.entries.len();
        }
    }

    /// Unloads entries of directories that have some that are not settled.
    fn unload_settled_entries(&mut self) {
        let settled = self.settled;
        for directory in self.directories.values_mut() {
            let before = directory.entries.len();
            directory.entries.retain(|_, (_, changed)| *changed > settled);
            directory.complete &= directory.entries.len() == before;
        }
        self.count_entries();
    }

    fn count_entries(&mut self) {
        self.entries = self.directories.values().map(|directory| directory.entries.len()).sum();
    }
}

/// What becomes of names that are known to be absent, and settled, in a directory that is not
/// loaded as a whole.
#[derive(Clone, Copy)]
enum Tombstones {
    /// They stay: an answer that is under way may still show the name.
    Needed,
    /// They go: the store has no such name either.
    InStore,
}

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
        match directory.entries.get(name) {
            Some((Some(ino), _)) => Loaded::Present(*ino),
            Some((None, _)) => Loaded::Absent,
            None if directory.complete => Loaded::Absent,
            None => Loaded::Unknown,
        }
    }

    fn children(&self, parent: Ino) -> Option<Vec<(Name, Ino)>> {
        let directory = self.directories.get(&parent).filter(|directory| directory.complete)?;
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
