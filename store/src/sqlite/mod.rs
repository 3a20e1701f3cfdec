//! Rows in SQLite: the engine of [`MetaStore`] for one machine.
//!
//! The database is `xfer.db` in the store's directory, with a write-ahead log that is synced at each
//! commit. Other processes (`xfer-server user add`) may use it at the same time. Only this module
//! and those in it name SQL.
//!
//! What a batch says is written as it stands: whether it follows the tree's rules was decided before.

mod schema;

mod connections;

mod mark;

mod rows;

mod tree;

mod commit;

mod contents;

mod trims;

mod deliveries;

mod accounts;

mod removal;

mod failures;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use connections::Connections;
use mark::Mark;
use rusqlite::{ErrorCode, Transaction};
use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::{Delivery, Node, Quota, Usage};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, Timestamp};

use super::claim::{self, Claim, Purpose};
use super::files::FileStore;
use super::lock::{must_not_be_others, prepare_directory};
use super::place::Pin;
use super::{
    Account, AccountId, Batch, Committed, Failures, ForgottenBefore, ListMax, Listing, MetaStore,
    OwnContent, StoreError, Trim,
};

/// How long a removal lets others write after each of its transactions: as long as that took,
/// within these bounds. Other processes ask for the write lock only about every 100 ms.
const REMOVAL_PAUSE: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(1);

/// A store's rows, in its `xfer.db`.
pub struct SqliteStore {
    dir: PathBuf,
    connections: Connections,
    /// The database's files. A process that opens another one of either would not see what this one
    /// writes, or would see it torn.
    pins: Vec<Pin>,
    mark: Mark,
}

impl SqliteStore {
    /// Opens the database in the store's directory `dir`, making both if they are not there yet. A
    /// database of an older version is upgraded.
    ///
    /// # Errors
    /// If they can't be read and written, or were written by a newer version of this program, or by
    /// an older one that is still running.
    pub fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
        prepare_directory(dir)?;
        let path = dir.join("xfer.db");
        prepare_file(dir, &path)
            .map_err(|error| StoreError::io(format!("the store's {}", path.display()), error))?;
        must_not_be_others(&path)?;
        let database = Pin::of("xfer.db", &path)?;
        let connections = Connections::open(dir, &path).map_err(|error| match error {
            StoreError::Database(text) => {
                StoreError::Database(format!("{}: {text}", path.display()))
            }
            StoreError::Damaged(text) => StoreError::Damaged(format!("{}: {text}", path.display())),
            other @ (StoreError::Full
            | StoreError::Refused(_)
            | StoreError::Gone(_)
            | StoreError::Unsafe(_)
            | StoreError::Older { .. }
            | StoreError::Io { .. }) => other,
        })?;
        let [log, index] = connections.further_files();
        let pins = vec![database, Pin::of("xfer.db-wal", &log)?, Pin::of("xfer.db-shm", &index)?];
        let mark = Mark::open(dir).map_err(|error| StoreError::io("the store's numbers", error))?;
        let store = SqliteStore { dir: dir.to_owned(), connections, pins, mark };
        // The file that was pinned may have been replaced before it was opened.
        store.check().map(|()| store)
    }

    /// Makes sure that the database's files are still those that were opened.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if they are not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.pins.iter().try_for_each(Pin::check)
    }

    /// Claims an account, for a command that works on it. None if another does already. Whether it has
    /// a session is to be asked after that.
    ///
    /// # Errors
    /// If the claim can't be made.
    pub fn claim(&self, account: AccountId, purpose: Purpose) -> Result<Option<Claim>, StoreError> {
        claim::claim(&self.dir, account, purpose)
    }

    /// Makes sure that the database is the one that the contents belong to, and not one of before.
    /// Lists all contents where nothing was written down of that.
    ///
    /// # Errors
    /// [`StoreError::Older`] if it is one of before.
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

    /// Uses a database of before with the contents that are there: no number is given again that may
    /// have been given since.
    ///
    /// # Errors
    /// If that can't be written.
    pub fn accept_as_current(&self, contents: &FileStore, known: u64) -> Result<(), StoreError> {
        let highest = contents.highest()?.map_or(0, |highest| highest.0 + 1);
        let end = known.max(highest);
        self.write(|writer| contents::skip_ids(writer, end))?;
        Ok(self.mark.raise_durably(end)?)
    }

    /// Notes that the contents belong to a database that had come so far.
    ///
    /// # Errors
    /// If that can't be written.
    pub fn note_known(&self, known: u64) -> Result<(), StoreError> {
        Ok(self.mark.raise_durably(known)?)
    }

    /// The mark only helps to notice a mistake: nothing fails for it.
    fn marked(&self, raised: std::io::Result<()>) {
        if let Err(error) = raised {
            tracing::warn!(%error, "how far the database has come is not noted beside it");
        }
    }

    /// Does `work` in one transaction, which is durable in the end where it will be looked for.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = self.connections.write(work)?;
        self.check().map(|()| done)
    }

    /// Writes batches in a transaction each, but for the one that ended their common one by `error`.
    fn commit_singly(
        &self,
        batches: &[Batch],
        culprit: Option<usize>,
        error: StoreError,
    ) -> Vec<Result<Committed, StoreError>> {
        let mut error = Some(error);
        let alone = |(place, batch)| {
            if let Some(error) = error.take_if(|_| culprit == Some(place)) {
                return Err(error);
            }
            let (committed, end) =
                self.write(|writer| Ok((commit::write(writer, batch)?, contents::count(writer)?)))?;
            self.marked(self.mark.raise(end));
            Ok(committed)
        };
        batches.iter().enumerate().map(alone).collect()
    }

    /// Checks the list of accounts: damage there would look like users who don't exist.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is.
    pub fn check_accounts(&self) -> Result<(), StoreError> {
        self.connections.read(|reader| accounts::check(reader))
    }
}

/// Makes the file, since SQLite would let others read it; its further files get the same mode. One
/// that is there is not opened: to close it would drop the locks of another store of this process.
fn prepare_file(dir: &Path, path: &Path) -> std::io::Result<()> {
    let make = |options: &mut OpenOptions| options.append(true).mode(0o600).open(path);
    match make(OpenOptions::new().create_new(true)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if !path.try_exists()? {
                // A link to where nothing is yet.
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

impl MetaStore for SqliteStore {
    fn node(&self, account: AccountId, ino: Ino) -> Result<Option<Node>, StoreError> {
        self.connections.read(|reader| tree::node(reader, account, ino))
    }

    fn entry(
        &self,
        account: AccountId,
        parent: Ino,
        name: &Name,
    ) -> Result<Option<Ino>, StoreError> {
        self.connections.read(|reader| tree::entry(reader, account, parent, name))
    }

    fn page(
        &self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
        count: usize,
    ) -> Result<Vec<(Name, Ino, Node)>, StoreError> {
        self.connections.read(|reader| tree::page(reader, account, directory, after, count))
    }

    fn path(&self, account: AccountId, ino: Ino) -> Result<Option<Vec<Name>>, StoreError> {
        self.connections.read(|reader| tree::path(reader, account, ino))
    }

    fn list(
        &self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
        max: ListMax,
    ) -> Result<Listing, StoreError> {
        self.connections.read(|reader| tree::list(reader, account, directory, after, max))
    }

    fn orphans(&self, account: AccountId) -> Result<Vec<Ino>, StoreError> {
        self.connections.read(|reader| tree::orphans(reader, account))
    }

    fn commit_each(
        &self,
        batches: &[Batch],
    ) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        let mut culprit = None;
        let together = self.write(|writer| {
            Ok((commit::write_each(writer, batches, &mut culprit)?, contents::count(writer)?))
        });
        match together {
            Ok((committed, end)) => {
                self.marked(self.mark.raise(end));
                Ok(committed)
            }
            Err(error) if culprit.is_none() && !matches!(error, StoreError::Full) => Err(error),
            // SQLite undid the transaction, and nothing of it was synced: so what the others have in it
            // can be written anew. The same is true of a full disk at its end: that was a write. After
            // any other failure there it is not: that may have been the sync.
            Err(error) => Ok(self.commit_singly(batches, culprit, error)),
        }
    }

    fn content_exists(&self, content: ContentId) -> Result<bool, StoreError> {
        self.connections.read(|reader| contents::exists(reader, content))
    }

    fn whole_from(&self) -> Result<ContentId, StoreError> {
        self.connections.read(|reader| contents::whole_from(reader))
    }

    fn garbage(
        &self,
        after: Option<ContentId>,
        count: usize,
    ) -> Result<Vec<ContentId>, StoreError> {
        self.connections.read(|reader| contents::garbage(reader, after, count))
    }

    fn forget_garbage(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        self.write(|writer| contents::forget_garbage(writer, contents))
    }

    fn trims(&self, after: u64, count: usize) -> Result<Vec<Trim>, StoreError> {
        self.connections.read(|reader| trims::list(reader, after, count))
    }

    fn reached(&self, content: ContentId) -> Result<Option<Vec<Range<u64>>>, StoreError> {
        self.connections.read(|reader| trims::reached(reader, content))
    }

    fn forget_trims(&self, trims: &[Trim]) -> Result<(), StoreError> {
        self.connections.write(|writer| trims::forget(writer, trims))
    }

    fn left_trims(&self, account: AccountId) -> Result<Vec<(ContentId, Ino)>, StoreError> {
        self.connections.read(|reader| trims::left(reader, account))
    }

    fn forget_left_trims(&self, account: AccountId) -> Result<(), StoreError> {
        self.connections.write(|writer| trims::forget_left(writer, account))
    }

    fn note_left(&self, account: AccountId, left: &[(ContentId, Ino)]) -> Result<(), StoreError> {
        // The counter makes it a write even if nothing is noted.
        self.write(|writer| {
            contents::count(writer)?;
            trims::note_own(writer, account, left)
        })
    }

    fn own_contents(
        &self,
        account: AccountId,
        after: Option<Ino>,
        count: usize,
    ) -> Result<Vec<OwnContent>, StoreError> {
        self.connections.read(|reader| trims::own(reader, account, after, count))
    }

    fn note_tidied(&self, account: AccountId, epoch: Epoch) -> Result<(), StoreError> {
        self.write(|writer| accounts::note_tidied(writer, account, epoch))
    }

    fn while_unowned(
        &self,
        account: AccountId,
        epoch: Epoch,
        work: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        // A session begins with a write, in whichever process: this one's lock keeps it waiting.
        self.write(|writer| {
            let unowned = accounts::is_at(writer, account, epoch)? && !self.is_claimed(account)?;
            if unowned {
                work()?;
            }
            Ok(unowned)
        })
    }

    fn others_commits(&self) -> Result<u64, StoreError> {
        self.connections.others_commits()
    }

    fn grant_ids(&self, count: u64) -> Result<IdRange, StoreError> {
        let range = self.write(|writer| contents::grant_ids(writer, count))?;
        self.marked(self.mark.raise_durably(range.end));
        Ok(range)
    }

    fn ids_end(&self) -> Result<u64, StoreError> {
        self.connections.read(|reader| contents::ids_end(reader))
    }

    fn delivery(&self, to: AccountId, id: DeliveryId) -> Result<Option<Arc<Delivery>>, StoreError> {
        self.connections.read(|reader| deliveries::delivery(reader, to, id))
    }

    fn waiting_after(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Result<Vec<(u64, DeliveryHead)>, StoreError> {
        self.connections.read(|reader| deliveries::waiting(reader, to, after, count))
    }

    fn no_room(&self, from: AccountId) -> Result<Vec<(DeliveryId, DeliveryState)>, StoreError> {
        self.connections.read(|reader| deliveries::without_room(reader, from))
    }

    fn inbox_usage(&self, to: AccountId) -> Result<Usage, StoreError> {
        self.connections.read(|reader| deliveries::inbox_usage(reader, to))
    }

    fn delivery_state(&self, from: AccountId, id: DeliveryId) -> Result<DeliveryState, StoreError> {
        self.connections.read(|reader| deliveries::state(reader, from, id))
    }

    fn delivery_sender(&self, id: DeliveryId) -> Result<Option<AccountId>, StoreError> {
        self.connections.read(|reader| deliveries::sender(reader, id))
    }

    fn create_account(
        &self,
        name: &Name,
        password: &str,
        quota: Quota,
        inbox: Quota,
        time: Timestamp,
    ) -> Result<AccountId, StoreError> {
        let new = accounts::NewAccount { name, password, quota, inbox, time };
        self.write(|writer| accounts::create(writer, &new))
    }

    fn account(&self, name: &Name) -> Result<Option<Account>, StoreError> {
        self.connections.read(|reader| accounts::by_name(reader, name))
    }

    fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.connections.read(|reader| accounts::list(reader))
    }

    fn set_password(&self, account: AccountId, password: &str) -> Result<(), StoreError> {
        self.write(|writer| accounts::set_password(writer, account, password))
    }

    fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), StoreError> {
        self.write(|writer| accounts::set_quota(writer, account, quota))
    }

    fn set_inbox(&self, account: AccountId, inbox: Quota) -> Result<(), StoreError> {
        self.write(|writer| accounts::set_inbox(writer, account, inbox))
    }

    fn remove_account(&self, account: AccountId) -> Result<(), StoreError> {
        self.write(|writer| removal::retire(writer, account))
    }

    fn clear_removed(&self) -> Result<(), StoreError> {
        loop {
            let (start, now) = (Instant::now(), Timestamp::from(SystemTime::now()));
            if !self.write(|writer| removal::clear_some(writer, now))? {
                return Ok(());
            }
            let pause = start.elapsed().clamp(*REMOVAL_PAUSE.start(), *REMOVAL_PAUSE.end());
            std::thread::sleep(pause);
        }
    }

    fn begin_session(&self, account: AccountId) -> Result<Account, StoreError> {
        self.write(|writer| accounts::begin_session(writer, account))
    }

    fn is_claimed(&self, account: AccountId) -> Result<bool, StoreError> {
        claim::is_claimed(&self.dir, account)
    }

    fn failures(&self, user: &str, address: &str) -> Result<Option<Failures>, StoreError> {
        self.connections.read(|reader| failures::of_pair(reader, user, address))
    }

    fn all_failures(&self) -> Result<Vec<Failures>, StoreError> {
        self.connections.read(|reader| failures::list(reader))
    }

    fn set_failures(&self, failures: &Failures) -> Result<(), StoreError> {
        self.write(|writer| failures::set(writer, failures))
    }

    fn forget_failures(&self, before: ForgottenBefore) -> Result<(), StoreError> {
        self.write(|writer| failures::forget(writer, before))
    }
}
