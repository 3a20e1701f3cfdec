//! What was changed and is not known to be on the disk.
//!
//! Everything noted gets a stamp. A sync covers what was stamped before it began, so it clears no
//! stamp that is younger, and others may go on changing things meanwhile.
//!
//! The kernel tells of a failure to write back once. Syncing a whole file system thus tells the one
//! who asked of what others have lost: their contents are marked, and the next time that one of them
//! is to be made durable, it fails.

use std::collections::{HashMap, HashSet};
use std::io;

use xfer_protocol::ContentId;

use super::shards::{Directory, Place};
use crate::store::StoreError;

/// The moment of a change: later ones have higher numbers.
type Stamp = u64;

/// Directories and contents that must be synced.
#[derive(Default)]
pub(super) struct Unsynced {
    now: Stamp,
    directories: HashMap<Directory, Stamp>,
    contents: HashMap<ContentId, Stamp>,
    /// Contents of which a sync has lost something, which nobody was told.
    lost: HashSet<ContentId>,
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
        self.contents.insert(content, self.now);
    }

    /// Notes that a content is no more.
    pub(super) fn forget(&mut self, content: ContentId) {
        self.contents.remove(&content);
        self.lost.remove(&content);
    }

    /// Begins a sync of `contents`; fails if an earlier one has lost something of them.
    pub(super) fn begin(&mut self, contents: &[ContentId]) -> Result<Stamp, StoreError> {
        let lost: Vec<_> = contents.iter().filter(|content| self.lost.remove(content)).collect();
        match lost.first() {
            None => Ok(self.now),
            Some(content) => Err(StoreError::Io {
                what: format!("syncing content {content}, which a sync has lost data of"),
                error: io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            }),
        }
    }

    /// The directories to be synced so that `contents` can be found.
    pub(super) fn directories_of(&self, contents: &[ContentId]) -> Vec<Directory> {
        let places = contents.iter().map(|content| Place::of(*content));
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

    /// A sync of these contents that began at `start` is done.
    pub(super) fn contents_synced(&mut self, contents: &[ContentId], start: Stamp) {
        for content in contents {
            if self.contents.get(content).is_some_and(|stamp| *stamp <= start) {
                self.contents.remove(content);
            }
        }
    }

    /// A sync of everything that began at `start` is done.
    pub(super) fn all_synced(&mut self, start: Stamp) {
        self.directories.retain(|_, stamp| *stamp > start);
        self.contents.retain(|_, stamp| *stamp > start);
    }

    /// A sync of everything failed, which those who have changed `told` are told.
    pub(super) fn all_failed(&mut self, told: &[ContentId]) {
        for content in told {
            self.contents.remove(content);
        }
        self.lost.extend(self.contents.drain().map(|(content, _)| content));
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
        let start = unsynced.begin(&[A]).unwrap();
        unsynced.note_directory(Directory::Root);
        unsynced.directory_synced(Directory::Root, start);
        assert_eq!(unsynced.directories_of(&[A]), [Directory::Root]);
        let start = unsynced.begin(&[A]).unwrap();
        unsynced.directory_synced(Directory::Root, start);
        assert_eq!(unsynced.directories_of(&[A]), []);
    }

    #[test]
    fn a_failed_sync_is_told_once_to_each_who_has_lost_something() {
        let mut unsynced = Unsynced::default();
        unsynced.note_content(A);
        unsynced.note_content(B);
        unsynced.begin(&[A]).unwrap();
        unsynced.all_failed(&[A]);
        unsynced.begin(&[A]).unwrap();
        unsynced.begin(&[B]).unwrap_err();
        unsynced.begin(&[B]).unwrap();
    }

    #[test]
    fn what_was_synced_is_not_lost_by_a_later_failure() {
        let mut unsynced = Unsynced::default();
        unsynced.note_content(A);
        let start = unsynced.begin(&[A]).unwrap();
        unsynced.contents_synced(&[A], start);
        unsynced.all_failed(&[B]);
        unsynced.begin(&[A]).unwrap();
    }
}
