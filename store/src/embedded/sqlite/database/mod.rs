//! The connections to the database: one that writes, and a few that read beside it.
//!
//! **Invariant:** all writes use one connection, in transactions that begin by taking the write
//! lock, so no transaction fails half-way because of another write.

mod mark;
mod log;
mod schema;
mod upgrades;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

pub(super) use mark::Mark;

use crate::StoreError;
use crate::embedded::OlderDatabase;

/// The version of the tables that this program writes.
pub const FORMAT: i32 = schema::VERSION;

/// The number of concurrent readers; further threads wait.
const READERS: usize = 4;

/// How long a transaction waits to begin while another process (`xfer-server user`) writes. A wait
/// loses no data, but a failed transaction ends all sessions.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// All open connections to one database.
pub(super) struct Connections {
    writer: Mutex<Writer>,
    readers: [Mutex<Connection>; READERS],
    /// Spreads waiting threads over the readers.
    turn: AtomicUsize,
    /// The database's path without symbolic links; its further files are next to it.
    path: PathBuf,
}

/// The connection that writes, and one that observes its log.
struct Writer {
    connection: Connection,
    observer: Connection,
}

impl Connections {
    /// Opens an existing file as the database.
    pub(super) fn open(
        dir: &Path,
        path: &Path,
        older: OlderDatabase,
    ) -> Result<Connections, StoreError> {
        let path = path.canonicalize()?;
        let connection = schema::open_first(dir, &path, older)?;
        let writer = Writer { connection, observer: schema::open_reader(&path)? };
        let reader = || schema::open_reader(&path).map(Mutex::new);
        let readers = [reader()?, reader()?, reader()?, reader()?];
        Ok(Connections { writer: Mutex::new(writer), readers, turn: AtomicUsize::new(0), path })
    }

    /// The files beside the database, which exist as long as it is open: its write-ahead log and
    /// the log's index.
    pub(super) fn further_files(&self) -> [PathBuf; 2] {
        ["-wal", "-shm"].map(|end| log::beside(&self.path, end))
    }

    /// Reads committed rows. All statements in `work` see one snapshot.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut reader = self.lock_reader();
        let transaction = reader.transaction()?;
        work(&transaction)
    }

    /// Another connection, only to read.
    pub(super) fn another_reader(&self) -> Result<Connection, StoreError> {
        schema::open_reader(&self.path)
    }

    /// Does `work` in one transaction, which is either durable as a whole or leaves no trace.
    /// Returns its result, and the counter of numbers if it changed rows.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, Option<u64>), StoreError> {
        // A panic rolls the transaction back, and the connection stays usable.
        let writer = self.writer.lock();
        let transaction = begin(&writer.connection)?;
        let begun = log::Begun::of(&transaction, &writer.observer)?;
        let done = work(&transaction)?;
        let end = begun.end(&transaction)?;
        transaction.commit()?;
        Ok((done, end))
    }

    /// Copies the whole log to the database's file, unless another process is at it or reads.
    pub(super) fn fill_file(&self) -> Result<(), StoreError> {
        log::copy_to_file(&self.writer.lock().connection)
    }

    /// A number that changes whenever another process has committed. SQLite leaves out the commits
    /// of the connection that is asked, which makes all of this process's commits.
    pub(super) fn others_commits(&self) -> Result<u64, StoreError> {
        let writer = self.writer.lock();
        let version: i64 =
            writer.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(version.cast_unsigned())
    }

    fn lock_reader(&self) -> MutexGuard<'_, Connection> {
        for reader in &self.readers {
            if let Some(guard) = reader.try_lock() {
                return guard;
            }
        }
        self.readers[self.turn.fetch_add(1, Ordering::Relaxed) % READERS].lock()
    }
}

/// Takes the write lock. If another process holds it, this waits: no row was written yet.
fn begin(writer: &Connection) -> Result<Transaction<'_>, StoreError> {
    let start = Instant::now();
    loop {
        // The connection is locked, so it has no other transaction.
        match Transaction::new_unchecked(writer, TransactionBehavior::Immediate) {
            Err(error) if is_busy(&error) && start.elapsed() < BEGIN_PATIENCE => {
                let seconds = start.elapsed().as_secs();
                tracing::warn!(seconds, "another process is writing to the store");
            }
            begun => return Ok(begun?),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}
