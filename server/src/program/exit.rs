//! How the program reports a failure: one line, and an exit code for its kind.
//!
//! The line says what is wrong and, after a semicolon, what to do about it.

use std::fmt;
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};
use xfer_protocol::shown::Shown;
use xfer_store::StoreError;
use xfer_terminal::plain;

/// The exit codes. Scripts tell failures apart by them, so they must not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Any failure without a code of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The store can't be read or written.
    Store = 3,
    /// Another server has the store open.
    StoreInUse = 4,
    /// The server can't listen on the address.
    Listen = 5,
    /// The TLS certificate or key is missing or wrong.
    Tls = 6,
    /// There is no such user.
    NoUser = 7,
    /// A user of this name already exists.
    UserExists = 8,
    /// The password is missing, empty or too long, or was typed differently the second time.
    Password = 9,
    /// The disk is full.
    DiskFull = 10,
    /// No server runs on the store.
    NotRunning = 11,
    /// The account is mounted, or was in the meantime.
    AccountInUse = 12,
    /// The account's quota is exhausted.
    Quota = 13,
    /// The directory can't be used.
    Directory = 14,
    /// Some entries of a tree could not be copied.
    Incomplete = 15,
    /// The store was removed or replaced while it was in use.
    StoreGone = 16,
    /// The database is older than the contents, or its file than the log beside it.
    StoreOlder = 17,
    /// A look through the store has found faults.
    Faulty = 18,
    /// A signal interrupted a question on the terminal.
    Interrupted = 130,
}

/// Why the program failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The problem, and what to do about it.
    pub line: String,
}

impl Failure {
    /// A failure with its exit code and line, which is put in [`plain`] words.
    pub fn new(exit: Exit, line: impl Into<String>) -> Failure {
        Failure { exit, line: plain(&line.into()) }
    }
}

/// Always one line: control characters in its parts are escaped.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.line).fmt(f)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Full => {
                Failure::new(Exit::DiskFull, "the store's disk is full; free some space")
            }
            StoreError::Exists(_)
            | StoreError::NoAccount
            | StoreError::Claimed
            | StoreError::Fenced
            | StoreError::Importing => Failure::new(
                Exit::Other,
                format!("the store refused: {error}; check the arguments"),
            ),
            StoreError::InUse { .. }
            | StoreError::NotUpgraded { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::Foreign
            | StoreError::Unsuitable(_)
            | StoreError::UnknownEngine(_) => {
                Failure::new(Exit::Other, format!("cannot open the store: {error}; check --store"))
            }
            StoreError::Occupied { .. } => Failure::new(
                Exit::Other,
                format!("{error}; give --store a directory that is empty or does not exist yet"),
            ),
            StoreError::Damaged(_) => Failure::new(
                Exit::Store,
                format!("the store is {error}; check its disk, and bring back a backup"),
            ),
            StoreError::Gone(_) => Failure::new(
                Exit::StoreGone,
                format!("{error}; find the cause, and put the store back"),
            ),
            StoreError::Unsafe(line) => Failure::new(Exit::Store, line),
            StoreError::Older { .. } => Failure::new(
                Exit::StoreOlder,
                format!(
                    "{error}; put the newer xfer.db back, or start the server once with \
                     --accept-older-database: contents that it does not know are then set aside"
                ),
            ),
            StoreError::OtherLog => Failure::new(
                Exit::StoreOlder,
                format!(
                    "{error}; put both back as they were, or start the server once with \
                     --accept-older-database: xfer.db-wal is then set aside"
                ),
            ),
            StoreError::Missing { place, error } if error.kind() == ErrorKind::PermissionDenied => {
                let line = format!(
                    "this user may not enter the store {place}; run this as the store's owner or as root"
                );
                Failure::new(Exit::Store, line)
            }
            StoreError::Missing { .. } => {
                Failure::new(Exit::Store, format!("{error}; check --store"))
            }
            StoreError::Database(_)
            | StoreError::Stopped
            | StoreError::Panicked
            | StoreError::Io { .. } => Failure::new(
                Exit::Store,
                format!("cannot use the store ({error}); check --store, its owner and its disk"),
            ),
        }
    }
}
