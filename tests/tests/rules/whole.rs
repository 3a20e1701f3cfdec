//! The rules on a table with the whole tree always loaded: the reference for unloading and for the
//! two sides.

use std::collections::BTreeSet;
use std::sync::Arc;

use xfer_protocol::tree::{
    Action, Changes, Delivery, Loaded, Node, Op, PlanError, Quota, Rows, Table, Usage, plan,
};
use xfer_protocol::{DeliveryId, Errno, Ino, Name, Seq, Timestamp};

/// The tree of one user.
pub struct Whole {
    table: Table,
    inos: BTreeSet<Ino>,
    seq: Seq,
}

impl Whole {
    /// A tree with these nodes, and these names in its root.
    pub fn new(fixtures: &[(Ino, Node)], names: &[(Name, Ino)], quota: Quota) -> Whole {
        let usage = Usage { bytes: 0, nodes: fixtures.len() as u64 };
        let mut table = Table::new(usage, quota, Seq::default());
        names.iter().for_each(|(name, ino)| table.fill_entry(Ino::ROOT, name.clone(), Some(*ino)));
        for (ino, node) in fixtures {
            table.fill_node(*ino, Some(node.clone()));
            table.fill_complete(*ino);
        }
        let inos = fixtures.iter().map(|(ino, _)| *ino).collect();
        Whole { table, inos, seq: Seq::default() }
    }

    /// Makes a copy of it.
    pub fn copy(&self) -> Whole {
        let mut table = Table::new(self.table.usage(), self.table.quota(), self.seq);
        for ino in &self.inos {
            let node = self.node(*ino).expect("it is listed");
            if node.is_directory() {
                for (name, child) in self.entries(*ino) {
                    table.fill_entry(*ino, name, Some(child));
                }
                table.fill_complete(*ino);
            }
            table.fill_node(*ino, Some(Arc::unwrap_or_clone(node)));
        }
        Whole { table, inos: self.inos.clone(), seq: self.seq }
    }

    /// Applies op `seq`.
    pub fn apply(
        &mut self,
        seq: Seq,
        op: &Op,
        delivery: Option<(DeliveryId, Arc<Delivery>)>,
    ) -> Result<Changes, Errno> {
        if let Some((id, delivery)) = delivery {
            self.table.fill_delivery(id, Some(delivery));
        }
        let changes = self.plan(op)?;
        self.commit(&changes, seq);
        Ok(changes)
    }

    /// The error with which the rules refuse an op under this quota, if they do.
    pub fn refusal(&mut self, action: &Action, quota: Quota) -> Option<Errno> {
        let largest = self.table.quota();
        self.table.set_quota(quota);
        let planned = self.plan(&Op { time: Timestamp::default(), action: action.clone() });
        self.table.set_quota(largest);
        planned.err()
    }

    /// Removes orphans: open files go with their session.
    pub fn forget_orphans(&mut self) {
        for ino in self.orphans() {
            let action = Action::ForgetOrphan { ino };
            let changes = self.plan(&Op { time: Timestamp::default(), action });
            self.commit(&changes.expect("an orphan can be forgotten"), self.seq);
        }
    }

    /// The nodes without a name.
    pub fn orphans(&self) -> Vec<Ino> {
        let nameless = |ino: &Ino| self.node(*ino).is_some_and(|node| node.nlink == 0);
        self.inos.iter().copied().filter(nameless).collect()
    }

    /// The numbers of all nodes.
    pub fn inos(&self) -> impl Iterator<Item = Ino> {
        self.inos.iter().copied()
    }

    /// A node, if it exists.
    pub fn node(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.table.node(ino) {
            Loaded::Present(node) => Some(node),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }

    /// The node that an entry refers to.
    pub fn entry(&self, parent: Ino, name: &Name) -> Option<Ino> {
        match self.table.entry(parent, name) {
            Loaded::Present(ino) => Some(ino),
            Loaded::Absent => None,
            Loaded::Unknown => panic!("{parent:?}/{name} in a tree that is all loaded"),
        }
    }

    /// All entries of a directory.
    pub fn entries(&self, directory: Ino) -> Vec<(Name, Ino)> {
        self.table.children(directory).expect("all is loaded")
    }

    /// The usage, as the rules counted it.
    pub fn usage(&self) -> Usage {
        self.table.usage()
    }

    /// The usage, recounted.
    pub fn recount(&self) -> Usage {
        let nodes = self.inos.iter().filter_map(|ino| self.node(*ino));
        let bytes = nodes.map(|node| node.charge()).sum();
        Usage { bytes, nodes: self.inos.len() as u64 }
    }

    /// The contents that the tree refers to.
    pub fn contents(&self) -> impl Iterator<Item = xfer_protocol::ContentId> {
        self.inos.iter().filter_map(|ino| self.node(*ino)?.content())
    }

    fn plan(&self, op: &Op) -> Result<Changes, Errno> {
        match plan(&self.table, op) {
            Ok(changes) => Ok(changes),
            Err(PlanError::Refused(errno)) => Err(errno),
            Err(PlanError::Need(need)) => panic!("{need:?} in a tree that is all loaded: {op:?}"),
        }
    }

    fn commit(&mut self, changes: &Changes, seq: Seq) {
        for (ino, node) in &changes.nodes {
            match node {
                Some(_) => self.inos.insert(*ino),
                None => self.inos.remove(ino),
            };
        }
        self.table.apply(changes, seq);
        self.table.mark_durable_in_store(seq);
        self.seq = seq;
    }
}
