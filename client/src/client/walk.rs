//! Fetching ahead for programs that read one small file after another, as `grep -r` and `cp -r` do.
//!
//! Readahead within a file does nothing for them: each file would cost a round trip. So once reads
//! of small files wait one after the other, what the program will come to next is fetched with
//! them. Guesses are checked by what is read of them: wrong ones make it slow to guess again.
//!
//! Directories are not loaded for this: only files in those that are known are fetched.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use xfer_protocol::tree::{FileData, Loaded, Node, Rows};
use xfer_protocol::{ContentId, Ino, Name};

use super::state::State;

/// The largest file that counts as small, in bytes: one that is read with one question.
const SMALL_BYTES_MAX: u64 = 128 << 10;

/// How much is fetched ahead at first, and at most, in bytes.
const WINDOW_BYTES: RangeInclusive<u64> = (64 << 10)..=(1 << 20);

/// How many files are fetched ahead at a time.
const FILES_MAX: usize = 512;

/// How many entries are looked at for them.
const ENTRIES_MAX: usize = 4096;

/// How many directories are gone up, and into, for them. That keeps the search finite too if a server
/// says that directories are in each other.
const LEVELS_MAX: usize = 64;

/// Entries in directories larger than this are not put in order.
const DIRECTORY_ENTRIES_MAX: u64 = 16_384;

/// How many reads may have to wait, one after the other, before a guess is made after wrong ones.
const PATIENCE_MAX: u32 = 64;

/// How well guessing went so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Contents that were fetched ahead and not read yet.
    ahead: HashSet<ContentId>,
    /// How many were fetched the last time.
    guessed: usize,
    /// How much to fetch, in bytes.
    window: u64,
    /// Reads that waited, since the last guess.
    misses: u32,
    /// How many of those a guess takes, less one.
    patience: u32,
}

impl Walk {
    /// Notes that a small file is read from its start, and whether that has to wait. Returns how
    /// many bytes of other files to fetch now.
    fn note(&mut self, content: ContentId, waits: bool) -> u64 {
        if self.ahead.remove(&content) {
            if self.most_are_unread() {
                return 0;
            }
            // The next ones are asked for before the last have been read.
            self.patience = 0;
            return self.widen();
        }
        if !waits {
            return 0;
        }
        if self.most_are_unread() {
            self.ahead.clear();
            self.window = 0;
            self.misses = 0;
            self.patience = (self.patience * 2).clamp(1, PATIENCE_MAX);
        }
        self.misses += 1;
        if self.misses > self.patience.max(1) { self.widen() } else { 0 }
    }

    fn most_are_unread(&self) -> bool {
        self.ahead.len() * 2 > self.guessed
    }

    fn widen(&mut self) -> u64 {
        self.window = (self.window * 2).clamp(*WINDOW_BYTES.start(), *WINDOW_BYTES.end());
        self.window
    }

    /// Notes what is fetched ahead.
    fn guess(&mut self, contents: impl Iterator<Item = ContentId>) {
        self.ahead.extend(contents);
        self.guessed = self.ahead.len();
        self.misses = 0;
    }
}

impl State {
    /// Orders what a program will read next, if it reads small files one after another. To be
    /// told of each read at the start of a file, and whether it waits.
    pub(super) fn walk_on(&mut self, ino: Ino, data: &FileData, waits: bool) {
        let Some(content) = data.content.filter(|_| data.size <= SMALL_BYTES_MAX) else { return };
        let bytes = self.walk.note(content, waits).min(self.cache.bytes_max() as u64 / 8);
        if bytes == 0 {
            return;
        }
        let files = self.files_after(ino, bytes);
        for (ino, content, data) in &files {
            self.order(*ino, *content, data, 0..data.size);
        }
        self.walk.guess(files.iter().map(|(_, content, _)| *content));
    }

    /// Small files that a walk comes to after `ino`, with data that is neither known nor on its
    /// way, up to so many bytes.
    fn files_after(&self, ino: Ino, bytes: u64) -> Vec<Ahead> {
        let mut search = Search { state: self, bytes, entries: ENTRIES_MAX, found: Vec::new() };
        let (mut inside, mut place) = (self.handles.directory_of(ino), ino);
        for _ in 0..LEVELS_MAX {
            let Some(directory) = inside.filter(|_| !search.is_over()) else { break };
            let (mut before, after) = search.around(directory, place);
            search.visit(after, 0);
            if place == ino {
                // Who sorts what it reads comes to the others of the directory too.
                before.retain(|ino| self.known(*ino).is_some_and(|node| !node.is_directory()));
                search.visit(before, 0);
            }
            place = directory;
            inside = self.known(directory).and_then(|node| node.parent());
            inside = inside.filter(|parent| *parent != directory);
        }
        search.found
    }

    fn known(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.table.node(ino) {
            Loaded::Present(node) => Some(node),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }
}

/// A file to fetch.
type Ahead = (Ino, ContentId, FileData);

/// A walk over what is known of the tree, in the order in which directories are read.
struct Search<'a> {
    state: &'a State,
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
        let node = self.state.known(directory).filter(small);
        let children = node.and_then(|_| self.state.table.children(directory)).unwrap_or_default();
        let place = |(name, ino): (Name, Ino)| (self.state.handles.place(&name), ino);
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
            match self.state.known(ino) {
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
        if runs.any(|run| !self.state.cache.wanted(content, run).is_empty()) {
            self.bytes = self.bytes.saturating_sub(data.size);
            self.found.push((ino, content, data.clone()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use xfer_protocol::message::{Grant, Secret};
    use xfer_protocol::tree::{Kind, Quota, Room, Usage, Xattrs};
    use xfer_protocol::{Epoch, IdRange, Seq, SessionId, Timestamp};

    use super::super::{Ids, Options};
    use super::*;

    /// Reads files one after the other, of which those that `ahead` names were fetched.
    fn read(walk: &mut Walk, contents: std::ops::Range<u64>) -> Vec<u64> {
        contents.map(|content| walk.note(ContentId(content), true)).collect()
    }

    fn guess(walk: &mut Walk, contents: std::ops::Range<u64>) {
        walk.guess(contents.map(ContentId));
    }

    /// A state that knows empty directories, each in the one that is named.
    fn state_with(directories: &[(u64, u64)]) -> State {
        let grant = Grant {
            session: SessionId([0; 16]),
            secret: Secret([0; 32]),
            epoch: Epoch(1),
            applied: Seq(0),
            user: Name::new(b"alice").unwrap(),
            ids: IdRange { first: 5000, end: 6000 },
            usage: Usage::default(),
            quota: Quota::UNLIMITED,
            disk: Room::default(),
            limit: Room::default(),
            users: Vec::new(),
            deliveries: Vec::new(),
        };
        let (ids, bytes) = (Ids::Stored, 1 << 20);
        let (cache_bytes, log_bytes, tree_bytes) = (bytes, bytes, bytes);
        let label = String::new();
        let options = Options { cache_bytes, log_bytes, tree_bytes, ids, label };
        let mut state = State::new(&grant, &options);
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
            state.table.fill_node(Ino(*ino), Some(node));
            state.table.fill_complete(Ino(*ino));
        }
        state
    }

    #[test]
    fn directories_that_are_said_to_be_in_each_other_do_not_hold_the_search_up() {
        let mut state = state_with(&[(10, 11), (11, 12), (12, 11)]);
        state.handles.remember(Ino(9), Ino(10));
        assert!(state.files_after(Ino(9), 1 << 20).is_empty());
    }

    #[test]
    fn one_file_is_no_walk() {
        assert_eq!(read(&mut Walk::default(), 0..1), [0]);
    }

    #[test]
    fn the_second_file_that_waits_begins_a_walk_and_the_window_grows_as_guesses_come_true() {
        let mut walk = Walk::default();
        assert_eq!(read(&mut walk, 0..2), [0, 64 << 10]);
        guess(&mut walk, 2..6);
        // Half of them are read: time for more.
        assert_eq!(read(&mut walk, 2..4), [0, 128 << 10]);
        guess(&mut walk, 6..10);
        let windows: Vec<u64> = (0..6).map(|_| walk.widen()).collect();
        assert!(windows.is_sorted());
        assert_eq!(windows.last(), Some(WINDOW_BYTES.end()));
    }

    #[test]
    fn what_is_known_already_is_no_reason_to_guess() {
        let mut walk = Walk::default();
        assert!((0..100).all(|content| walk.note(ContentId(content), false) == 0));
    }

    #[test]
    fn whoever_reads_files_at_random_gets_ever_fewer_guesses() {
        let mut walk = Walk::default();
        let mut guesses = Vec::new();
        for content in 0..1000 {
            if walk.note(ContentId(content), true) > 0 {
                guesses.push(content);
                guess(&mut walk, 10_000 + 10 * content..10_010 + 10 * content);
            }
        }
        let gaps: Vec<u64> = guesses.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(guesses.len() < 30, "{guesses:?}");
        assert!(gaps.last() > gaps.first(), "{gaps:?}");
    }
}
