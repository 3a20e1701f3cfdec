//! What was changed and is not known to be on the disk.
//!
//! Everything noted gets a stamp. A sync covers what was stamped before it began, so it clears no
//! stamp that is younger, and others may go on changing things meanwhile.
//!
//! A failure that a sync is told of may be that of a content which it was not asked for. Such contents
//! are marked as lost, and the next time that one of them is to be made durable, it fails.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xfer_protocol::ContentId;

use super::shards::{Directory, ShardPath};
use crate::StoreError;

/// The moment of a change: later ones have higher numbers.
pub(super) type Stamp = u64;

/// The contents for which a sync failed.
pub(super) type Failures = HashMap<ContentId, StoreError>;

/// Directories and contents that must be synced.
#[derive(Default)]
pub(super) struct Unsynced {
    now: Stamp,
    directories: HashMap<Directory, Stamp>,
    contents: HashMap<ContentId, Change>,
    /// Contents of which a sync has lost something, which nobody was told.
    lost: HashSet<ContentId>,
}

/// A content's changes that must be synced.
#[derive(Default)]
struct Change {
    /// The moment of the last.
    stamp: Stamp,
    /// Whether the descriptor for one of them was closed.
    closed: bool,
}

impl Unsynced {
    /// Notes that a file or directory was made in `directory`.
    pub(super) fn note_directory(&mut self, directory: Directory) {
        self.now += 1;
        self.directories.insert(directory, self.now);
    }

    /// Notes a change of a content.
    pub(super) fn note_content(&mut self, content: ContentId) {
        self.now += 1;
        self.contents.entry(content).or_default().stamp = self.now;
    }

    /// Notes that a content's descriptor is closed.
    pub(super) fn note_closed(&mut self, content: ContentId) {
        if let Some(change) = self.contents.get_mut(&content) {
            change.closed = true;
        }
    }

    /// Whether a content's descriptor was closed since a change that must be synced.
    pub(super) fn was_closed(&self, content: ContentId) -> bool {
        self.contents.get(&content).is_some_and(|change| change.closed)
    }

    /// Notes that a content is no more.
    pub(super) fn forget(&mut self, content: ContentId) {
        self.contents.remove(&content);
        self.lost.remove(&content);
    }

    /// Begins a sync of `contents`: says which of them must be synced, and of which an earlier sync
    /// has lost something.
    pub(super) fn begin(&mut self, contents: &[ContentId]) -> (Stamp, Vec<ContentId>, Failures) {
        let changed = contents.iter().filter(|content| self.contents.contains_key(content));
        let changed = changed.copied().collect();
        let lost = contents.iter().filter(|content| self.lost.remove(content));
        let failure = |content: &ContentId| StoreError::Io {
            what: format!("syncing content {content}, which a sync has lost data of"),
            error: Arc::new(rustix::io::Errno::IO.into()),
        };
        (self.now, changed, lost.map(|content| (*content, failure(content))).collect())
    }

    /// All contents that must be synced.
    pub(super) fn contents(&self) -> Vec<ContentId> {
        self.contents.keys().copied().collect()
    }

    /// The directories to be synced so that `contents` can be found.
    pub(super) fn directories_of(&self, contents: &[ContentId]) -> Vec<Directory> {
        let places = contents.iter().map(|content| ShardPath::of(*content));
        let all = places.flat_map(|place| [Directory::Root, place.top(), place.leaf()]);
        let unsynced: HashSet<_> = all.filter(|dir| self.directories.contains_key(dir)).collect();
        unsynced.into_iter().collect()
    }

    /// A sync of `directory` that began at `start` is done.
    pub(super) fn directory_synced(&mut self, directory: Directory, start: Stamp) {
        if self.directories.get(&directory).is_some_and(|stamp| *stamp <= start) {
            self.directories.remove(&directory);
        }
    }

    /// A sync of these contents that began at `start` is done. Those that failed are done with, too:
    /// whoever asked was told.
    pub(super) fn contents_synced(
        &mut self,
        contents: &[ContentId],
        start: Stamp,
        failures: &Failures,
    ) {
        for content in contents {
            let is_synced = |change: &Change| change.stamp <= start;
            if failures.contains_key(content) || self.contents.get(content).is_some_and(is_synced) {
                self.contents.remove(content);
            }
        }
    }

    /// A sync of everything that began at `start` is done.
    pub(super) fn all_synced(&mut self, start: Stamp) {
        self.directories.retain(|_, stamp| *stamp > start);
        self.contents.retain(|_, change| change.stamp > start);
    }

    /// A sync has lost something of these contents, which whoever asked for it is not told.
    pub(super) fn note_lost(&mut self, contents: impl IntoIterator<Item = ContentId>) {
        self.lost.extend(contents);
    }

    /// A sync of `directory` failed, which whoever has changed `told` is told.
    pub(super) fn directory_failed(&mut self, directory: Directory, told: &[ContentId]) {
        let others = self.contents.keys().filter(|content| directory.leads_to(**content));
        self.lost.extend(others.filter(|content| !told.contains(content)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: ContentId = ContentId(1);
    const B: ContentId = ContentId(2);

    #[test]
    fn what_changes_during_a_sync_must_be_synced_again() {
        let mut unsynced = Unsynced::default();
        unsynced.note_directory(Directory::Root);
        unsynced.note_content(A);
        let (start, changed, _) = unsynced.begin(&[A, B]);
        assert_eq!(changed, [A]);
        unsynced.note_directory(Directory::Root);
        unsynced.note_content(A);
        unsynced.directory_synced(Directory::Root, start);
        unsynced.contents_synced(&[A], start, &Failures::new());
        assert_eq!(unsynced.directories_of(&[A]), [Directory::Root]);
        let (start, changed, _) = unsynced.begin(&[A]);
        assert_eq!(changed, [A]);
        unsynced.all_synced(start);
        assert_eq!(unsynced.directories_of(&[A]), []);
        assert_eq!(unsynced.contents(), []);
    }

    #[test]
    fn what_a_sync_lost_of_others_is_told_once_to_each_of_them() {
        let mut unsynced = Unsynced::default();
        unsynced.note_content(A);
        unsynced.note_lost([B]);
        assert!(unsynced.begin(&[A]).2.is_empty());
        assert!(unsynced.begin(&[B]).2.contains_key(&B));
        assert!(unsynced.begin(&[B]).2.is_empty());
    }

    #[test]
    fn a_closed_descriptor_is_remembered_until_the_change_is_synced() {
        let mut unsynced = Unsynced::default();
        unsynced.note_closed(A);
        assert!(!unsynced.was_closed(A), "it had no change");
        unsynced.note_content(A);
        unsynced.note_closed(A);
        unsynced.note_content(A);
        assert!(unsynced.was_closed(A), "one of its changes");
        let (start, ..) = unsynced.begin(&[A]);
        unsynced.all_synced(start);
        unsynced.note_content(A);
        assert!(!unsynced.was_closed(A));
    }

    #[test]
    fn a_failed_sync_of_a_directory_is_told_to_each_who_has_something_there() {
        const FAR: ContentId = ContentId(1 << 16);
        let mut unsynced = Unsynced::default();
        for content in [A, B, FAR] {
            unsynced.note_content(content);
        }
        unsynced.directory_failed(ShardPath::of(A).leaf(), &[A]);
        assert!(unsynced.begin(&[A]).2.is_empty());
        assert!(unsynced.begin(&[B, FAR]).2.into_keys().eq([B]));
        unsynced.directory_failed(Directory::Root, &[A]);
        assert!(unsynced.begin(&[FAR]).2.contains_key(&FAR));
    }
}
