//! The store's directory, and the lock that keeps a second server off it.
//!
//! The lock is the kernel's (flock(2)), so it ends with the process that holds it, even after a
//! crash. The number in the file serves only the message to a process that is refused. The lock
//! does not protect the database: a command may add a user while the server runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, retry_on_intr};

use super::place::{Pin, options};
use crate::StoreError;

/// A store that only this process serves, until the value is dropped.
#[derive(Debug)]
pub struct StoreLock {
    directory: Pin,
    file: Pin,
}

/// Creates a directory of the store, for its owner only, unless it exists. It has its name for good
/// then.
///
/// # Errors
/// If it can't be created, is not a directory, or is writable by other users, who could plant files
/// in it.
pub fn prepare_directory(dir: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(format!("the store {}", dir.display()), error);
    let missing: Vec<_> = dir.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    for parent in missing.iter().filter_map(|path| path.parent()) {
        // A relative path begins in the working directory.
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    must_not_be_others(dir)
}

/// Checks that only the owner may write to a file or directory of the store.
pub(super) fn must_not_be_others(path: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(format!("the store {}", path.display()), error);
    let metadata = path.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    let mode = if metadata.is_dir() { "700" } else { "600" };
    let path = path.display();
    Err(StoreError::Unsafe(format!("others may write to {path}; run: chmod {mode} {path}")))
}

impl StoreLock {
    /// Takes the store in `dir` for this process, and creates the directory unless it exists.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another server has it; otherwise the system's error.
    pub fn take(dir: &Path) -> Result<StoreLock, StoreError> {
        prepare_directory(dir)?;
        let path = dir.join("lock");
        let failed = |error| StoreError::io(format!("the store's {}", path.display()), error);
        let mut file = options().create(true).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(&mut file)),
            Err(error) => return Err(failed(error.into())),
        }
        write_owner(&mut file).map_err(failed)?;
        let directory = Pin::of("its directory", dir)?;
        Ok(StoreLock { directory, file: Pin::held("lock", &path, file.into()) })
    }

    /// Keeps the lock for as long as the process lives, so that no thread of it can still write
    /// while the next server runs.
    pub fn keep(self) -> &'static StoreLock {
        // The kernel closes the file, and so releases the lock, when the last thread has ended.
        Box::leak(Box::new(self))
    }

    /// Checks that the store's directory and its lock are still the ones that were taken: otherwise
    /// another server could take the store as well.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if they are not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.directory.check()?;
        self.file.check()
    }
}

/// Keeps servers off the store in `dir` for as long as the result lives. `None` if this process
/// itself serves the store, or no server ever has.
///
/// # Errors
/// [`StoreError::InUse`] if another process serves it; otherwise the system's error.
pub(super) fn must_not_be_served(dir: &Path) -> Result<Option<File>, StoreError> {
    let path = dir.join("lock");
    let failed = |error| StoreError::io(format!("the store's {}", path.display()), error);
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) if owner(&mut file) == Some(std::process::id()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Err(in_use(&mut file)),
        Err(error) => Err(failed(error.into())),
    }
}

/// Waits until nobody else is opening the store in `dir`, and keeps others from opening it for as
/// long as the result lives. SQLite can't do this: it neither waits for a database that another connection
/// switches to write-ahead logging, nor shows a version and an application that belong together.
///
/// # Errors
/// If the directory can't be opened or locked.
pub(super) fn turn_to_open(dir: &Path) -> Result<File, StoreError> {
    let failed = |error| StoreError::io(format!("the store {}", dir.display()), error);
    let directory = File::open(dir).map_err(failed)?;
    retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))
        .map_err(|error| failed(error.into()))?;
    Ok(directory)
}

fn write_owner(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The process that last wrote its number into the lock's file.
fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    Read::by_ref(file).take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn in_use(file: &mut File) -> StoreError {
    StoreError::InUse { pid: owner(file) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_server_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let first = StoreLock::take(dir.path()).unwrap();
        let refused = StoreLock::take(dir.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(refused, format!("the store is in use by another xfer-server (pid {pid})"));
        drop(first);
        StoreLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_that_is_kept_lasts_as_long_as_the_process() {
        let dir = tempfile::tempdir().unwrap();
        StoreLock::take(dir.path()).unwrap().keep();
        StoreLock::take(dir.path()).unwrap_err();
    }

    #[test]
    fn the_store_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("deep/store");
        let _lock = StoreLock::take(&store).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store), 0o700);
        assert_eq!(mode(&store.join("lock")), 0o600);
    }

    #[test]
    fn a_store_that_is_no_directory_is_said_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("file");
        std::fs::write(&store, "").unwrap();
        let refused = StoreLock::take(&store).unwrap_err().to_string();
        assert!(refused.contains(store.to_str().unwrap()), "{refused}");
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("lock")).unwrap();
        StoreLock::take(dir.path()).unwrap_err();
        assert!(!elsewhere.exists());
    }
}
