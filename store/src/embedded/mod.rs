//! The engine for one machine: rows in SQLite, bytes in plain files, in one directory.
//!
//! Its parts are synchronous. Each call of a waist hops once to a thread that may block (`waists`)
//! and does all its work there. `housekeeping` runs in the background.
//!
//! A store has one server at a time (`lock`), so reservations in inboxes are kept in the server's
//! memory (`inbox`). Commands open the store beside it.

pub mod sqlite;
pub mod files;
mod waists;
mod ledger;
mod performing;
mod housekeeping;
mod lock;
mod place;
mod fresh;
mod claim;
mod check;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};

use crate::inbox::Inboxes;
use xfer_protocol::Epoch;

use crate::{Account, AccountId, Answer, IfMissing, Register, Store, StoreError};

pub use files::{FileStore, Files};
pub use lock::{StoreLock, prepare_directory};
pub use place::syncs_as_a_whole;
pub use sqlite::{FORMAT, SqliteStore};

pub(crate) use check::check;
use housekeeping::{Measured, Untidy, Watched};
use ledger::Ledger;

/// How to treat a database that is older than the contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OlderDatabase {
    /// Refuse it.
    Refuse,
    /// Accept it, because the administrator asked for that.
    Accept,
}

/// The settings under which a server serves a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Serving {
    /// How to treat a database that is older than the contents.
    pub older: OlderDatabase,
    /// The number of days for which contents that were set aside are kept.
    pub keep_lost_days: u16,
    /// The number of days for which removed accounts are kept.
    pub keep_removed_days: u16,
}

/// The use of contents by a command beside a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// It creates none.
    Keeping,
    /// It creates contents, which the server must not mistake for lost ones.
    Making,
}

/// The engine over one store.
struct Embedded {
    parts: Arc<Parts>,
    /// Its background tasks, which end with the engine.
    _tasks: JoinSet<()>,
}

/// The parts of the engine.
struct Parts {
    rows: Arc<SqliteStore>,
    files: Arc<dyn Files>,
    inboxes: Mutex<Inboxes>,
    /// Signalled when there may be garbage.
    wake: Notify,
    /// The accounts with a running session, each with its epoch.
    running: Mutex<BTreeMap<AccountId, Epoch>>,
    /// Tells of accounts to be looked through.
    untidy: UnboundedSender<Untidy>,
    /// The reason why the store must not be written to any more.
    trouble: watch::Sender<Option<StoreError>>,
    /// Set only if the store is served: the parts that must stay in place, and the number of days
    /// for which contents that were set aside are kept.
    watched: Option<(Watched, u16)>,
    measured: Measured,
}

impl Parts {
    fn new(
        rows: Arc<SqliteStore>,
        files: Arc<dyn Files>,
        watched: Option<(Watched, u16)>,
    ) -> (Arc<Parts>, UnboundedReceiver<Untidy>) {
        let (untidy, told) = unbounded_channel();
        let (inboxes, running) = (Mutex::default(), Mutex::default());
        let (wake, trouble, measured) =
            (Notify::new(), watch::Sender::new(None), Measured::default());
        let parts =
            Parts { rows, files, inboxes, wake, running, untidy, trouble, watched, measured };
        (Arc::new(parts), told)
    }

    /// Notes that a session runs.
    fn note_begun(&self, account: &Account) {
        self.running.lock().insert(account.id, account.epoch);
    }

    /// Notes that the session of this epoch is over.
    fn note_over(&self, account: AccountId, epoch: Epoch) {
        let mut running = self.running.lock();
        if running.get(&account) == Some(&epoch) {
            running.remove(&account);
        }
    }

    /// Whether the account's session of this epoch is running: it has begun, and has not ended or been
    /// fenced.
    fn runs(&self, account: AccountId, epoch: Epoch) -> Result<bool, StoreError> {
        let has_begun = self.running.lock().get(&account) == Some(&epoch);
        Ok(has_begun && self.rows.is_at(account, epoch)?)
    }

    /// Records why the store must not be written to any more.
    fn fail(&self, error: StoreError) {
        self.trouble.send_replace(Some(error));
    }
}

impl Embedded {
    /// Runs `work` on a thread that may block.
    fn hop<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Parts) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        let parts = self.parts.clone();
        Box::pin(async move {
            // Either the work panicked, which is logged separately, or the process is ending.
            spawn_blocking(move || work(&parts)).await.unwrap_or(Err(StoreError::Panicked))
        })
    }
}

/// Opens the store in a directory for a server, which has sole use of it from now on. A missing
/// store is created. Needs a tokio runtime.
///
/// # Errors
/// If it can't be served: [`StoreError::InUse`] if another server has it.
pub(crate) fn serve(dir: &Path, serving: Serving) -> Result<Store, StoreError> {
    let is_new = !fresh::has_store_or_room(dir)?;
    let lock = StoreLock::take(dir)?.keep();
    let rows = Arc::new(SqliteStore::open_as(dir, serving.older)?);
    rows.check_accounts()?;
    let files = Arc::new(FileStore::open(dir)?.whole_from(rows.whole_from()?));
    housekeeping::prepare(&rows, &files, serving.older)?;
    // A store whose disk is full is served too.
    if rows.days_kept()? != serving.keep_removed_days {
        rows.keep_removed(serving.keep_removed_days)?;
    }
    let watched = Watched { lock, rows: rows.clone(), files: files.clone() };
    let store = start(Parts::new(rows, files, Some((watched, serving.keep_lost_days))));
    Ok(Store { is_new, ..store })
}

/// The store over these parts, which must have no other server. Needs a tokio runtime.
pub fn over(rows: Arc<SqliteStore>, files: Arc<dyn Files>) -> Store {
    start(Parts::new(rows, files, None))
}

/// Opens an existing store for a command, beside a server or without one.
///
/// # Errors
/// If it can't be used.
pub(crate) fn beside(dir: &Path, beside: Beside) -> Result<Store, StoreError> {
    let rows = Arc::new(SqliteStore::open(dir)?);
    let files = FileStore::open(dir)?.whole_from(rows.whole_from()?);
    match beside {
        Beside::Making => files.make_beside_server()?,
        Beside::Keeping => {}
    }
    rows.must_be_current(&files)?;
    let (parts, _) = Parts::new(rows, Arc::new(files), None);
    Ok(store(parts, JoinSet::new()))
}

/// Opens the accounts of a store for a command.
pub(crate) fn register(dir: &Path, if_missing: IfMissing) -> Result<Register, StoreError> {
    match if_missing {
        IfMissing::Make => {
            fresh::has_store_or_room(dir)?;
            prepare_directory(dir)?;
        }
        IfMissing::Fail => must_be_there(dir)?,
    }
    Ok(register_over(Arc::new(SqliteStore::open(dir)?)))
}

/// The accounts, wrong passwords and keys in these rows.
pub fn register_over(rows: Arc<SqliteStore>) -> Register {
    let ledger = Arc::new(Ledger(rows));
    Register { accounts: ledger.clone(), failures: ledger.clone(), keys: ledger }
}

/// A mistyped directory must be an error, not a new store.
fn must_be_there(dir: &Path) -> Result<(), StoreError> {
    std::fs::metadata(dir.join("xfer.db")).map(drop).map_err(|error| StoreError::Missing {
        place: dir.display().to_string(),
        error: Arc::new(error),
    })
}

fn start((parts, untidy): (Arc<Parts>, UnboundedReceiver<Untidy>)) -> Store {
    let tasks = housekeeping::start(&parts, untidy);
    store(parts, tasks)
}

fn store(parts: Arc<Parts>, tasks: JoinSet<()>) -> Store {
    let Register { accounts, failures, keys } = register_over(parts.rows.clone());
    let engine = Arc::new(Embedded { parts, _tasks: tasks });
    Store {
        trees: engine.clone(),
        contents: engine.clone(),
        deliveries: engine.clone(),
        accounts,
        failures,
        keys,
        keeper: engine,
        is_new: false,
    }
}
