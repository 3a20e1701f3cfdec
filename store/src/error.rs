//! The errors of a store, told apart by how a caller can react.

use std::sync::Arc;

use xfer_protocol::Name;

/// The reason why a store could not do its work.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The name is already taken by an account.
    #[error("there is an account {0} already")]
    Exists(Name),
    /// The account was removed, or never existed.
    #[error("there is no such account any more")]
    NoAccount,
    /// A command works on the account, so no session of it can begin and no other command can claim
    /// it.
    #[error("another command is working on the account")]
    Claimed,
    /// A later session has the tree.
    #[error("a later session began")]
    Fenced,
    /// An import creates contents beside the server, so they can't be listed.
    #[error("an import is under way")]
    Importing,
    /// Another server uses the store.
    #[error("the store is in use by another xfer-server{owner}", owner = shown(*pid))]
    InUse {
        /// The other server's process, if it is known.
        pid: Option<u32>,
    },
    /// The store has an older format, and a server of that older version is running on it.
    #[error(
        "the store is of an older version, and the store is in use by another xfer-server{owner}: \
         stop that one to upgrade the store",
        owner = shown(*pid)
    )]
    NotUpgraded {
        /// The server's process, if it is known.
        pid: Option<u32>,
    },
    /// The store was written by a newer version of this program.
    #[error(
        "the store is of version {found}, and this xfer-server knows versions up to {known}: use the \
         xfer-server that wrote it, or a newer one"
    )]
    NewerFormat {
        /// The version of the store.
        found: i32,
        /// The newest version that this program knows.
        known: i32,
    },
    /// The database there does not belong to xfer.
    #[error("the store's xfer.db is not a database of xfer")]
    Foreign,
    /// There is no store in a directory, and something else.
    #[error("{place} has no store in it, but other files, such as '{name}'")]
    Occupied {
        /// The directory.
        place: String,
        /// One of the files.
        name: String,
    },
    /// The file system lacks a feature that a database needs.
    #[error("the file system of {0} cannot hold a database")]
    Unsuitable(String),
    /// A file that the store has open is no longer the one at its path, so later writes could not
    /// be found again. Contains the name of that part of the store.
    #[error("the store was removed or replaced while it was in use ({0})")]
    Gone(String),
    /// The location names an unknown engine.
    #[error("there is no engine for the store {0}; use sqlite:DIR, DIR or memory:")]
    UnknownEngine(String),
    /// The store does not exist.
    #[error("no store in {place} ({error})")]
    Missing {
        /// The place where it was expected.
        place: String,
        /// The system's error.
        error: Arc<std::io::Error>,
    },
    /// Other users may write to the store. The text tells the administrator how to fix that.
    #[error("{0}")]
    Unsafe(String),
    /// The database is older than the contents.
    #[error(
        "the database is older than its contents: it ends at number {end}, and they at {known}"
    )]
    Older {
        /// The counter of the database.
        end: u64,
        /// The highest value that the counter is known to have had.
        known: u64,
    },
    /// The database's file and its write-ahead log are of different states of the database.
    #[error("xfer.db-wal does not belong to xfer.db: one of them was put back without the other")]
    OtherLog,
    /// The stored data has changed: the disk lost or altered it, or another program did.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The call was told to stop, and is done in part.
    #[error("told to stop")]
    Stopped,
    /// A part of the store panicked; the log has a line about it.
    #[error("a part of the store failed")]
    Panicked,
    /// The database failed.
    #[error("database: {0}")]
    Database(String),
    /// The file system failed.
    #[error("{what}: {error}")]
    Io {
        /// The action that failed, and its object.
        what: String,
        /// The system's error.
        error: Arc<std::io::Error>,
    },
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> StoreError {
        StoreError::io("the store", error)
    }
}

impl StoreError {
    /// The error of a system call during some action. A full disk has its own variant.
    pub fn io(what: impl Into<String>, error: std::io::Error) -> StoreError {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io { what: what.into(), error: Arc::new(error) },
        }
    }

    /// The text that a client may see, which reveals nothing about the host, such as paths. A
    /// store's errors reach the wire only through this function; the log has them in full.
    pub fn told(&self) -> String {
        let told = match self {
            StoreError::Full => "its disk is full",
            StoreError::Exists(_)
            | StoreError::NoAccount
            | StoreError::Claimed
            | StoreError::Fenced
            | StoreError::Importing => "it refused a change",
            StoreError::InUse { .. }
            | StoreError::NotUpgraded { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::Foreign
            | StoreError::Occupied { .. }
            | StoreError::Unsuitable(_)
            | StoreError::UnknownEngine(_)
            | StoreError::Missing { .. } => "it cannot be opened",
            // It names a part of the store, but no path.
            StoreError::Gone(_) => return self.to_string(),
            StoreError::Unsafe(_) => "others may write to it",
            StoreError::Older { .. } => "its database is older than its contents",
            StoreError::OtherLog => "its database and the log of that do not belong together",
            StoreError::Damaged(_) => "it is damaged",
            StoreError::Stopped => "it was told to stop",
            StoreError::Panicked => "a part of the server failed",
            StoreError::Database(_) => "its database failed",
            StoreError::Io { error, .. } => {
                let error = error.raw_os_error().map(std::io::Error::from_raw_os_error);
                return error
                    .map_or("its disk failed".to_owned(), |e| format!("its disk failed ({e})"));
            }
        };
        told.to_owned()
    }
}

fn shown(pid: Option<u32>) -> String {
    // Without a number the message is less helpful, but still true.
    pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
}
