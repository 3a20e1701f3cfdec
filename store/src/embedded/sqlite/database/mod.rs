//! Who may use the database when: one writer, and a few readers beside it.
//!
//! **Invariant:** all writing goes through one connection, in transactions that begin by taking the
//! write lock: a transaction never fails half-way because another one wrote.

mod mark;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

pub(super) use mark::Mark;

use crate::StoreError;

/// How many threads can read at the same time; others wait for their turn.
const READERS: usize = 4;

/// How long a transaction waits to begin, while another process (`xfer-server user`) writes.
/// Nothing is lost by waiting, and a transaction that fails ends everybody's session.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The open connections to one database.
pub(super) struct Connections {
    writer: Mutex<Connection>,
    readers: [Mutex<Connection>; READERS],
    /// Spreads those who must wait over the readers.
    turn: AtomicUsize,
    /// Where the database is, with no symbolic link on the way: its further files stand there too.
    path: PathBuf,
}

impl Connections {
    pub(super) fn open(dir: &Path, path: &Path) -> Result<Connections, StoreError> {
        let writer = schema::open_first(dir, path)?;
        let path = writer.path().map_or_else(|| path.to_owned(), PathBuf::from);
        let reader = || schema::open_reader(&path).map(Mutex::new);
        let readers = [reader()?, reader()?, reader()?, reader()?];
        Ok(Connections { writer: Mutex::new(writer), readers, turn: AtomicUsize::new(0), path })
    }

    /// The files beside the database, which are there as long as it is open: its write-ahead log and
    /// the log's index.
    pub(super) fn further_files(&self) -> [PathBuf; 2] {
        ["-wal", "-shm"].map(|end| {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            path.into()
        })
    }

    /// Reads what is committed: in `work`, all statements see one state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut reader = self.lock_reader();
        let transaction = reader.transaction()?;
        work(&transaction)
    }

    /// Does `work` in one transaction: all of it is durable in the end, or nothing was done.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A panic rolls the transaction back: the connection is as good as before.
        let writer = self.writer.lock();
        let transaction = begin(&writer)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// A number that is another one after another process has committed something: what this one
    /// commits, it commits by the connection that is asked.
    pub(super) fn others_commits(&self) -> Result<u64, StoreError> {
        let version: i64 =
            self.writer.lock().pragma_query_value(None, "data_version", |row| row.get(0))?;
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

/// Takes the write lock. That another process has it is no failure: nothing was written yet.
fn begin(writer: &Connection) -> Result<Transaction<'_>, StoreError> {
    let start = Instant::now();
    loop {
        // The connection is locked, and has no other transaction.
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
