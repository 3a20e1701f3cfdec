//! Rows in SQLite: the part of the engine that keeps rows.
//!
//! The database is `xfer.db` in the store's directory, with a write-ahead log that is synced at
//! each commit. Other processes (`xfer-server user add`) may use it at the same time. Only this
//! module and its submodules contain SQL.
//!
//! A batch is written as it is: the server has already checked it against the tree's rules.

mod database;
mod rows;
mod tree;
mod commit;
mod admission;
mod contents;
mod numbers;
mod trims;
mod deliveries;
mod accounts;
mod failures;
mod keys;
pub mod check;
#[cfg(test)]
mod tests;

pub use database::FORMAT;
pub use trims::{OwnContent, Trim};

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use database::{Connections, Mark};
use rusqlite::{ErrorCode, Transaction};

use super::OlderDatabase;
use super::claim;
use super::files::FileStore;
use super::lock::{must_not_be_others, prepare_directory};
use super::place::Pin;
use crate::inbox::Inboxes;
use crate::{AccountId, Batch, Committed, Purpose, StoreError};

/// A store's rows, in its `xfer.db`.
pub struct SqliteStore {
    dir: PathBuf,
    connections: Connections,
    /// The database's files. If one is replaced, another process would open the new one, and would
    /// miss this process's writes or see them torn.
    pins: Vec<Pin>,
    mark: Mark,
}

impl SqliteStore {
    /// Opens the database in the store's directory `dir`, and creates a missing database and
    /// directory. Upgrades a database of an older version.
    ///
    /// # Errors
    /// If they can't be read and written, or were written by a newer version of this program, or by
    /// an older one that is still running. [`StoreError::Older`] and [`StoreError::OtherLog`] if
    /// the log beside the database does not belong to it.
    pub fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_as(dir, OlderDatabase::Refuse)
    }

    /// The same, with the choice to accept a database file that is older than the log beside it. That log
    /// is then set aside, because it can't be used.
    ///
    /// # Errors
    /// As above.
    pub fn open_as(dir: &Path, older: OlderDatabase) -> Result<SqliteStore, StoreError> {
        prepare_directory(dir)?;
        let path = dir.join("xfer.db");
        prepare_file(dir, &path)
            .map_err(|error| StoreError::io(format!("the store's {}", path.display()), error))?;
        must_not_be_others(&path)?;
        let database = Pin::of("xfer.db", &path)?;
        let connections = Connections::open(dir, &path, older).map_err(|error| match error {
            StoreError::Database(text) => {
                StoreError::Database(format!("{}: {text}", path.display()))
            }
            StoreError::Damaged(text) => StoreError::Damaged(format!("{}: {text}", path.display())),
            // The other errors already name their source.
            other => other,
        })?;
        let [log, index] = connections.further_files();
        let pins = vec![database, Pin::of("xfer.db-wal", &log)?, Pin::of("xfer.db-shm", &index)?];
        let mark = Mark::open(dir).map_err(|error| StoreError::io("the store's numbers", error))?;
        let store = SqliteStore { dir: dir.to_owned(), connections, pins, mark };
        // The pinned file may have been replaced before the database was opened.
        store.check().map(|()| store)
    }

    /// Checks that the database's files are still the ones that were opened.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if they are not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.pins.iter().try_for_each(Pin::check)
    }

    /// The space that the database's file and its log take, in bytes.
    ///
    /// # Errors
    /// If they are not there.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let [log, _] = self.connections.further_files();
        let files = [self.dir.join("xfer.db"), log];
        let sizes = files.iter().map(|file| Ok(std::fs::metadata(file)?.len()));
        sizes.sum::<std::io::Result<u64>>().map_err(|error| StoreError::io("the database", error))
    }

    /// Claims an account for a command that works on it, for as long as the file is open. `None` if
    /// another command has claimed it. The command must check for a session only after that.
    ///
    /// # Errors
    /// If the claim can't be made.
    pub fn claim(&self, account: AccountId, purpose: Purpose) -> Result<Option<File>, StoreError> {
        claim::claim(&self.dir, account, purpose)
    }

    /// Checks that the database is the one that the contents belong to, and not an older copy.
    /// Lists all contents if no mark was written yet.
    ///
    /// # Errors
    /// [`StoreError::Older`] if it is an older copy.
    pub fn must_be_current(&self, contents: &FileStore) -> Result<(), StoreError> {
        let end = self.ids_end()?;
        let known = match self.mark.read()? {
            Some(known) => known,
            None => contents.highest()?.map_or(0, |highest| highest.0 + 1),
        };
        if known > end {
            return Err(StoreError::Older { end, known });
        }
        Ok(self.mark.raise_durably(end)?)
    }

    /// Accepts an older database together with the present contents. Numbers that may have been
    /// granted since it was copied are skipped.
    ///
    /// # Errors
    /// If the counter or the mark can't be written.
    pub fn accept_as_current(&self, contents: &FileStore, known: u64) -> Result<(), StoreError> {
        let highest = contents.highest()?.map_or(0, |highest| highest.0 + 1);
        // Above all of them, so that a log that begins here begins above any file of before.
        let end = known.max(highest).saturating_add(1);
        self.write(|writer| numbers::skip_ids(writer, end))?;
        // The log begins anew with the count, and so does not belong to any database from before.
        self.connections.fill_file()?;
        self.write(numbers::count)?;
        Ok(self.mark.raise_durably(end)?)
    }

    /// Records that the contents belong to a database whose counter had reached `known`.
    ///
    /// # Errors
    /// If the mark can't be written.
    pub fn note_known(&self, known: u64) -> Result<(), StoreError> {
        Ok(self.mark.raise_durably(known)?)
    }

    /// Only logs a failure, because the mark merely helps to notice a mistake.
    fn marked(&self, raised: std::io::Result<()>) {
        if let Err(error) = raised {
            tracing::warn!(%error, "how far the database has come is not noted beside it");
        }
    }

    /// Does `work` in one transaction, and checks that its files are still in place, so that the
    /// result is durable where the next server will look for it. If it changed rows, any copy of the
    /// database from before is detectably older.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (done, end) = self.connections.write(work)?;
        self.check()?;
        if let Some(end) = end {
            self.marked(self.mark.raise(end));
        }
        Ok(done)
    }

    /// Writes each batch in a separate transaction, except the one whose `error` ended the common
    /// transaction.
    fn commit_singly(
        &self,
        batches: &[Batch],
        inboxes: &mut Inboxes,
        culprit: Option<usize>,
        error: StoreError,
    ) -> Vec<Result<Committed, StoreError>> {
        let mut error = Some(error);
        let alone = |(place, batch): (usize, &Batch)| {
            if let Some(error) = error.take_if(|_| culprit == Some(place)) {
                return Err(error);
            }
            let mut spoken_for = inboxes.clone();
            let committed = self.write(|writer| commit::write(writer, batch, &mut spoken_for))?;
            *inboxes = spoken_for;
            Ok(committed)
        };
        batches.iter().enumerate().map(alone).collect()
    }

    /// Checks the list of accounts: damaged rows would look like users who don't exist.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the list is damaged.
    pub fn check_accounts(&self) -> Result<(), StoreError> {
        self.connections.read(|reader| accounts::check(reader))
    }
}

/// Creates the file, since SQLite would make it readable by others; its further files get the same
/// mode. An existing file is not opened: closing it would drop the locks of another store in this
/// process.
fn prepare_file(dir: &Path, path: &Path) -> std::io::Result<()> {
    let make = |options: &mut OpenOptions| options.append(true).mode(0o600).open(path);
    match make(OpenOptions::new().create_new(true)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if !path.try_exists()? {
                // A symbolic link whose target does not exist yet.
                make(OpenOptions::new().create(true))?;
            }
        }
        made => drop(made?),
    }
    File::open(dir)?.sync_all()
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Damaged(format!("the database: {error}"))
            }
            _ => StoreError::Database(error.to_string()),
        }
    }
}

impl SqliteStore {
    /// Commits batches of several accounts in one transaction: see
    /// [`Trees::commit`](crate::Trees::commit). Assumes that no room in inboxes is reserved.
    ///
    /// # Errors
    /// If the transaction as a whole fails.
    pub fn commit_each(
        &self,
        batches: &[Batch],
    ) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        self.commit_within(batches, &mut Inboxes::default())
    }

    /// The same, for batches that belong together. Returns the first failure.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn commit(&self, batches: &[Batch]) -> Result<Vec<Committed>, StoreError> {
        self.commit_each(batches)?.into_iter().collect()
    }

    /// The same, for batches whose deliveries must fit beside reservations in inboxes.
    pub(super) fn commit_within(
        &self,
        batches: &[Batch],
        inboxes: &mut Inboxes,
    ) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        let mut culprit = None;
        // A copy, because a rolled-back transaction must not use up reservations.
        let mut spoken_for = inboxes.clone();
        let together =
            self.write(|writer| commit::write_each(writer, batches, &mut spoken_for, &mut culprit));
        match together {
            Ok(committed) => {
                *inboxes = spoken_for;
                Ok(committed)
            }
            Err(error) if culprit.is_none() && !matches!(error, StoreError::Full) => Err(error),
            // SQLite rolled the transaction back before any of it was synced, so the other batches
            // can be written again. The same holds for a full disk at the commit, which is a failed
            // write. After any other failure there it does not hold, since the sync may have
            // failed.
            Err(error) => Ok(self.commit_singly(batches, inboxes, culprit, error)),
        }
    }

    /// A number that changes whenever another process has committed, which may have left garbage
    /// without any signal.
    pub(super) fn others_commits(&self) -> Result<u64, StoreError> {
        self.connections.others_commits()
    }
}
