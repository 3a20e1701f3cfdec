//! Rows of a replica after others have changed the tree.

use std::sync::Arc;

use super::{Node, Quota, Table, Usage};
use crate::{Ino, Seq};

impl Table {
    /// Forgets a node and its listing, which others may have changed. Pins stay.
    pub fn forget(&mut self, ino: Ino) {
        self.remove_row(ino);
    }

    /// Forgets all nodes and listings. Pins stay.
    pub fn forget_all(&mut self) {
        self.nodes.clear();
        self.directories.clear();
        self.tombstones.clear();
        self.bytes = 0;
    }

    /// Goes on from op `applied` of others. All rows that others may have changed are forgotten by then,
    /// and so are changes that are not durable.
    pub fn rebase(&mut self, usage: Usage, quota: Quota, applied: Seq) {
        (self.usage, self.quota, self.durable) = (usage, quota, applied);
        self.volatile.clear();
        self.deliveries.clear();
        self.left = 0;
        // Answers to earlier questions must not be added.
        self.unloadings += 1;
    }

    /// The nodes that are known to exist.
    pub fn known_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().filter_map(|row| row.node.as_ref())
    }

    /// The nodes that stay loaded.
    pub fn pinned(&self) -> impl Iterator<Item = Ino> {
        self.pinned.keys().copied()
    }
}
