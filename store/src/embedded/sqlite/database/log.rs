//! The write-ahead log, and whether it belongs to the database file.
//!
//! SQLite copies a log's pages over the database file beside it, whichever file that is. If one of
//! the two was put back without the other, the result is neither the older nor the newer database.
//! So both are compared before SQLite may copy anything, by what the only row of `ids` tells:
//!
//! - Each transaction that changes rows raises `next`, the counter of numbers.
//! - A log begins anew only when SQLite has copied all of it to the file, and synced that. The
//!   first transaction after that draws a random number as the new log's `tag`. It keeps the tag of
//!   the log before it in `tag_before`, how far the counter had come by then in `in_file`, and the
//!   version of the tables (which `VACUUM` raises, too, as it moves all pages) in `schema_in_file`.
//! - Each opening has SQLite copy the log first. So two copies of a store that was running don't
//!   both go on with the log of one tag.
//!
//! **Invariants:** the file alone has its log's `tag_before` or, once some of the log was copied to
//! it, its `tag`; another one is of another history. It is at `in_file` and `schema_in_file` of its
//! log or above: a lower one lacks pages that the log no longer has. And it is at `next` and at the
//! version of the tables of its log at most.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};
use time::OffsetDateTime;

use crate::StoreError;
use crate::embedded::sqlite::numbers;
use crate::embedded::sqlite::rows::change;

/// The path of a further file beside the database.
pub(super) fn beside(database: &Path, end: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// What the only row of `ids` tells: all 0 in a database without tables.
#[derive(Clone, Copy, Default)]
struct Ids {
    next: u64,
    in_file: u64,
    schema_in_file: i64,
    tag: i64,
    tag_before: i64,
}

impl Ids {
    /// Reads the row from tables of any version: columns that they lack are 0. `None` if there is
    /// no such table.
    fn of(connection: &Connection) -> rusqlite::Result<Option<Ids>> {
        let sql = "SELECT count(*) FROM pragma_table_info('ids')";
        let columns: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        let columns = match columns {
            0 => return Ok(None),
            1 => "next, 0, 0, 0, 0",
            2 => "next, in_file, 0, 0, 0",
            _ => "next, in_file, schema_in_file, tag, tag_before",
        };
        let sql = format!("SELECT {columns} FROM ids");
        let ids = connection.query_row(&sql, [], |row| {
            Ok(Ids {
                next: row.get::<_, i64>(0)?.cast_unsigned(),
                in_file: row.get::<_, i64>(1)?.cast_unsigned(),
                schema_in_file: row.get(2)?,
                tag: row.get(3)?,
                tag_before: row.get(4)?,
            })
        })?;
        Ok(Some(ids))
    }
}

/// The database file alone, without its log.
#[derive(Clone, Copy)]
pub(super) struct Alone {
    ids: Ids,
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
        let ids = Ids::of(&file).ok()?.unwrap_or_default();
        Some(Alone { ids, schema: schema_version(&file).ok()? })
    }

    pub(super) fn has_no_tables(self) -> bool {
        self.ids.next == 0
    }
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

/// Checks that the log beside the database belongs to the file `alone`. `connection` reads both.
/// A file without a log needs no check, and would fail it if SQLite's backup made it, which counts
/// the version of its tables anew.
///
/// # Errors
/// [`StoreError::Older`] if the file is older than the log's beginning, and
/// [`StoreError::OtherLog`] if the log does not belong to it for another reason.
pub(super) fn must_belong(connection: &Connection, alone: Alone) -> Result<(), StoreError> {
    let ids = match Ids::of(connection) {
        Ok(ids) => ids,
        // The file alone could be read: the log's pages hide a column.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => None,
        Err(error) => return Err(error.into()),
    };
    let ids = ids.ok_or(StoreError::OtherLog)?;
    if alone.ids.next < ids.in_file {
        return Err(StoreError::Older { end: alone.ids.next, known: ids.next });
    }
    let is_its_log = [ids.tag_before, ids.tag].contains(&alone.ids.tag);
    let tables = ids.schema_in_file..=schema_version(connection)?;
    let goes_on = alone.ids.next <= ids.next && tables.contains(&alone.schema);
    if is_its_log && goes_on { Ok(()) } else { Err(StoreError::OtherLog) }
}

/// Copies the whole log to the database's file, unless another process is at it or reads.
pub(super) fn copy_to_file(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint = PASSIVE", [], |_| Ok(()))?)
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
    /// The version of the tables in the file, if that has all that was committed before, so that the
    /// log may begin anew.
    schema_in_file: Option<i64>,
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
        let is_in_file = pages == in_file && pages >= 0;
        Ok(Begun {
            next: numbers::ids_end(transaction)?,
            schema_in_file: is_in_file.then(|| schema_version(transaction)).transpose()?,
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
        if let Some(schema) = self.schema_in_file {
            let sql = "UPDATE ids SET in_file = ?, schema_in_file = ?, tag = random(),
                tag_before = tag";
            change(transaction, sql, [self.next.cast_signed(), schema])?;
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
