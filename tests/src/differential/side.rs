//! One of the two sides, as one process sees it: a root, with the files held open below it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::calls::listings::OpenDirectory;
use super::calls::mappings::Mapping;
use super::calls::{attributes, data, listings, locks, mappings, naming};
use super::draw::{DIRECTORIES, MAPS, SLOTS};
use super::marks::Watched;
use super::operation::{Operation, Target};
use super::planted::Plant;

/// A root, with the files held open below it.
pub(super) struct Side {
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
    pub(super) open: Vec<Option<OwnedFd>>,
    pub(super) maps: Vec<Option<Mapping>>,
    pub(super) directories: Vec<Option<OpenDirectory>>,
    plant: Option<Plant>,
}

/// The result of an operation: a value to compare or an errno and, if requested, the times that it
/// changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) result: Result<String, i32>,
    pub(super) marks: Vec<String>,
}

impl Side {
    pub(super) fn new(path: &Path, plant: Option<Plant>) -> Side {
        let root = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Side {
            path: path.to_owned(),
            root,
            open: (0..SLOTS).map(|_| None).collect(),
            maps: (0..MAPS).map(|_| None).collect(),
            directories: (0..DIRECTORIES).map(|_| None).collect(),
            plant,
        }
    }

    /// Does an operation. If `timed`, also reports the times that changed, and shows times in results.
    pub(super) fn apply(&mut self, operation: &Operation, timed: bool) -> Outcome {
        let watched = timed.then(|| Watched::new(self, operation));
        let result = self.try_apply(operation, timed);
        let result = result.map_err(|error| error.raw_os_error().unwrap_or(-1));
        let result = match &self.plant {
            Some(plant) => plant.spoil(self, operation, result),
            None => result,
        };
        let marks = watched.map_or(Vec::new(), |watched| watched.marks());
        Outcome { result, marks }
    }

    fn try_apply(&mut self, operation: &Operation, timed: bool) -> io::Result<String> {
        match operation {
            Operation::Open { .. }
            | Operation::Close { .. }
            | Operation::Write { .. }
            | Operation::Read { .. }
            | Operation::Seek { .. }
            | Operation::FindData { .. }
            | Operation::Resize { .. }
            | Operation::Fallocate { .. }
            | Operation::Copy { .. }
            | Operation::Fsync { .. } => data::apply(self, operation),
            Operation::Flock { .. } | Operation::Lock { .. } | Operation::FindLock { .. } => {
                locks::apply(self, operation)
            }
            Operation::Map { .. }
            | Operation::Unmap { .. }
            | Operation::WriteMapped { .. }
            | Operation::ReadMapped { .. }
            | Operation::SyncMapped { .. } => mappings::apply(self, operation),
            Operation::OpenDirectory { .. }
            | Operation::ReadSome { .. }
            | Operation::ReadRest { .. }
            | Operation::List { .. } => listings::apply(self, operation),
            Operation::Mkdir { .. }
            | Operation::Mknod { .. }
            | Operation::Symlink { .. }
            | Operation::Readlink { .. }
            | Operation::Link { .. }
            | Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename { .. }
            | Operation::Clear { .. } => naming::apply(self, operation),
            Operation::Chmod { .. }
            | Operation::Chown { .. }
            | Operation::SetTimes { .. }
            | Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattrs { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Stat { .. }
            | Operation::Access { .. } => attributes::apply(self, operation, timed),
        }
    }

    /// The open file in a slot.
    pub(super) fn file(&self, slot: usize) -> io::Result<BorrowedFd<'_>> {
        self.open[slot].as_ref().map(AsFd::as_fd).ok_or_else(not_open)
    }

    /// An absolute path, for calls without an `*at` form.
    pub(super) fn full(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// The arguments of `*at` calls for a target: a directory, a path, and how to follow links.
    pub(super) fn place<'t>(
        &'t self,
        target: &'t Target,
    ) -> io::Result<(BorrowedFd<'t>, &'t str, AtFlags)> {
        match target {
            Target::Path { path, follow: true } => Ok((self.root.as_fd(), path, AtFlags::empty())),
            Target::Path { path, follow: false } => {
                Ok((self.root.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW))
            }
            Target::Open { slot } => Ok((self.file(*slot)?, "", AtFlags::EMPTY_PATH)),
        }
    }
}

pub(super) fn not_open() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}
