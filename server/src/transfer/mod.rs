//! Copies whole trees between a directory of this machine and an account: import and export.
//!
//! Both work on the store itself, whether or not a server is running. Both can be interrupted and
//! run again: an existing entry with the same kind, size and modification time counts as done.
//!
//! Reading order: `walk` (the directory's side), `import` with `filling` (data and attributes), then
//! `export` with `landing` (creating entries on the disk), and `progress` (messages in the
//! meantime).
//!
//! **Invariant:** an account with a session is not touched. The caller has claimed the account, so no
//! session begins meanwhile. Besides, an import is a session itself, which a later one would fence.
//!
//! **Invariant:** a name is only ever resolved within an open directory, and no symbolic link is
//! followed: no name or link in a tree can lead out of the directory.

mod walk;

pub mod import;

mod filling;

pub mod export;

mod landing;

mod progress;

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as HostError;

use crate::program::exit::{Exit, Failure};
pub use progress::Tally;
use xfer_store::StoreError;

/// The number of bytes to read and write at a time.
const CHUNK_BYTES: u64 = xfer_protocol::limits::WRITE_BYTES_MAX as u64;

/// Why an entry, or the whole copy, was given up.
enum Interruption {
    /// This entry can't be copied; the others can.
    Entry(String),
    /// The copy can't go on.
    All(Failure),
}

impl From<HostError> for Interruption {
    fn from(error: HostError) -> Interruption {
        match error {
            HostError::NOSPC | HostError::DQUOT => Interruption::All(Failure::new(
                Exit::DiskFull,
                "the directory's disk is full; free some space, and run this again to go on",
            )),
            error => Interruption::Entry(std::io::Error::from(error).to_string()),
        }
    }
}

impl From<StoreError> for Interruption {
    fn from(error: StoreError) -> Interruption {
        Interruption::All(error.into())
    }
}

/// Opens the directory named on the command line; links on the path to it are followed.
fn open_directory(path: &Path) -> Result<std::os::fd::OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: HostError) -> Failure {
    let error = std::io::Error::from(error);
    let line = format!("cannot use {} ({error}); check the directory", path.display());
    Failure::new(Exit::Directory, line)
}

/// The failure for a session that began while its account's tree was being copied.
fn interrupted(user: &xfer_protocol::Name) -> Failure {
    let line = format!(
        "{user} was mounted, or changed otherwise, meanwhile; unmount it and run this again to go on"
    );
    Failure::new(Exit::AccountInUse, line)
}
