//! Unloading rows, so that what is known of a tree has a bound in memory.
//!
//! What is loaded together goes together: a listing with the nodes in it. One that was looked at
//! since the last time is spared at first ("second chance"), one that is *pinned* always.

use super::{Table, weight};
use crate::{Ino, Seq};

impl Table {
    /// Unloads settled rows if all rows take more than `bytes_max`, until they take a fourth less,
    /// or no more can go.
    pub fn trim(&mut self, bytes_max: usize) {
        // Where too little can go, looking at all rows again pays only after a while.
        self.left = self.left.min(self.bytes);
        let too_early = self.bytes < self.left.saturating_add(bytes_max / 4);
        if self.bytes <= bytes_max || too_early {
            return;
        }
        let target = bytes_max / 4 * 3;
        self.unload_listings(target, |used| !used);
        self.directories.values().for_each(|directory| directory.used.set(false));
        self.unload_listings(target, |_| true);
        self.unload_nodes(target);
        let settled = self.settled;
        self.deliveries.retain(|_, row| row.changed > settled);
        self.unloadings += 1;
        self.left = self.bytes;
    }

    /// Unloads a node and, if it is a directory, its listing, unless changes of it are not settled
    /// or it is pinned.
    pub fn unload(&mut self, ino: Ino) {
        if self.may_unload(ino) {
            self.remove_node(ino);
            self.remove_directory(ino);
            self.unloadings += 1;
        }
    }

    /// Keeps a node and, if it is a directory, what is known of its entries, until
    /// [`Table::unpin`], however much that is.
    pub fn pin(&mut self, ino: Ino) {
        *self.pinned.entry(ino).or_default() += 1;
    }

    /// Takes one [`Table::pin`] back.
    pub fn unpin(&mut self, ino: Ino) {
        let Some(pins) = self.pinned.get_mut(&ino) else { return };
        *pins -= 1;
        if *pins == 0 {
            self.pinned.remove(&ino);
            self.left = 0;
        }
    }

    /// Rises with every unloading. What was asked for over a network before one, and comes after
    /// it, must not be filled in: it may be older than what was known and has been unloaded.
    pub fn unloadings(&self) -> u64 {
        self.unloadings
    }

    /// About how much memory all rows take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many nodes and entries are loaded.
    pub fn len(&self) -> usize {
        let entries = self.directories.values().map(|directory| directory.entries.len());
        self.nodes.len() + entries.sum::<usize>()
    }

    /// Whether nothing is loaded.
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

    /// Unloads a directory's settled entries, with the nodes they name.
    fn unload_listing(&mut self, ino: Ino) {
        let settled = self.settled;
        // Of a directory that was just made, nobody else can say yet that it is empty.
        let is_settled = self.changed(ino) <= settled;
        let Some(directory) = self.directories.get_mut(&ino) else { return };
        let (mut freed, mut nodes) = (0, Vec::new());
        directory.entries.retain(|name, (ino, changed)| {
            let stays = *changed > settled;
            if !stays {
                freed += weight::of_entry(name);
                nodes.extend(*ino);
            }
            stays
        });
        directory.complete &= freed == 0;
        let is_empty = directory.entries.is_empty();
        self.bytes -= freed;
        if is_empty && (is_settled || !directory.complete) {
            self.remove_directory(ino);
        }
        nodes.into_iter().for_each(|ino| self.unload_node(ino));
    }

    /// Unloads nodes that are in no listing that could go.
    fn unload_nodes(&mut self, target: usize) {
        let settled = |changed: Seq| changed <= self.settled;
        let candidates = self.nodes.iter().filter(|(_, row)| settled(row.changed));
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
        self.changed(ino) <= self.settled && !self.pinned.contains_key(&ino)
    }
}
