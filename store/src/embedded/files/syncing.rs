//! How contents become durable, and which of them a failed sync concerns.
//!
//! A few contents are synced one by one, many by syncing their whole file system at once. If that
//! fails, the kernel says only that it failed; the files' descriptors tell which contents are
//! concerned. The kernel notes a failed write-back in the file itself, and each descriptor open by
//! then reports it once, at its next sync; syncing the file system does not clear it. So after such
//! a failure every content is synced through the descriptor that it was changed through. That is no
//! second try: it does not write the lost data again, and the descriptor reports the failure.
//!
//! Two kinds of failure are not reported that way. The note in the file is lost when no descriptor
//! is open, so a content whose descriptor was closed since its change counts as lost. And metadata
//! (inodes, directories) has no descriptor; but a file system with a journal (ext4, XFS, btrfs)
//! stops when it fails to write it, and then every sync fails.
//!
//! A file system that a process serves (FUSE) is not told to sync as a whole, so each content is synced
//! there. It reports a failed write to the writer, unless it is asked to cache writes, so a descriptor
//! that was opened later will do.
//!
//! **Invariant:** on all others, a content is synced by itself only through a descriptor that has been
//! open since before its change.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{fdatasync, fsync, syncfs};
use rustix::io::{Errno, retry_on_intr};
use xfer_protocol::ContentId;

use super::FileStore;
use super::shards::ShardPath;
use super::unsynced::{Failures, Stamp};
use crate::StoreError;
use crate::embedded::place::options;

/// With more contents than this, their whole file system is synced at once.
const SYNCED_SINGLY_MAX: usize = 16;

/// A content with the descriptor that it was changed through.
type Held = (ContentId, Arc<File>);

impl FileStore {
    /// Syncs contents, and returns those that lost data.
    pub(super) fn sync(&self, contents: &[ContentId]) -> Failures {
        let _turn = self.syncing.lock();
        let (start, changed, mut failures) = self.unsynced.lock().begin(contents);
        let (held, closed) = self.held(&changed);
        let are_few = changed.len() <= SYNCED_SINGLY_MAX && closed.is_empty();
        if are_few || !self.syncs_as_a_whole {
            self.sync_each(&held, &mut failures);
            self.sync_reopened(&closed, &mut failures);
        } else {
            match retry_on_intr(|| syncfs(&self.root_file)) {
                Ok(()) => {
                    self.unsynced.lock().all_synced(start);
                    return failures;
                }
                Err(error) => self.attribute(&changed, error, &mut failures),
            }
        }
        self.sync_directories(contents, start, &mut failures);
        self.unsynced.lock().contents_synced(&changed, start, &failures);
        failures
    }

    /// Finds the contents that lost data in a failed sync of the file system. Those that are not in
    /// `asked` are marked, and fail at their next sync.
    fn attribute(&self, asked: &[ContentId], error: Errno, failures: &mut Failures) {
        tracing::error!(%error, "the store's file system cannot be synced; each file is");
        let changed = self.unsynced.lock().contents();
        let (held, closed) = self.held(&changed);
        let mut lost = Failures::new();
        for content in closed {
            let what = format!("syncing the file system of content {content}");
            lost.insert(content, StoreError::io(what, error.into()));
        }
        self.sync_each(&held, &mut lost);
        for content in asked {
            if let Some(failure) = lost.remove(content) {
                failures.entry(*content).or_insert(failure);
            }
        }
        self.unsynced.lock().note_lost(lost.into_keys());
    }

    /// Splits contents by whether they have a descriptor that was open before their change.
    fn held(&self, contents: &[ContentId]) -> (Vec<Held>, Vec<ContentId>) {
        let open = self.open.lock();
        let unsynced = self.unsynced.lock();
        let (mut held, mut closed) = (Vec::new(), Vec::new());
        for content in contents {
            match open.peek(content).filter(|_| !unsynced.was_closed(*content)) {
                Some(file) => held.push((*content, file.clone())),
                None => closed.push(*content),
            }
        }
        (held, closed)
    }

    fn sync_each(&self, held: &[Held], failures: &mut Failures) {
        for (content, file) in held {
            self.sync_one(*content, Ok(file), failures);
        }
    }

    fn sync_reopened(&self, closed: &[ContentId], failures: &mut Failures) {
        for content in closed {
            let file = options().open(ShardPath::of(*content).path(&self.root));
            self.sync_one(*content, file, failures);
        }
    }

    fn sync_one(&self, content: ContentId, file: io::Result<impl AsFd>, failures: &mut Failures) {
        if let Err(error) = file.and_then(|file| Ok(retry_on_intr(|| fdatasync(&file))?)) {
            let failure = self.failed("syncing", content, error);
            failures.entry(content).or_insert(failure);
        }
    }

    /// Syncs the directories on the paths of `contents`. A failure concerns all contents below the
    /// directory that are not known to be synced.
    fn sync_directories(&self, contents: &[ContentId], start: Stamp, failures: &mut Failures) {
        let directories = self.unsynced.lock().directories_of(contents);
        for directory in directories {
            let path = directory.path(&self.root);
            let synced = File::open(&path).and_then(|file| Ok(retry_on_intr(|| fsync(&file))?));
            let Err(error) = synced else {
                self.unsynced.lock().directory_synced(directory, start);
                continue;
            };
            self.unsynced.lock().directory_failed(directory, contents);
            for content in contents.iter().filter(|content| directory.leads_to(**content)) {
                let error = io::Error::new(error.kind(), error.to_string());
                let failure = StoreError::io(format!("syncing {}", path.display()), error);
                failures.entry(*content).or_insert(failure);
            }
        }
    }
}

/// Syncs a directory and those in it.
pub(super) fn sync_directories_in(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories_in(&entry.path())?;
        }
    }
    let directory = File::open(directory)?;
    Ok(retry_on_intr(|| fsync(&directory))?)
}
