//! Changes that are not known to be on the disk.
//!
//! Every change gets a stamp. A sync covers the changes stamped before it began and clears no later
//! stamp, so other threads may go on changing contents meanwhile.
//!
//! A sync may report the failure of a content that it was not asked for. Such contents are marked
//! as lost, and the next attempt to make one of them durable fails.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xfer_protocol::ContentId;

use super::shards::{Directory, ShardPath};
use crate::StoreError;

/// The logical time of a change: later changes have higher numbers.
pub(super) type Stamp = u64;

/// The contents whose sync failed, with the reasons.
pub(super) type Failures = HashMap<ContentId, StoreError>;

/// The directories and contents that must be synced.
#[derive(Default)]
pub(super) struct Unsynced {
    now: Stamp,
    directories: HashMap<Directory, Stamp>,
    contents: HashMap<ContentId, Change>,
    /// Contents that lost data in a sync, which was not reported to any caller yet.
    lost: HashSet<ContentId>,
}

/// The unsynced changes of one content.
#[derive(Default)]
struct Change {
    /// The stamp of the last change.
    stamp: Stamp,
    /// Whether the descriptor of one of the changes was closed.
    closed: bool,
}

impl Unsynced {
    /// Notes that a file or directory was created in `directory`.
    pub(super) fn note_directory(&mut self, directory: Directory) {
        self.now += 1;
        self.directories.insert(directory, self.now);
    }

    /// Notes a change of a content.
    pub(super) fn note_content(&mut self, content: ContentId) {
        self.now += 1;
        self.contents.entry(content).or_default().stamp = self.now;
    }

    /// Notes that a content's descriptor was closed.
    pub(super) fn note_closed(&mut self, content: ContentId) {
        if let Some(change) = self.contents.get_mut(&content) {
            change.closed = true;
        }
    }

    /// Whether a content's descriptor was closed since a change that must be synced.
    pub(super) fn was_closed(&self, content: ContentId) -> bool {
        self.contents.get(&content).is_some_and(|change| change.closed)
    }

    /// Forgets a content that was removed.
    pub(super) fn forget(&mut self, content: ContentId) {
        self.contents.remove(&content);
        self.lost.remove(&content);
    }

    /// Begins a sync of `contents`: returns those that must be synced, and those that lost data in
    /// an earlier sync.
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

    /// The directories that must be synced so that `contents` can be found.
    pub(super) fn directories_of(&self, contents: &[ContentId]) -> Vec<Directory> {
        let places = contents.iter().map(|content| ShardPath::of(*content));
        let all = places.flat_map(|place| [Directory::Root, place.top(), place.leaf()]);
        let unsynced: HashSet<_> = all.filter(|dir| self.directories.contains_key(dir)).collect();
        unsynced.into_iter().collect()
    }

    /// Notes the end of a sync of `directory` that began at `start`.
    pub(super) fn directory_synced(&mut self, directory: Directory, start: Stamp) {
        if self.directories.get(&directory).is_some_and(|stamp| *stamp <= start) {
            self.directories.remove(&directory);
        }
    }

    /// Notes the end of a sync of these contents that began at `start`. Failed contents are cleared
    /// too, because the caller has their failures.
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

    /// Notes the end of a sync of everything that began at `start`.
    pub(super) fn all_synced(&mut self, start: Stamp) {
        self.directories.retain(|_, stamp| *stamp > start);
        self.contents.retain(|_, change| change.stamp > start);
    }

    /// Marks contents that lost data in a sync whose caller did not ask for them.
    pub(super) fn note_lost(&mut self, contents: impl IntoIterator<Item = ContentId>) {
        self.lost.extend(contents);
    }

    /// Marks the contents concerned by a failed sync of `directory`, except `told`, whose failures
    /// the caller reports.
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
