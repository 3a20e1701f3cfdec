//! Finding the small files that a program will read next.
//!
//! [`super::walk`] says how much to fetch. Here the tree is searched for it, in the order in which a
//! program sees directories. Only what is loaded is searched: directories are not loaded for this.

use std::sync::Arc;

use xfer_protocol::tree::{FileData, Node, Rows};
use xfer_protocol::{ContentId, Ino, Name};

use crate::core::state::Core;

/// The largest file that counts as small, in bytes: one that is read with one question.
const SMALL_BYTES_MAX: u64 = 128 << 10;

/// How many files are fetched ahead at a time.
const FILES_MAX: usize = 512;

/// How many entries are looked at for them.
const ENTRIES_MAX: usize = 4096;

/// How many directories are gone up, and into, for them. That keeps the search finite too if a server
/// says that directories are in each other.
const LEVELS_MAX: usize = 64;

/// Entries in directories larger than this are not put in order.
const DIRECTORY_ENTRIES_MAX: u64 = 16_384;

impl Core {
    /// Orders what a program will read next, if it reads small files one after another. To be
    /// told of each read at the start of a file, and whether it waits.
    pub(in crate::core) fn walk_on(&mut self, ino: Ino, data: &FileData, waits: bool) {
        let Some(content) = data.content.filter(|_| data.size <= SMALL_BYTES_MAX) else { return };
        let bytes = self.data.walk.note(content, waits).min(self.data.cache.bytes_max() as u64 / 8);
        if bytes == 0 {
            return;
        }
        let files = self.files_after(ino, bytes);
        for (ino, content, data) in &files {
            self.order(*ino, *content, data, 0..data.size);
        }
        self.data.walk.guess(files.iter().map(|(_, content, _)| *content));
    }

    /// Small files that a walk comes to after `ino`, with data that is neither known nor on its
    /// way, up to so many bytes.
    fn files_after(&self, ino: Ino, bytes: u64) -> Vec<Ahead> {
        let mut search = Search { core: self, bytes, entries: ENTRIES_MAX, found: Vec::new() };
        let (mut inside, mut place) = (self.handles.directory_of(ino), ino);
        for _ in 0..LEVELS_MAX {
            let Some(directory) = inside.filter(|_| !search.is_over()) else { break };
            let (mut before, after) = search.around(directory, place);
            search.visit(after, 0);
            if place == ino {
                // A program that sorts its reads will soon want the directory's other files.
                before.retain(|ino| self.known_node(*ino).is_some_and(|node| !node.is_directory()));
                search.visit(before, 0);
            }
            place = directory;
            inside = self.known_node(directory).and_then(|node| node.parent());
            inside = inside.filter(|parent| *parent != directory);
        }
        search.found
    }
}

/// A file to fetch.
type Ahead = (Ino, ContentId, FileData);

/// A walk over what is known of the tree, in the order in which directories are read.
struct Search<'a> {
    core: &'a Core,
    /// How many bytes of files may still be found.
    bytes: u64,
    /// How many entries may still be looked at.
    entries: usize,
    found: Vec<Ahead>,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.bytes == 0 || self.entries == 0 || self.found.len() >= FILES_MAX
    }

    /// What is in a directory before and behind one of its nodes; all is behind one that is gone.
    fn around(&self, directory: Ino, ino: Ino) -> (Vec<Ino>, Vec<Ino>) {
        let mut before = self.listing(directory);
        let place = before.iter().position(|child| *child == ino);
        let after = before.split_off(place.map_or(0, |place| place + 1));
        before.pop();
        (before, after)
    }

    fn listing(&self, directory: Ino) -> Vec<Ino> {
        let small = |node: &Arc<Node>| node.entries() <= DIRECTORY_ENTRIES_MAX;
        let node = self.core.known_node(directory).filter(small);
        let children =
            node.and_then(|_| self.core.replica.table.children(directory)).unwrap_or_default();
        let place = |(name, ino): (Name, Ino)| (self.core.handles.cookie(&name), ino);
        let mut children: Vec<(u64, Ino)> = children.into_iter().map(place).collect();
        children.sort_unstable();
        children.into_iter().map(|(_, ino)| ino).collect()
    }

    fn visit(&mut self, inos: Vec<Ino>, level: usize) {
        for ino in inos {
            if self.is_over() || level > LEVELS_MAX {
                return;
            }
            self.entries -= 1;
            match self.core.known_node(ino) {
                Some(node) if node.is_directory() => self.visit(self.listing(ino), level + 1),
                Some(node) => self.add(ino, &node),
                None => {}
            }
        }
    }

    fn add(&mut self, ino: Ino, node: &Node) {
        let Some(data) = node.file().filter(|data| data.size <= SMALL_BYTES_MAX) else { return };
        let Some(content) = data.content else { return };
        let mut runs = data.extents.data_in(data.size, 0..data.size).into_iter();
        if runs.any(|run| !self.core.data.cache.wanted(content, run).is_empty()) {
            self.bytes = self.bytes.saturating_sub(data.size);
            self.found.push((ino, content, data.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use xfer_protocol::Timestamp;
    use xfer_protocol::tree::{Kind, Xattrs};

    use super::*;
    use crate::core::tests::core;

    /// A core that knows empty directories, each in the one that is named.
    fn core_with(directories: &[(u64, u64)]) -> Core {
        let mut core = core();
        for (ino, parent) in directories {
            let time = Timestamp::default();
            let kind = Kind::Directory { parent: Ino(*parent), entries: 0, name_bytes: 0 };
            let node = Node {
                kind,
                mode: 0o755,
                uid: 0,
                gid: 0,
                nlink: 2,
                atime: time,
                mtime: time,
                ctime: time,
                xattrs: Xattrs::None,
                sent: None,
            };
            core.replica.table.fill_node(Ino(*ino), Some(node));
            core.replica.table.fill_complete(Ino(*ino));
        }
        core
    }

    #[test]
    fn directories_that_are_said_to_be_in_each_other_do_not_hold_the_search_up() {
        let mut core = core_with(&[(10, 11), (11, 12), (12, 11)]);
        core.handles.remember(Ino(9), Ino(10));
        assert!(core.files_after(Ino(9), 1 << 20).is_empty());
    }
}
