//! The kernel's knowledge of the tree: the nodes that it knows, the names by which it found them, and
//! the names that it takes for absent.
//!
//! The kernel keeps all of this without a time limit, and drops what it likes without saying so, except
//! for nodes. So everything here is what it *may* keep.

use std::collections::{BTreeMap, BTreeSet};

use xfer_protocol::{Ino, Name};

/// The most names that the kernel may keep as absent.
const ABSENT_MAX: usize = 100_000;

/// A name in a directory.
pub(in crate::core) type Entry = (Ino, Name);

/// A node that the kernel knows.
#[derive(Debug)]
struct Known {
    /// The answers that named it to the kernel, less those that the kernel has taken back.
    lookups: u64,
    /// The directory in which the kernel last found it.
    directory: Ino,
    /// The name by which it found it there, unless that was removed.
    name: Option<Name>,
    /// Other names by which it found it. Few nodes have any.
    others: BTreeSet<Entry>,
    /// Whether it may keep the node's data, listing or target.
    has_contents: bool,
}

/// What the kernel may keep.
#[derive(Debug, Default)]
pub(in crate::core) struct KernelKnowledge {
    nodes: BTreeMap<Ino, Known>,
    absent: BTreeSet<Entry>,
}

impl KernelKnowledge {
    /// Counts one more answer that named a node to the kernel: by its name in the directory, or by its
    /// number if that is `None`.
    pub(in crate::core) fn remember(&mut self, ino: Ino, directory: Ino, name: Option<&Name>) {
        let known = self.nodes.entry(ino).or_insert(Known {
            lookups: 0,
            directory,
            name: None,
            others: BTreeSet::new(),
            has_contents: false,
        });
        known.lookups += 1;
        match name {
            Some(name) => known.find_at(directory, name),
            None if known.name.is_none() => known.directory = directory,
            None => {}
        }
    }

    /// Notes that the kernel has moved a name.
    pub(in crate::core) fn moved(&mut self, ino: Ino, from: &Entry, to: &Entry) {
        if let Some(known) = self.nodes.get_mut(&ino) {
            known.lose(from);
            known.find_at(to.0, &to.1);
        }
    }

    /// Notes that the kernel has removed a name of a node.
    pub(in crate::core) fn removed(&mut self, ino: Ino, entry: &Entry) {
        if let Some(known) = self.nodes.get_mut(&ino) {
            known.lose(entry);
        }
    }

    /// Notes that the kernel may keep a node's data, listing or target from now on.
    pub(in crate::core) fn note_contents(&mut self, ino: Ino) {
        if let Some(known) = self.nodes.get_mut(&ino) {
            known.has_contents = true;
        }
    }

    /// Takes back `count` answers. True if the kernel no longer knows the node.
    pub(in crate::core) fn forget(&mut self, ino: Ino, count: u64) -> bool {
        let Some(known) = self.nodes.get_mut(&ino) else { return true };
        known.lookups = known.lookups.saturating_sub(count);
        let gone = known.lookups == 0;
        if gone {
            self.nodes.remove(&ino);
        }
        gone
    }

    /// Notes that the kernel is told that a name is absent. False if it must not keep that, because
    /// there is no room to note it and so no way to take it back.
    pub(in crate::core) fn remember_absent(&mut self, directory: Ino, name: &Name) -> bool {
        let entry = (directory, name.clone());
        let fits = self.absent.len() < ABSENT_MAX || self.absent.contains(&entry);
        if fits {
            self.absent.insert(entry);
        }
        fits
    }

    /// The directory in which the kernel last found a node.
    pub(in crate::core) fn directory_of(&self, ino: Ino) -> Option<Ino> {
        self.nodes.get(&ino).map(|known| known.directory)
    }

    /// Whether the kernel knows a node.
    pub(in crate::core) fn knows(&self, ino: Ino) -> bool {
        self.nodes.contains_key(&ino)
    }

    /// All nodes that the kernel knows, except the root, which it always knows.
    pub(in crate::core) fn nodes(&self) -> impl Iterator<Item = Ino> {
        self.nodes.keys().copied()
    }

    /// The nodes whose data, listings or targets it may keep.
    pub(in crate::core) fn with_contents(&self) -> impl Iterator<Item = Ino> {
        self.nodes.iter().filter(|(_, known)| known.has_contents).map(|(ino, _)| *ino)
    }

    /// The names that it may keep as absent.
    pub(in crate::core) fn absent(&self) -> impl Iterator<Item = &Entry> {
        self.absent.iter()
    }

    /// The names under which it may keep nodes.
    pub(in crate::core) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.nodes.values().flat_map(|known| {
            let latest = known.name.clone().map(|name| (known.directory, name));
            latest.into_iter().chain(known.others.iter().cloned())
        })
    }

    /// Notes that it keeps no absent name and no contents any more.
    pub(in crate::core) fn clear(&mut self) {
        self.absent.clear();
        self.nodes.values_mut().for_each(|known| known.has_contents = false);
    }
}

impl Known {
    fn find_at(&mut self, directory: Ino, name: &Name) {
        let before = self.name.take().map(|before| (self.directory, before));
        if let Some(before) = before.filter(|(at, before)| (*at, before) != (directory, name)) {
            self.others.insert(before);
        }
        self.others.remove(&(directory, name.clone()));
        (self.directory, self.name) = (directory, Some(name.clone()));
    }

    fn lose(&mut self, entry: &Entry) {
        if self.directory == entry.0 && self.name.as_ref() == Some(&entry.1) {
            self.name = None;
        }
        self.others.remove(entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(directory: u64, name: &str) -> Entry {
        (Ino(directory), Name::new(name.as_bytes()).unwrap())
    }

    #[test]
    fn the_kernel_keeps_a_node_under_each_name_that_it_was_found_by_until_that_is_removed_or_moved()
    {
        let mut known = KernelKnowledge::default();
        let [a, b, c] = [entry(1, "a"), entry(2, "b"), entry(3, "c")];
        for (directory, name) in [&a, &b, &a] {
            known.remember(Ino(9), *directory, Some(name));
        }
        known.remember(Ino(9), Ino(7), None);
        let entries = |known: &KernelKnowledge| known.entries().collect::<BTreeSet<_>>();
        assert!(entries(&known).contains(&b));
        known.moved(Ino(9), &b, &c);
        assert!(!entries(&known).contains(&b) && entries(&known).contains(&c));
        known.removed(Ino(9), &c);
        assert!(!entries(&known).contains(&c));
        assert!(!known.forget(Ino(9), 3));
        assert!(known.forget(Ino(9), 1));
        assert!(entries(&known).is_empty());
    }

    #[test]
    fn an_absent_name_that_can_not_be_noted_is_not_kept() {
        let mut known = KernelKnowledge::default();
        let name = |n: usize| Name::new(n.to_string().as_bytes()).unwrap();
        assert!((0..ABSENT_MAX).all(|n| known.remember_absent(Ino(1), &name(n))));
        assert!(!known.remember_absent(Ino(2), &name(0)));
        assert!(known.remember_absent(Ino(1), &name(0)), "it is noted already");
        known.clear();
        assert!(known.remember_absent(Ino(2), &name(0)));
    }
}
