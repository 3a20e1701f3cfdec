//! How far applying is, as it is noted in the rescue.
//!
//! **Invariant:** only what is durable is noted as applied.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{fstatfs, syncfs};

use super::Outcome;
use crate::rescue::FUSE;
use crate::rescue::item::Contents;

/// How often it is noted.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Notes how far applying is.
pub(super) struct Progress<'a, N> {
    root: &'a Path,
    note: N,
    /// The items that were applied since the last note.
    fresh: Vec<usize>,
    noted: Instant,
}

impl<'a, N: Fn(&Contents) -> io::Result<()>> Progress<'a, N> {
    /// Of applying to `root`, noted with `note`.
    pub(super) fn new(root: &'a Path, note: N) -> Progress<'a, N> {
        Progress { root, note, fresh: Vec::new(), noted: Instant::now() }
    }

    /// Adds an item that was applied just now.
    pub(super) fn add(&mut self, index: usize) {
        self.fresh.push(index);
    }

    pub(super) fn is_due(&self) -> bool {
        self.noted.elapsed() > NOTE_EVERY
    }

    /// Notes it. What can't be made durable is not applied.
    pub(super) fn note(
        &mut self,
        contents: &mut Contents,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        if let Err(error) = self.sync() {
            for index in &self.fresh {
                let item = &mut contents.items[*index];
                if item.applied {
                    item.applied = false;
                    outcome.failed.push(format!("{}: it is not durable: {error}", item.name()));
                }
            }
        }
        self.fresh.clear();
        (self.note)(contents)?;
        self.noted = Instant::now();
        Ok(())
    }

    /// In a mount, a sync of a directory is one of everything before it, and `syncfs` does nothing.
    fn sync(&self) -> io::Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let root = File::open(self.root)?;
        match fstatfs(&root)?.f_type as i64 {
            FUSE => root.sync_all(),
            _ => Ok(syncfs(root)?),
        }
    }
}
