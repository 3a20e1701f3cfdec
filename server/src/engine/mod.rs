//! The engine: sessions, their trees, and the commits that make them durable.
//!
//! The engine gets admitted links, whose users are known, and a store. It knows no TLS, and checks
//! neither passwords nor keys of devices.
//!
//! Reading order: `seats` (one for each account), `session` (a session and its parts), `tree` (how
//! ops are applied), `driver` (the task that has them applied and committed), `durable` (commits),
//! `link` (connections to clients),
//! `deliveries` (between users), `traffic` (what all of it does, in numbers), and `solo` (a tree that is
//! changed without a client).
//!
//! **Invariant:** a panic while a session is served ends that session and nothing else.

mod seats;
mod session;
mod driver;
mod link;
mod clock;
mod stores;
mod tree;
mod durable;
mod deliveries;
mod traffic;
pub(crate) mod solo;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use xfer_protocol::Name;
use xfer_protocol::message::{EndReason, Silence, ToClient};
use xfer_protocol::tree::Room;
use xfer_store::{Account, Store, StoreError};

pub use clock::{Clock, SystemClock};
pub use durable::latency::{ENDS_SECS, Latencies};
pub use session::SessionInfo;
pub use session::counters::{Counters, Counts};
pub use traffic::{CommitTimes, Load, Sessions};

use deliveries::exchange::Exchange;
use driver::drivers::Drivers;
use durable::commit::{Committer, Job};
use seats::proof::{PROOFS_MAX, PROVERS_MAX};
use seats::registry::Registry;
use session::Session;
use session::counters::Commits;
use stores::Stores;
use traffic::Traffic;

/// The most questions that use the store without their tree's turn at a time, on all read links
/// together.
const READ_WORK_MAX: usize = 128;

/// How long the client of a session that is ended may go on sending its ops.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How often [`Engine::end`] looks for a session that goes away or comes back.
const END_TRIES: usize = 10;

/// How long [`Engine::end`] then waits for the session's last commit.
const END_COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// The part of the time for stopping that is kept for the sessions' last commits.
const LAST_COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// All sessions of a server, over its store.
pub struct Engine {
    stores: Stores,
    registry: Arc<Registry>,
    exchange: Arc<Exchange>,
    committer: mpsc::Sender<Job>,
    read_work: Arc<Semaphore>,
    /// The proofs that are checked at a time, and the clients that wait for that.
    proofs: Semaphore,
    provers: Semaphore,
    drivers: Drivers,
    commits: Arc<Commits>,
    traffic: Traffic,
    /// The shortest silence that clients may ask for.
    silence: Silence,
    started: Instant,
    /// The users that sessions were last told of.
    users: Mutex<Vec<Name>>,
    /// The background tasks, which end with the engine.
    _background: JoinSet<()>,
}

/// What is held for all sessions together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeldForSessions {
    /// The room on the disk that is promised to them, and not used yet.
    pub room: Room,
    /// The number of sessions that have a share of it.
    pub shares: u64,
    /// The memory for their answers, in bytes.
    pub answer_bytes: usize,
}

/// The settings of an engine.
pub struct Settings {
    /// The memory for rows of all sessions' trees together, in bytes.
    pub rows_bytes: usize,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The shortest silence that clients may ask for.
    pub silence: Silence,
}

impl Settings {
    /// The usual ones, with this machine's clock.
    pub fn new(rows_bytes: usize) -> Settings {
        Settings { rows_bytes, clock: Arc::new(SystemClock), silence: Silence::SHORTEST }
    }
}

impl Engine {
    /// Makes an engine over a store that no other engine uses. Needs a tokio runtime. The trees of
    /// all sessions together keep about `rows_bytes` of rows in memory, in addition to rows that
    /// are not durable yet.
    pub fn new(store: Store, rows_bytes: usize) -> Arc<Engine> {
        Engine::with(store, Settings::new(rows_bytes))
    }

    /// As [`Engine::new`], with more settings.
    pub fn with(store: Store, settings: Settings) -> Arc<Engine> {
        let Settings { rows_bytes, clock, silence } = settings;
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
            proofs: Semaphore::new(PROOFS_MAX),
            provers: Semaphore::new(PROVERS_MAX),
            drivers: Drivers::default(),
            commits,
            traffic: Traffic::default(),
            silence,
            started: Instant::now(),
            users: Mutex::default(),
            _background: background,
        })
    }

    /// Lists the sessions, also those whose clients are away, sorted by user.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let mut sessions = self.registry.infos();
        sessions.sort_by(|a, b| a.user.cmp(&b.user));
        sessions
    }

    /// Returns the counts of a user's session, if there is one.
    pub fn counts(&self, user: &Name) -> Option<Counts> {
        self.registry.of_user(user).map(|session| session.counters().counts())
    }

    /// Returns what is held for sessions. Nothing of it outlives them.
    pub fn held(&self) -> HeldForSessions {
        let (room, shares) = self.stores.space.held();
        HeldForSessions { room, shares, answer_bytes: self.registry.answer_bytes() }
    }

    /// Returns the number of transactions that were committed for sessions.
    pub fn transactions(&self) -> u64 {
        self.commits.transaction.count()
    }

    /// Returns the number of sessions' batches in all these transactions.
    pub fn batches(&self) -> u64 {
        self.commits.batches.load(Ordering::Relaxed)
    }

    /// Returns the number of batches that wait for a transaction.
    pub fn waiting(&self) -> usize {
        self.committer.max_capacity() - self.committer.capacity()
    }

    /// Ends a user's session, after giving its client some time to send its ops. A session whose
    /// client is away can't be resumed any more, and neither can those that lost the seat to another
    /// one. Returns whether there was a session.
    pub async fn end(&self, user: &Name, reason: EndReason) -> bool {
        let had_seat = self.end_present(user, reason).await;
        let forgotten = self.forget_dormant(user).await;
        had_seat
            || forgotten.unwrap_or_else(|error| {
                tracing::error!(%user, %error, "sessions without the tree cannot be forgotten");
                false
            })
    }

    /// Forgets the sessions of a user that lost the seat to another one. Returns whether there were any.
    async fn forget_dormant(&self, user: &Name) -> Result<bool, StoreError> {
        let Store { accounts, trees, .. } = &self.stores.store;
        let Some(account) = accounts.find(user.clone()).await? else { return Ok(false) };
        Ok(trees.forget_dormant(account.id).await? > 0)
    }

    async fn end_present(&self, user: &Name, reason: EndReason) -> bool {
        for _ in 0..END_TRIES {
            match self.end_standing(user).await {
                Ok(Some(was_there)) => return was_there,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%user, %error, "a session cannot be ended");
                    return false;
                }
            }
            if let Some(session) = self.registry.of_user(user) {
                self.end_running(&session, reason).await;
                return true;
            }
        }
        false
    }

    /// Ends a session. It is over for good, even if its link is lost meanwhile.
    async fn end_running(&self, session: &Session, reason: EndReason) {
        session.seat.orders.drain(reason, END_PATIENCE);
        if tokio::time::timeout(END_PATIENCE + END_COMMIT_PATIENCE, session.seat.orders.wait_over())
            .await
            .is_err()
        {
            let user = session.user();
            tracing::warn!(%user, "the session does not end, since the storage takes long");
        }
    }

    /// Tells the sessions concerned that an account was made, removed or changed. The account's own
    /// session ends if the account was removed, or the password or key by which the session exists.
    pub async fn account_changed(self: &Arc<Self>, user: &Name) {
        if let Err(error) = self.account_changed_now(user).await {
            tracing::error!(%error, "sessions were not told of an account");
        }
    }

    /// Ends the sessions of accounts that have expired. Each session costs one look at its account.
    pub async fn end_expired(&self) {
        for session in self.registry.all() {
            let user = session.user();
            match self.stores.store.accounts.find(user.clone()).await {
                Ok(Some(account)) if account.is_disabled(SystemTime::now().into()) => {
                    self.end_running(&session, EndReason::Administrator).await;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, %user, "an account cannot be read"),
            }
        }
    }

    /// Ends all sessions by the deadline, keeping all ops that their clients have sent by then. No
    /// session can begin any more.
    pub async fn stop(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let patience = deadline.saturating_sub(LAST_COMMIT_PATIENCE);
        self.end_all(until, |session| session.seat.orders.drain(EndReason::Stopping, patience))
            .await;
    }

    /// Ends all sessions at once, because `why` makes it impossible to keep any more of their ops.
    /// No session can begin any more.
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

    /// Ends a user's session whose client is away, and tells whether there was one. `None` if the
    /// client is there.
    async fn end_standing(&self, user: &Name) -> Result<Option<bool>, StoreError> {
        let Store { accounts, trees, deliveries, .. } = &self.stores.store;
        let Some(Account { id, epoch, .. }) = accounts.find(user.clone()).await? else {
            return Ok(Some(false));
        };
        // A client that comes back takes the seat before it raises the epoch. So if it is not here,
        // the session of this epoch is forgotten below, or the client is found after that.
        if self.registry.of_user(user).is_some() {
            return Ok(None);
        }
        let was_known = trees.resumable(id).await?.is_some();
        trees.forget(id, epoch).await?;
        if self.registry.of_user(user).is_some() {
            return Ok(None);
        }
        deliveries.release(id).await?;
        Ok(Some(self.registry.free_standing(id) || was_known))
    }

    async fn account_changed_now(&self, user: &Name) -> Result<(), StoreError> {
        let accounts = self.stores.store.accounts.list().await?;
        let account = accounts.iter().find(|account| account.name == *user);
        if let Some(session) = self.registry.of_user(user) {
            let who = &session.seat.who;
            let may_go_on = match account {
                Some(account) => who.may_be_of(account, &self.stores.store).await?,
                None => false,
            };
            match account {
                None => session.seat.orders.end(EndReason::Administrator),
                Some(_) if !may_go_on => {
                    self.end_running(&session, EndReason::Administrator).await;
                }
                Some(account) => {
                    // Without a tree, the session is about to begin or is over: it need not be
                    // told.
                    if session.tree.with(|tree| tree.raise_quota(account.quota)).is_ok() {
                        session.tell(ToClient::Quota(account.quota));
                    }
                }
            }
        } else if let Some(id) = self.registry.standing_of(user)
            && self.stores.store.trees.resumable(id).await?.is_none()
        {
            // The session went with the account, or with the password or key that began it.
            self.registry.free_standing(id);
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
