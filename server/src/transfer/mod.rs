//! Whole trees between a directory of this machine and an account: import and export.
//!
//! Both work on the store itself, beside a running server or without one, and both can be
//! interrupted and run again: what is there with the same kind, size and time of change is done.
//!
//! Reading order: `walk` (the directory's side), `import` with `filling` (data and attributes), then
//! `export` with `landing` (how something comes to be on the disk), and `progress` (what is told
//! meanwhile).
//!
//! **Invariant:** an account with a session is not touched. Whoever runs them has claimed the account,
//! so none begins meanwhile; an import is a session of its own besides, which a later one would fence.
//!
//! **Invariant:** a name is only ever resolved in a directory that is open, and no symbolic link is
//! followed: nothing that a tree holds leads out of the directory.

mod walk;

pub mod import;

mod filling;

pub mod export;

mod landing;

mod progress;

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as HostError;

use crate::exit::{Exit, Failure};
pub use progress::Tally;
use xfer_store::StoreError;

/// How many bytes are read and written at a time.
const CHUNK_BYTES: u64 = xfer_protocol::limits::WRITE_BYTES_MAX as u64;

/// Why an entry, or all of the work, ends.
enum Stop {
    /// This entry can't be moved; the others can.
    Entry(String),
    /// Nothing more can be done.
    All(Failure),
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Stop {
        match error {
            HostError::NOSPC | HostError::DQUOT => Stop::All(Failure::new(
                Exit::DiskFull,
                "the directory's disk is full; free some space, and run this again to go on",
            )),
            error => Stop::Entry(std::io::Error::from(error).to_string()),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::All(error.into())
    }
}

/// Opens the directory that was named on the command line; links on the way to it are followed.
fn open_directory(path: &Path) -> Result<std::os::fd::OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: HostError) -> Failure {
    let error = std::io::Error::from(error);
    let line = format!("cannot use {} ({error}); check the directory", path.display());
    Failure::new(Exit::Directory, line)
}

/// A session of the account began while its tree was being moved.
fn interrupted(user: &xfer_protocol::Name) -> Failure {
    let line = format!(
        "{user} was mounted, or changed otherwise, meanwhile; unmount it and run this again to go on"
    );
    Failure::new(Exit::AccountInUse, line)
}
