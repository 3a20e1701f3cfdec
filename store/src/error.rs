//! Why a store could not do what it was asked, told apart by what a caller can do about it.

use std::sync::Arc;

use xfer_protocol::Name;

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// An account of this name is there already.
    #[error("there is an account {0} already")]
    Exists(Name),
    /// The account was removed, or never was.
    #[error("there is no such account (any more)")]
    NoAccount,
    /// A command works on the account, which can have no session meanwhile; or another command does.
    #[error("another command is working on the account")]
    Claimed,
    /// A later session owns the tree.
    #[error("a later session began")]
    Fenced,
    /// Contents are being imported beside the server, so they can't be listed.
    #[error("an import is under way")]
    Importing,
    /// Another server has the store.
    #[error("the store is in use by another xfer-server{owner}", owner = shown(*pid))]
    InUse {
        /// Its process, as far as it is known.
        pid: Option<u32>,
    },
    /// The store has an older format, and a server of that version is running on it.
    #[error(
        "the store is of an older version, and the store is in use by another xfer-server{owner}: \
         stop that one to upgrade the store",
        owner = shown(*pid)
    )]
    NotUpgraded {
        /// The server's process, as far as it is known.
        pid: Option<u32>,
    },
    /// The store was written by a newer version of this program.
    #[error(
        "the store is of version {found}, and this xfer-server knows versions up to {known}: use the \
         xfer-server that wrote it, or a newer one"
    )]
    NewerFormat {
        /// The store's.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// What is there is no store of xfer's.
    #[error("the store's xfer.db is not a database of xfer's")]
    Foreign,
    /// The file system lacks what a database needs.
    #[error("the file system of {0} can't hold a database")]
    Unsuitable(String),
    /// A file that the store has open is no longer the one at its path: what is written to it can't be
    /// found again. Says which part of the store it is.
    #[error("the store was removed or replaced while it was in use ({0})")]
    Gone(String),
    /// There is no engine of this name.
    #[error("there is no engine for the store {0}; use sqlite:DIR, DIR or memory:")]
    UnknownEngine(String),
    /// There is no store.
    #[error("no store in {place} ({error})")]
    Missing {
        /// Where it was looked for.
        place: String,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
    /// Others may write to the store. Says what to do.
    #[error("{0}")]
    Unsafe(String),
    /// The database is an older copy of the one that the contents belong to.
    #[error(
        "the database is older than its contents: it ends at number {end}, and they at {known}"
    )]
    Older {
        /// The counter of the database.
        end: u64,
        /// The highest value that it is known to have had.
        known: u64,
    },
    /// What is stored is not what was stored: the disk lost or changed it, or somebody else did.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A part of the store failed in a way that it should not: its log has a line of that.
    #[error("a part of the store failed")]
    Panicked,
    /// The database failed.
    #[error("database: {0}")]
    Database(String),
    /// The file system failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> StoreError {
        StoreError::io("the store", error)
    }
}

impl StoreError {
    /// What the system said while something was being done; told apart if it is a full disk.
    pub fn io(what: impl Into<String>, error: std::io::Error) -> StoreError {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io { what: what.into(), error: Arc::new(error) },
        }
    }

    /// What a client may know of it, and no more: nothing of the host, such as paths. It is the only
    /// way of a store's errors to the wire; the log has them in full.
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
            | StoreError::Unsuitable(_)
            | StoreError::UnknownEngine(_)
            | StoreError::Missing { .. } => "it can't be opened",
            // It names a part of the store, and no path.
            StoreError::Gone(_) => return self.to_string(),
            StoreError::Unsafe(_) => "others may write to it",
            StoreError::Older { .. } => "its database is older than its contents",
            StoreError::Damaged(_) => "it is damaged",
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
    // Without a number the message is less helpful, and no less true.
    pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
}
