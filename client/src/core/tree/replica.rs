//! The replica: the loaded rows of the tree, within a memory limit.
//!
//! It does not load rows. [`super::filling`] puts in those that the server sent.

use std::collections::BTreeSet;

use xfer_protocol::Ino;
use xfer_protocol::tree::Table;

#[derive(Debug)]
pub(in crate::core) struct Replica {
    pub(in crate::core) table: Table,
    /// The memory limit of rows that the server has too, in bytes.
    bytes_max: usize,
    /// Nodes that may have no name, and whose removal was cut off.
    pub(in crate::core) unremoved: BTreeSet<Ino>,
    /// The operations that need all loaded rows kept. While there are any, nothing is unloaded.
    holds: usize,
}

impl Replica {
    pub(in crate::core) fn new(table: Table, bytes_max: usize) -> Replica {
        Replica { table, bytes_max, unremoved: BTreeSet::new(), holds: 0 }
    }

    /// Unloads rows that the server has too, if all rows take more memory than they may.
    pub(in crate::core) fn trim(&mut self) {
        if self.holds == 0 {
            self.table.trim(self.bytes_max);
        }
    }

    /// Keeps all loaded rows until [`Replica::release`].
    pub(in crate::core) fn hold(&mut self) {
        self.holds += 1;
    }

    /// Ends one [`Replica::hold`].
    pub(in crate::core) fn release(&mut self) {
        self.holds -= 1;
        self.trim();
    }
}
