//! How contents become durable, and whose failure a failed sync is.
//!
//! A few contents are synced one by one, many by syncing their whole file system at once. Of a
//! failure the kernel then says only that there was one; whose it is, the files' descriptors say. A
//! failure to write back is noted in the file itself, and each descriptor that was open by then
//! reports it once, at its next sync; syncing the file system takes nothing from that. So after such
//! a failure every content is synced through the descriptor that it was changed through. That is no
//! second try: what could not be written is not written by it, and the descriptor says so.
//!
//! Two things are not reported that way. The note in the file goes when no descriptor is open, so a
//! content whose descriptor was closed since its change counts as lost. And what belongs to no
//! file's data (inodes, directories) has no descriptor; but a file system with a journal (ext4, XFS,
//! btrfs) stops at a failure to write it, and then every sync fails.
//!
//! **Invariant:** a content is synced by itself only through a descriptor that has been open since
//! before its change.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{fdatasync, fsync, syncfs};
use rustix::io::{Errno, retry_on_intr};
use xfer_protocol::ContentId;

use super::FileStore;
use super::unsynced::{Failures, Stamp};
use crate::StoreError;

/// More contents than this are made durable by syncing their whole file system at once.
const SYNCED_SINGLY_MAX: usize = 16;

/// A content with the descriptor that it was changed through.
type Held = (ContentId, Arc<File>);

impl FileStore {
    /// Syncs contents, and says of which of them something is lost.
    pub(super) fn sync(&self, contents: &[ContentId]) -> Failures {
        let _turn = self.syncing.lock();
        let (start, changed, mut failures) = self.unsynced.lock().begin(contents);
        let (held, closed) = self.held(&changed);
        if changed.len() <= SYNCED_SINGLY_MAX && closed.is_empty() {
            self.sync_each(&held, &mut failures);
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

    /// Finds out of which contents a failed sync of the file system has lost something. Of those that
    /// are not in `asked`, it is noted for when they are to be synced.
    fn attribute(&self, asked: &[ContentId], error: Errno, failures: &mut Failures) {
        tracing::error!(%error, "the store's file system can't be synced; each file is");
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

    /// Contents that have a descriptor that was open before their change, and those that don't.
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
            if let Err(error) = retry_on_intr(|| fdatasync(file)) {
                let failure = self.failed("syncing", *content, error.into());
                failures.entry(*content).or_insert(failure);
            }
        }
    }

    /// Syncs the directories that `contents` are found through. A failure is that of all whose
    /// contents are found through it and are not known to be synced.
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
