//! The figures of the store, which has to be asked for them.
//!
//! **Invariant:** one question at a time is under way, and none within a second of the last answer. So
//! however often somebody wants the figures, the store has little to do for that, and one that hangs
//! holds one task.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use xfer_protocol::Timestamp;
use xfer_store::{Disk, Store, StoreError, StoreSize, WrongPasswords};

/// How old an answer may be.
const AGE_MAX: Duration = Duration::from_secs(1);

/// How long somebody who wants the figures waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a store has and takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Storing {
    /// Accounts.
    pub accounts: u64,
    /// Pairs of an account and an address, or addresses alone, that are locked out now.
    pub lockouts: u64,
    /// Deliveries that wait to be accepted.
    pub deliveries_waiting: u64,
    /// Their size, as inboxes count it, in bytes.
    pub deliveries_waiting_bytes: u64,
    /// The database with its log, in bytes.
    pub database_bytes: u64,
    /// Contents; absent until they were counted.
    pub contents: Option<u64>,
    /// The space that is allocated for contents, in bytes; absent until they were counted.
    pub contents_bytes: Option<u64>,
    /// The free space on the store's disk, in bytes.
    pub disk_free_bytes: u64,
    /// The size of the store's disk, in bytes.
    pub disk_bytes: u64,
}

/// A lockout in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lockout {
    /// The name as it was typed; empty for all accounts.
    pub user: String,
    /// The address that is locked out.
    pub address: String,
    /// The number of wrong passwords.
    pub count: u32,
    /// Until when, in seconds since 1970.
    pub until_secs: i64,
}

/// Asks the store.
pub(super) struct Asker {
    asked: Arc<Notify>,
    answers: watch::Receiver<Option<Answered>>,
    /// The task that asks, which ends with this.
    _task: JoinSet<()>,
}

/// The last answer.
struct Answered {
    at: Instant,
    /// `None` if the store failed.
    stored: Option<(Storing, Vec<Lockout>)>,
}

impl Asker {
    /// Asks this store. Needs a tokio runtime.
    pub(super) fn new(store: Store) -> Asker {
        let (sender, answers) = watch::channel(None);
        let asked = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        task.spawn(answer(store, asked.clone(), sender));
        Asker { asked, answers, _task: task }
    }

    /// What the store has now. `None` if it fails, or does not answer in time.
    pub(super) async fn ask(&self) -> Option<(Storing, Vec<Lockout>)> {
        let mut answers = self.answers.clone();
        let oldest = Instant::now().checked_sub(AGE_MAX);
        let is_new = |answered: &Option<Answered>| {
            answered.as_ref().is_some_and(|answered| Some(answered.at) > oldest)
        };
        if !is_new(&answers.borrow()) {
            self.asked.notify_one();
        }
        let answered = timeout(PATIENCE, answers.wait_for(is_new)).await.ok()?.ok()?;
        answered.as_ref()?.stored.clone()
    }
}

/// Asks the store whenever somebody wants to know.
async fn answer(store: Store, asked: Arc<Notify>, answers: watch::Sender<Option<Answered>>) {
    loop {
        asked.notified().await;
        let stored = read(&store).await.inspect_err(|error| {
            tracing::warn!(%error, "the store's figures cannot be read");
        });
        answers.send_replace(Some(Answered { at: Instant::now(), stored: stored.ok() }));
    }
}

async fn read(store: &Store) -> Result<(Storing, Vec<Lockout>), StoreError> {
    let accounts = store.accounts.list().await?;
    let lockouts = lockouts(store.failures.list().await?, SystemTime::now().into());
    let StoreSize { database_bytes, contents } = store.keeper.size().await?;
    let Disk { free, size } = store.contents.disk().await?;
    // What waits for a removed account is kept with it.
    let removed = store.accounts.removed().await?;
    let all = accounts.iter().chain(removed.iter().map(|removed| &removed.account));
    let storing = Storing {
        accounts: accounts.len() as u64,
        lockouts: lockouts.len() as u64,
        deliveries_waiting: store.deliveries.count_waiting().await?,
        deliveries_waiting_bytes: all.map(|account| account.waiting.bytes).sum(),
        database_bytes,
        contents: contents.map(|contents| contents.count),
        contents_bytes: contents.map(|contents| contents.bytes),
        disk_free_bytes: free.bytes,
        disk_bytes: size.bytes,
    };
    Ok((storing, lockouts))
}

/// Those that are in force now.
fn lockouts(failures: Vec<WrongPasswords>, now: Timestamp) -> Vec<Lockout> {
    let in_force = failures.into_iter().filter(|failure| failure.blocked_until > now);
    let lockout = |failure: WrongPasswords| Lockout {
        user: failure.user,
        address: failure.address,
        count: failure.count,
        until_secs: failure.blocked_until.secs(),
    };
    in_force.map(lockout).collect()
}
