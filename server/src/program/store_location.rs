//! Where a server's store is, and where what belongs to the server itself: its certificate and key, and the
//! socket for commands.

use std::ffi::OsStr;
use std::path::PathBuf;

use xfer_store::{Location, StoreError};

/// Where a server's store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreLocation {
    /// The store.
    pub location: Location,
    /// The directory of what belongs to the server.
    pub dir: PathBuf,
}

/// Why there can't be a server's store.
#[derive(Debug, thiserror::Error)]
pub enum BadPlace {
    /// There is no engine for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What belongs to the server has no place there.
    #[error("the store {0} ends with the program and is for tests; use a directory")]
    NoDirectory(String),
}

impl StoreLocation {
    /// Reads it, as it is given on the command line.
    ///
    /// # Errors
    /// If there is no engine for it, or it has no directory for what belongs to the server.
    pub fn parse(text: &OsStr) -> Result<StoreLocation, BadPlace> {
        let location = Location::parse(text)?;
        match location.directory() {
            Some(dir) => Ok(StoreLocation { dir: dir.to_owned(), location }),
            None => Err(BadPlace::NoDirectory(location.to_string())),
        }
    }
}
