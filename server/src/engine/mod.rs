//! The engine: sessions, their trees, and the commits that make them durable.
//!
//! It is given links that were admitted (who is there is known) and a store, and knows
//! neither TLS nor passwords.
//!
//! Reading order: `session` (what one is), `tree` (how ops are applied), `driver` (the task that has
//! them applied and committed), `durable` (commits), `link` (how
//! clients are heard and answered), `deliveries` (between users), and `solo` (a tree that is changed
//! without a client).
//!
//! **Invariant:** a panic while a session is served ends that session and nothing else.

mod session;
mod driver;
mod link;
mod clock;
mod stores;
mod tree;
mod durable;
mod deliveries;
pub(crate) mod solo;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use xfer_protocol::Name;
use xfer_protocol::message::{EndReason, ToClient};
use xfer_store::{Store, StoreError};

pub use clock::{Clock, SystemClock};
pub use session::SessionInfo;
pub use session::counters::{Counters, Counts};

use deliveries::exchange::Exchange;
use driver::drivers::Drivers;
use durable::commit::{Committer, Job};
use session::Session;
use session::counters::Commits;
use session::registry::Registry;
use stores::Stores;

/// How many questions are in work beside the trees at a time, on all read links together.
const READ_WORK_MAX: usize = 128;

/// How long a session that is ended has to send what it has.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long whoever ended it waits for its last commit after that.
const END_COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// How much of the time for stopping is kept for sessions' last commits.
const LAST_COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// All sessions of a server, over its store.
pub struct Engine {
    stores: Stores,
    registry: Arc<Registry>,
    exchange: Arc<Exchange>,
    committer: mpsc::Sender<Job>,
    read_work: Arc<Semaphore>,
    drivers: Drivers,
    commits: Arc<Commits>,
    /// The users there were when sessions were last told.
    users: Mutex<Vec<Name>>,
    /// What works in the background, for as long as the engine is there.
    _background: JoinSet<()>,
}

impl Engine {
    /// An engine over this store, which no other engine uses. Needs a tokio runtime. The trees of all
    /// sessions together keep about `rows_bytes` of their rows in memory, beyond those that are not
    /// durable.
    pub fn new(store: Store, rows_bytes: usize) -> Arc<Engine> {
        Engine::with_clock(store, rows_bytes, Arc::new(SystemClock))
    }

    /// As [`Engine::new`], with another clock.
    pub fn with_clock(store: Store, rows_bytes: usize, clock: Arc<dyn Clock>) -> Arc<Engine> {
        let stores = Stores::new(store, rows_bytes, clock);
        let registry = Arc::new(Registry::default());
        let exchange = Arc::new(Exchange::new(stores.clone(), registry.clone()));
        let commits = Arc::new(Commits::default());
        let (sender, jobs) = mpsc::channel(durable::commit::WAITING_MAX);
        let committer = Committer {
            stores: stores.clone(),
            exchange: exchange.clone(),
            commits: commits.clone(),
        };
        let mut background = JoinSet::new();
        background.spawn(committer.run(jobs));
        Arc::new(Engine {
            stores,
            registry,
            exchange,
            committer: sender,
            read_work: Arc::new(Semaphore::new(READ_WORK_MAX)),
            drivers: Drivers::default(),
            commits,
            users: Mutex::default(),
            _background: background,
        })
    }

    /// The sessions that run.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let mut sessions: Vec<_> = self.registry.all().iter().map(|one| one.info()).collect();
        sessions.sort_by(|a, b| a.user.cmp(&b.user));
        sessions
    }

    /// What a user's session did so far.
    pub fn counts(&self, user: &Name) -> Option<Counts> {
        self.registry.of_user(user).map(|session| session.counters().counts())
    }

    /// How many transactions were committed for sessions.
    pub fn transactions(&self) -> u64 {
        self.commits.transactions.load(Ordering::Relaxed)
    }

    /// How many batches of sessions those held together.
    pub fn batches(&self) -> u64 {
        self.commits.batches.load(Ordering::Relaxed)
    }

    /// How many batches wait for a transaction.
    pub fn waiting(&self) -> usize {
        self.committer.max_capacity() - self.committer.capacity()
    }

    /// Ends a user's session, after its client had some time to send what it has. Says whether
    /// there was one.
    pub async fn end(&self, user: &Name, reason: EndReason) -> bool {
        let Some(session) = self.registry.of_user(user) else { return false };
        session.seat.orders.drain(reason, END_PATIENCE);
        if tokio::time::timeout(END_PATIENCE + END_COMMIT_PATIENCE, session.seat.orders.wait_over())
            .await
            .is_err()
        {
            tracing::warn!(%user, "the session does not end, since the storage takes long");
        }
        true
    }

    /// Tells the sessions concerned that an account was made, removed, or changed. A session whose
    /// account was removed, or whose password was changed, ends.
    pub async fn account_changed(self: &Arc<Self>, user: &Name) {
        if let Err(error) = self.account_changed_now(user).await {
            tracing::error!(%error, "sessions were not told of an account");
        }
    }

    /// Ends all sessions by the deadline, each with what its client had sent by then, and lets none
    /// begin any more.
    pub async fn stop(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let patience = deadline.saturating_sub(LAST_COMMIT_PATIENCE);
        self.end_all(until, |session| session.seat.orders.drain(EndReason::Stopping, patience))
            .await;
    }

    /// Ends all sessions at once, since nothing of them can be kept any more for this reason, and
    /// lets none begin.
    pub async fn abandon(&self, why: &StoreError, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.end_all(until, |session| session.seat.orders.end(EndReason::Storage(why.told())))
            .await;
    }

    async fn end_all(&self, until: Instant, end: impl Fn(&Session)) {
        self.registry.close();
        let sessions = self.registry.all();
        sessions.iter().for_each(|session| end(session));
        let all_over = async {
            for session in &sessions {
                session.seat.orders.wait_over().await;
            }
        };
        if tokio::time::timeout_at(until, all_over).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
    }

    async fn account_changed_now(&self, user: &Name) -> Result<(), StoreError> {
        let accounts = self.stores.store.accounts.list().await?;
        let account = accounts.iter().find(|account| account.name == *user);
        if let Some(session) = self.registry.of_user(user) {
            match account.filter(|account| session.seat.who.may_be_of(account)) {
                None => session.seat.orders.end(EndReason::Administrator),
                Some(account) => {
                    // A session without a tree is about to begin or over: nobody has to be told.
                    if session.tree.with(|tree| tree.raise_quota(account.quota)).is_ok() {
                        session.tell(ToClient::Quota(account.quota));
                    }
                }
            }
        }
        let names: Vec<Name> = accounts.iter().map(|account| account.name.clone()).collect();
        let mut known = self.users.lock();
        if *known != names {
            for session in self.registry.all() {
                session.tell(ToClient::Users(session::begin::others(&accounts, session.user())));
            }
            *known = names;
        }
        Ok(())
    }
}
