//! Loading directories from the store, a bounded part at a time.

use std::collections::VecDeque;

use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::tree::{Rows, Xattrs};
use xfer_protocol::{Ino, Name};
use xfer_store::{Listing, StoreError};

use super::{LOADED_AT_ONCE, Tree};

impl Tree {
    /// Loads all entries of a directory, with their nodes.
    pub(super) fn load_children(&mut self, directory: Ino) -> Result<(), StoreError> {
        let mut after: Option<Name> = None;
        loop {
            let Listing { rows, last } =
                self.stores.meta.list(self.account, directory, after.as_ref(), LOADED_AT_ONCE)?;
            after = rows.last().map(|(name, _, _)| name.clone()).or(after);
            for (name, ino, node) in rows {
                match node.xattrs {
                    Xattrs::None | Xattrs::All(_) => self.table.fill_node(ino, Some(node)),
                    Xattrs::LeftOut { .. } => self.load_node(ino)?,
                }
                self.table.fill_entry(directory, name, Some(ino));
            }
            if last {
                self.table.fill_complete(directory);
                return Ok(());
            }
        }
    }

    /// Loads a directory and those within it, as far as one delivery can hold them.
    pub(super) fn load_subtree(&mut self, root: Ino) -> Result<(), StoreError> {
        let mut waiting = VecDeque::from([root]);
        let mut count = 0;
        while let Some(directory) = waiting.pop_front().filter(|_| count <= DELIVERY_ITEMS_MAX) {
            // The rules never ask for more than they could send, but a directory within may hold more.
            let entries = self.node(directory)?.map_or(0, |node| node.entries());
            if directory != root && entries > DELIVERY_ITEMS_MAX as u64 {
                continue;
            }
            if !self.table.is_complete(directory) {
                self.load_children(directory)?;
            }
            for (_, ino) in self.table.children(directory).unwrap_or_default() {
                count += 1;
                if self.node(ino)?.is_some_and(|node| node.is_directory()) {
                    waiting.push_back(ino);
                }
            }
        }
        Ok(())
    }
}
