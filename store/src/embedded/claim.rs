//! Claims on accounts: while a command works on an account beside the server, it can have no
//! session.
//!
//! A claim is a kernel lock (flock(2)) on `claims/NUMBER` in the store's directory, so it ends with
//! the process that holds it. A command first claims the account and then checks for a session; a
//! session first takes its seat and then checks for a claim. So at least one of them sees the
//! other.
//!
//! The files are never removed: otherwise two processes could lock two different files of one name.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::lock::prepare_directory;
use super::place::options;
use crate::{AccountId, Purpose, StoreError};

/// Claims an account for as long as the file is open. `None` if the account is already claimed.
pub(super) fn claim(
    dir: &Path,
    account: AccountId,
    purpose: Purpose,
) -> Result<Option<File>, StoreError> {
    prepare_directory(&dir.join("claims"))?;
    let path = path(dir, account);
    let file = options().create(true).open(&path).map_err(|error| failed(&path, error))?;
    let operation = match purpose {
        Purpose::Change => FlockOperation::NonBlockingLockExclusive,
        Purpose::Read => FlockOperation::NonBlockingLockShared,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(&path, error.into())),
    }
}

/// Whether an account is claimed at this moment.
pub(super) fn is_claimed(dir: &Path, account: AccountId) -> Result<bool, StoreError> {
    let path = path(dir, account);
    let file = match options().open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|error| failed(&path, error))?,
    };
    // The lock is held only for a moment. If a command claims the account in that moment, it is
    // rightly refused, because a session is beginning.
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(failed(&path, error.into())),
    }
}

fn path(dir: &Path, account: AccountId) -> PathBuf {
    dir.join("claims").join(account.0.to_string())
}

fn failed(path: &Path, error: std::io::Error) -> StoreError {
    StoreError::io(format!("the store's {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALICE: AccountId = AccountId(1);

    #[test]
    fn who_changes_is_alone_and_who_reads_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let take = |purpose| claim(dir.path(), ALICE, purpose).unwrap();
        let taken = || is_claimed(dir.path(), ALICE).unwrap();
        assert!(!taken());
        let changes = take(Purpose::Change).unwrap();
        assert!(taken() && take(Purpose::Change).is_none() && take(Purpose::Read).is_none());
        assert!(claim(dir.path(), AccountId(2), Purpose::Change).unwrap().is_some());
        drop(changes);
        assert!(!taken());
        let reads = (take(Purpose::Read).unwrap(), take(Purpose::Read).unwrap());
        assert!(taken() && take(Purpose::Change).is_none());
        drop(reads);
        assert!(take(Purpose::Change).is_some());
    }
}
