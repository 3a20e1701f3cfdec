//! The replica: the rows of the tree that are loaded, within a limit of memory.

use xfer_protocol::tree::Table;

/// Loaded rows.
#[derive(Debug)]
pub(in crate::core) struct Replica {
    pub(in crate::core) table: Table,
    /// The memory limit of rows that the server has too, in bytes.
    bytes_max: usize,
    /// How many operations need all that is loaded, however much it is.
    holds: usize,
}

impl Replica {
    pub(in crate::core) fn new(table: Table, bytes_max: usize) -> Replica {
        Replica { table, bytes_max, holds: 0 }
    }

    /// Unloads rows that the server has too, if all rows take more memory than they may.
    pub(in crate::core) fn trim(&mut self) {
        if self.holds == 0 {
            self.table.trim(self.bytes_max);
        }
    }

    /// Keeps all rows that are loaded, until [`Replica::release`].
    pub(in crate::core) fn hold(&mut self) {
        self.holds += 1;
    }

    /// Takes one [`Replica::hold`] back.
    pub(in crate::core) fn release(&mut self) {
        self.holds -= 1;
        self.trim();
    }
}
