//! Finding the small files that a program will read next.
//!
//! [`super::walk`] decides when and how much to fetch. Here the tree is searched for files, in the
//! order in which a program sees directories. Only loaded rows are searched, and none are loaded
//! for this.

use std::sync::Arc;

use xfer_protocol::tree::{FileData, Node, Rows};
use xfer_protocol::{ContentId, Ino, Name};

use crate::core::state::Core;

/// The largest small file, in bytes. It is read with one question.
const SMALL_BYTES_MAX: u64 = 128 << 10;

/// The most files that one search finds.
const FILES_MAX: usize = 512;

/// The most entries that one search looks at.
const ENTRIES_MAX: usize = 4096;

/// The most levels that a search goes up, and the most that it goes down. They also bound the
/// search if a server says that directories contain each other.
const LEVELS_MAX: usize = 64;

/// Larger directories are not searched, since their entries would have to be sorted each time.
const DIRECTORY_ENTRIES_MAX: u64 = 16_384;

impl Core {
    /// Orders the files that a program will read next, if it reads small files one after another.
    /// Must be called for each read at the start of a file. `waits` says whether that read has to
    /// wait.
    pub(in crate::core) fn walk_on(&mut self, ino: Ino, data: &FileData, waits: bool) {
        let Some(content) = data.content.filter(|_| data.size <= SMALL_BYTES_MAX) else { return };
        // At most an eighth of the cache, so that a wrong guess does not evict much.
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

    /// The small files that a walk reaches after `ino`, about `bytes` in all. Each has data that is
    /// neither known nor being fetched.
    fn files_after(&self, ino: Ino, bytes: u64) -> Vec<Ahead> {
        let mut search = Search { core: self, bytes, entries: ENTRIES_MAX, found: Vec::new() };
        let (mut inside, mut place) = (self.handles.kernel.directory_of(ino), ino);
        // First the rest of the directory with `ino` in it, then the rest of that one's parent
        // after it, and so on upwards.
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
            // The root is its own parent.
            inside = inside.filter(|parent| *parent != directory);
        }
        search.found
    }
}

/// A file to fetch.
type Ahead = (Ino, ContentId, FileData);

/// A search of the loaded rows, in the order in which directories are read.
struct Search<'a> {
    core: &'a Core,
    /// The bytes of files that may still be found.
    bytes: u64,
    /// The entries that may still be looked at.
    entries: usize,
    found: Vec<Ahead>,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.bytes == 0 || self.entries == 0 || self.found.len() >= FILES_MAX
    }

    /// The nodes in a directory before and after one of its nodes. If that one is gone, all count
    /// as after it.
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
        core.handles.kernel.remember(Ino(9), Ino(10), None);
        assert!(core.files_after(Ino(9), 1 << 20).is_empty());
    }
}
