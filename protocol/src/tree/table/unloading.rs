//! Unloads rows, so that the known part of a tree has a bound in memory.
//!
//! Rows that are loaded together go together: a listing with the nodes in it. A listing that was
//! read since the last time is spared once ("second chance"), a *pinned* one always.

use super::{Table, weight};
use crate::{Ino, Seq};

impl Table {
    /// Unloads durable rows if all rows take more than `bytes_max`, until they take a quarter less,
    /// or no more can go.
    pub fn trim(&mut self, bytes_max: usize) {
        // If too little could go last time, another scan pays off only after some growth.
        self.left = self.left.min(self.bytes);
        let too_early = self.bytes < self.left.saturating_add(bytes_max / 4);
        if self.bytes <= bytes_max || too_early {
            return;
        }
        let target = bytes_max / 4 * 3;
        self.drop_tombstones();
        self.unload_listings(target, |used| !used);
        self.directories.values().for_each(|directory| directory.used.set(false));
        self.unload_listings(target, |_| true);
        self.unload_nodes(target);
        let durable = self.durable;
        self.deliveries.retain(|_, row| row.changed > durable);
        self.unloadings += 1;
        self.left = self.bytes;
    }

    /// Unloads a node and, if it is a directory, its listing, unless it is pinned or has changes
    /// that are not durable.
    pub fn unload(&mut self, ino: Ino) {
        if self.may_unload(ino) {
            self.remove_row(ino);
            self.unloadings += 1;
        }
    }

    /// Keeps a node and, if it is a directory, the known entries until [`Table::unpin`], whatever
    /// their size.
    pub fn pin(&mut self, ino: Ino) {
        *self.pinned.entry(ino).or_default() += 1;
    }

    /// Undoes one [`Table::pin`].
    pub fn unpin(&mut self, ino: Ino) {
        let Some(pins) = self.pinned.get_mut(&ino) else { return };
        *pins -= 1;
        if *pins == 0 {
            self.pinned.remove(&ino);
            self.left = 0;
        }
    }

    /// A counter that every unloading raises. An answer requested before an unloading must not be
    /// added after it: it may be older than a row that was known and has been unloaded.
    pub fn unloadings(&self) -> u64 {
        self.unloadings
    }

    /// The approximate memory that all rows take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of loaded nodes and entries.
    pub fn len(&self) -> usize {
        let entries = self.directories.values().map(|directory| directory.entries.len());
        self.nodes.len() + entries.sum::<usize>()
    }

    /// Whether no row is loaded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn unload_listings(&mut self, target: usize, may_go: impl Fn(bool) -> bool) {
        let candidates = self.directories.iter().filter(|(ino, directory)| {
            may_go(directory.used.get()) && !self.pinned.contains_key(ino)
        });
        let candidates: Vec<Ino> = candidates.map(|(ino, _)| *ino).collect();
        for ino in candidates {
            if self.bytes <= target {
                break;
            }
            self.unload_listing(ino);
        }
    }

    /// Unloads a directory's durable entries, with the nodes they name.
    fn unload_listing(&mut self, ino: Ino) {
        let durable = self.durable;
        // No store can confirm yet that a directory just made is empty.
        let is_durable = self.changed(ino) <= durable;
        let Some(directory) = self.directories.get_mut(&ino) else { return };
        let (mut freed, mut nodes) = (0, Vec::new());
        directory.entries.retain(|name, (ino, changed)| {
            let stays = *changed > durable;
            if !stays {
                freed += weight::of_entry(name);
                nodes.extend(*ino);
            }
            stays
        });
        directory.complete &= freed == 0;
        let is_empty = directory.entries.is_empty();
        self.bytes -= freed;
        if is_empty && (is_durable || !directory.complete) {
            self.remove_directory(ino);
        }
        nodes.into_iter().for_each(|ino| self.unload_node(ino));
    }

    /// Unloads nodes that no listing would unload.
    fn unload_nodes(&mut self, target: usize) {
        let durable = |changed: Seq| changed <= self.durable;
        let candidates = self.nodes.iter().filter(|(_, row)| durable(row.changed));
        let candidates: Vec<Ino> = candidates.map(|(ino, _)| *ino).collect();
        for ino in candidates {
            if self.bytes <= target {
                break;
            }
            self.unload_node(ino);
        }
    }

    fn unload_node(&mut self, ino: Ino) {
        if self.may_unload(ino) {
            self.remove_node(ino);
        }
    }

    fn may_unload(&self, ino: Ino) -> bool {
        self.changed(ino) <= self.durable && !self.pinned.contains_key(&ino)
    }
}
