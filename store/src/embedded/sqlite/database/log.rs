//! The write-ahead log, and whether it belongs to the database file.
//!
//! SQLite copies a log's pages over the database file beside it, whichever file that is. If one of
//! the two was put back without the other, the result is neither the older nor the newer database.
//! So both are compared before SQLite may copy anything, by the counter of numbers:
//!
//! - Each transaction that changes rows raises `ids.next`.
//! - A log begins anew only when SQLite has copied all of it to the file, and synced that. The
//!   first transaction after that notes in `ids.in_file` how far the counter had come by then.
//!
//! **Invariant:** the file alone is at `in_file` of its log or above: a lower one lacks pages that
//! the log no longer has. And it is at `next` of its log at most.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};
use time::OffsetDateTime;

use crate::StoreError;
use crate::embedded::sqlite::numbers;
use crate::embedded::sqlite::rows::{change, value};

/// The path of a further file beside the database.
pub(super) fn beside(database: &Path, end: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// The database file alone, without its log.
#[derive(Clone, Copy)]
pub(super) struct Alone {
    /// The counter of numbers: 0 if the file has no tables yet.
    pub(super) end: u64,
    /// Raised by each change of the tables, and by `VACUUM`, after which all pages lie elsewhere.
    schema: i64,
}

impl Alone {
    /// Looks at a file. `None` if it can't be read, as after a power failure while pages were
    /// copied to it.
    pub(super) fn of(database: &Path) -> Option<Alone> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite looks for no log beside a file that it is told can't change.
        let uri = format!("file:{}?immutable=1", escaped(database.as_os_str()));
        let file = Connection::open_with_flags(uri, flags).ok()?;
        let schema = schema_version(&file).ok()?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'ids'";
        match value(&file, tables, []).ok()? {
            0 => Some(Alone { end: 0, schema }),
            _ => Some(Alone { end: numbers::ids_end(&file).ok()?, schema }),
        }
    }
}

fn schema_version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "schema_version", |row| row.get(0))?)
}

/// Checks that the log beside the database belongs to the file `alone`. `connection` reads both, and
/// `notes` tells whether its tables have a note of where a log began.
///
/// # Errors
/// [`StoreError::Older`] if the file is older than the log's beginning, and
/// [`StoreError::OtherLog`] if the log does not belong to it for another reason.
pub(super) fn must_belong(
    connection: &Connection,
    alone: Alone,
    notes: bool,
) -> Result<(), StoreError> {
    let sql = if notes { "SELECT next, in_file FROM ids" } else { "SELECT next, 0 FROM ids" };
    let read = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (end, begun): (i64, i64) = read.map_err(|error| match error.sqlite_error_code() {
        // The file alone could be read: the log's pages hide a table or a column.
        Some(ErrorCode::Unknown) => StoreError::OtherLog,
        _ => error.into(),
    })?;
    let (end, begun) = (end.cast_unsigned(), begun.cast_unsigned());
    if alone.end < begun {
        return Err(StoreError::Older { end: alone.end, known: end });
    }
    let goes_on = alone.end <= end && alone.schema <= schema_version(connection)?;
    if goes_on { Ok(()) } else { Err(StoreError::OtherLog) }
}

/// Whether a log beside the database has anything in it.
pub(super) fn is_there(database: &Path) -> bool {
    beside(database, "-wal").metadata().is_ok_and(|log| log.len() > 0)
}

/// Moves the log away from the database, under another name. Nothing may have the database open.
pub(super) fn set_aside(database: &Path) -> io::Result<()> {
    let log = beside(database, "-wal");
    let aside = beside(&log, &format!(".aside-{}", OffsetDateTime::now_utc().unix_timestamp()));
    match std::fs::rename(&log, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    if let Some(directory) = database.parent() {
        File::open(directory)?.sync_all()?;
    }
    let aside = aside.display();
    tracing::warn!(%aside, "set aside xfer.db-wal, which does not belong to the database");
    Ok(())
}

/// A transaction's beginning, which its end is compared with.
pub(super) struct Begun {
    next: u64,
    /// Whether the file has all that was committed before, so that the log may begin anew.
    is_in_file: bool,
    changes: u64,
}

impl Begun {
    /// Looks at a transaction that has the write lock. Only another connection, `observer`, can
    /// tell how much of the log is in the file. A log that begins anew in this transaction was
    /// wholly in the file at its beginning, and nobody else has added to it since.
    pub(super) fn of(
        transaction: &Transaction<'_>,
        observer: &Connection,
    ) -> Result<Begun, StoreError> {
        let sql = "PRAGMA wal_checkpoint = NOOP";
        let (pages, in_file): (i64, i64) =
            observer.prepare_cached(sql)?.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
        Ok(Begun {
            next: numbers::ids_end(transaction)?,
            is_in_file: pages == in_file && pages >= 0,
            changes: transaction.total_changes(),
        })
    }

    /// Raises the counter if the transaction changed rows and did not raise it, and notes that a log may
    /// begin here. Returns the counter, or `None` if nothing was changed.
    pub(super) fn end(self, transaction: &Transaction<'_>) -> Result<Option<u64>, StoreError> {
        if transaction.total_changes() == self.changes {
            return Ok(None);
        }
        self.note(transaction)?;
        let end = numbers::ids_end(transaction)?;
        if end > self.next { Ok(Some(end)) } else { numbers::count(transaction).map(Some) }
    }

    /// Notes that a log may begin in this transaction, if that is so.
    pub(super) fn note(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        if self.is_in_file {
            let sql = "UPDATE ids SET in_file = ?";
            change(transaction, sql, [self.next.cast_signed()])?;
            // Writes the first page, so that a log never lacks the tables that its rows belong to.
            let version: i32 =
                transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            transaction.pragma_update(None, "user_version", version)?;
        }
        Ok(())
    }
}

/// A path as a part of a URI.
fn escaped(path: &OsStr) -> String {
    let mut uri = String::new();
    for byte in path.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02x}"));
        }
    }
    uri
}
