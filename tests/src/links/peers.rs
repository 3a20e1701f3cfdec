//! The client's core and the server's engine, connected by pipes in memory, for tests on a clock
//! that jumps ahead when all tasks are idle.
//!
//! The stores are real: SQLite and plain files, in a directory that goes with its [`Host`].

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use xfer_client::connect::{Begin, Dial, EndpointError, Identity, NewSession};
use xfer_client::core::{Options, Owners};
use xfer_client::drive::{Client, Journal, Rescue, Surroundings};
use xfer_client::offline::Unsent;
use xfer_link::proof::SigningKey;
use xfer_protocol::message::{DeliveryHead, Done, Opened, Password, Purpose, Silence, Task};
use xfer_protocol::tree::{Owner, Quota};
use xfer_protocol::{ContentId, Name, Seq, SessionId, Timestamp};
use xfer_server::engine::{Clock, Engine, Settings, SystemClock};
use xfer_store::embedded::{self, FileStore, Files, OlderDatabase, Serving, SqliteStore};
use xfer_store::{Account, Change, Location, NewAccount, Store, Use};

use super::cable::{Cable, Wiring};
use super::clock::VirtualClock;
use super::forgetful::Forgetful;
use super::gate::{Gate, HASH, PASSWORD};
use super::line::Line;
use super::local_disk::LocalDisk;
use super::mortal::{Act, Life};
use super::wayward::Wayward;

/// The mounting user.
pub const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

/// More memory for rows than any test uses.
const ROWS_BYTES: usize = 64 << 20;

/// How long an operation waits for a server that is away.
const WAIT: Duration = Duration::from_secs(30);

/// A server's engine over a store: on this machine's disk, or in memory.
pub struct Host {
    /// The engine under test.
    pub engine: Arc<Engine>,
    /// Its store.
    pub store: Store,
    /// The engine that clients reach when they dial, and its store.
    reached: Reached,
    /// Where links come in, if they begin as on a real server.
    gate: Option<Arc<Gate>>,
    life: Life,
    surroundings: Surroundings,
    /// The server's clock, if it is not this machine's.
    clock: Arc<dyn Clock>,
    disk: Option<Disk>,
    /// The parts of a store in memory.
    pub simulated: Option<Simulated>,
    /// Whether clients that come back are not told what others have changed.
    hides: Arc<AtomicBool>,
}

/// A store on this machine's disk.
struct Disk {
    contents: Arc<FileStore>,
    directory: TempDir,
}

/// The parts of a store in memory, which live on when a server dies.
#[derive(Clone)]
pub struct Simulated {
    /// Its rows.
    pub rows: Arc<Wayward>,
    /// Its contents.
    pub disk: Arc<Forgetful>,
}

/// The engine that clients reach, and its store. `None` while there is no server.
pub(super) type Reached = Arc<Mutex<Option<(Arc<Engine>, Store)>>>;

/// A client, and the cable that carries its links.
pub struct Peer {
    /// The client under test.
    pub client: Arc<Client>,
    /// The cable that carries all its links.
    pub cable: Cable,
    /// The last op that the server had applied when the session began.
    pub applied: Seq,
    /// The session's public name.
    pub session: SessionId,
    /// Proves that the session is this client's.
    pub key: Arc<SigningKey>,
}

/// The machine that a client runs on.
#[derive(Clone, Default)]
pub struct Machine {
    /// A session whose client is gone from there.
    pub replaces: Option<SessionId>,
    /// What it keeps of the session, on its disk.
    pub disk: Option<Arc<LocalDisk>>,
    /// Its key for the account; without one, it logs in with the password.
    pub device: Option<Arc<SigningKey>>,
}

/// Options for a client with more memory than it can use.
pub fn roomy(user: &str) -> Options {
    let owners = Owners::Mounter { uid: OWNER.uid, gid: OWNER.gid };
    let (bytes, label) = (64 << 20, user.to_owned());
    let wait = Some(WAIT);
    Options {
        cache_bytes: bytes,
        log_bytes: bytes,
        tree_bytes: bytes,
        owners,
        wait,
        offline_bytes: None,
        handoff: false,
        silence: Silence::default(),
        label,
    }
}

/// Makes a valid name.
pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

impl Host {
    /// A server with these accounts, without quotas.
    pub fn new(users: &[&str]) -> Host {
        Host::with(&std::env::temp_dir(), users, Quota::UNLIMITED, ROWS_BYTES)
    }

    /// Like [`Host::new`], with the store in this directory, a quota for each account, and this
    /// much memory for rows.
    pub fn with(directory: &Path, users: &[&str], quota: Quota, rows_bytes: usize) -> Host {
        let directory = tempfile::Builder::new().prefix("xfer-").tempdir_in(directory).unwrap();
        let (store, meta, contents) = open(directory.path());
        let inbox = Quota { bytes: 1 << 40, nodes: 1 << 20 };
        for user in users {
            let time = Timestamp::default();
            meta.create_account(&name(user), "hash", quota, inbox, time).unwrap();
        }
        let (surroundings, clock) = (Surroundings::real(), Arc::new(SystemClock));
        let disk = Some(Disk { contents, directory });
        Host::over(store, rows_bytes, surroundings, clock, disk)
    }

    /// Like [`Host::with`], with a store in memory, and clocks that go with tokio's: on a paused runtime
    /// of one thread, the same calls have the same results.
    pub async fn simulated(users: &[&str], quota: Quota, rows_bytes: usize) -> Host {
        let inbox = Quota { bytes: 1 << 40, nodes: 1 << 20 };
        Host::simulated_with(users, quota, inbox, rows_bytes).await
    }

    /// Like [`Host::simulated`], with this quota for what may wait in each inbox.
    pub async fn simulated_with(
        users: &[&str],
        quota: Quota,
        inbox: Quota,
        rows_bytes: usize,
    ) -> Host {
        let serving =
            Serving { older: OlderDatabase::Refuse, keep_lost_days: 1, keep_removed_days: 30 };
        let store = xfer_store::open(&Location::Memory, Use::Serve(serving)).await.unwrap();
        for user in users {
            let (name, password) = (name(user), Some("hash".to_owned()));
            let new = NewAccount { name, password, quota, inbox, time: Timestamp::default() };
            store.accounts.create(new).await.unwrap();
        }
        let clock = Arc::new(VirtualClock::start());
        let rows = Arc::new(Wayward::over(store.trees.clone()));
        let disk = Arc::new(Forgetful::over(store.contents.clone()));
        let store = Store { trees: rows.clone(), contents: disk.clone(), ..store };
        let (journal, spill, rescue) = (None, None, None);
        let surroundings =
            Surroundings { clock: clock.clone(), cookie_key: [7; 16], journal, spill, rescue };
        let host = Host::over(store, rows_bytes, surroundings, clock, None);
        Host { simulated: Some(Simulated { rows, disk }), ..host }
    }

    fn over(
        store: Store,
        rows_bytes: usize,
        surroundings: Surroundings,
        clock: Arc<dyn Clock>,
        disk: Option<Disk>,
    ) -> Host {
        let life = Life::default();
        let engine = Engine::with(
            life.lived_over(&store),
            Settings { clock: clock.clone(), ..Settings::new(rows_bytes) },
        );
        let reached = Arc::new(Mutex::new(Some((engine.clone(), store.clone()))));
        let (gate, hides, simulated) = (None, Arc::default(), None);
        Host { engine, store, reached, gate, life, surroundings, clock, disk, hides, simulated }
    }

    /// Replaces an engine that was stopped or killed by a new one.
    pub fn reopen(&mut self, rows_bytes: usize) {
        if let Some(disk) = &mut self.disk {
            let (store, _, contents) = open(disk.directory.path());
            (self.store, disk.contents) = (store, contents);
        }
        self.simulated.iter().for_each(|simulated| simulated.rows.start());
        self.life = Life::default();
        let store = self.life.lived_over(&self.store);
        let settings = Settings { clock: self.clock.clone(), ..Settings::new(rows_bytes) };
        self.engine = Engine::with(store, settings);
        *self.reached.lock().unwrap() = Some((self.engine.clone(), self.store.clone()));
    }

    /// Has links from now on begin as on a real server: with greetings, and a password that is checked.
    pub async fn guard(&mut self) {
        self.gate = Some(Arc::new(Gate::over(&self.store)));
        for account in self.store.accounts.list().await.unwrap() {
            self.store
                .accounts
                .change(account.id, Change::Password(HASH.to_owned()))
                .await
                .unwrap();
        }
    }

    /// Gives clients from now on a place for changes that can't be made any more.
    pub fn rescue_to(&mut self, rescue: Arc<dyn Rescue>) {
        self.surroundings.rescue = Some(rescue);
    }

    /// Whether programs may be told that the server's disk is full.
    pub fn shortage(&self) -> Arc<AtomicBool> {
        self.simulated.as_ref().map(|simulated| simulated.disk.shortage()).unwrap_or_default()
    }

    /// Has the server die by itself at a moment of its work with the store from now on: before a call
    /// has an effect, or after it.
    pub fn die_at(&self, moment: usize) {
        self.life.end_at(moment);
    }

    /// Has something else happen at such a moment, while the server lives on.
    pub fn act_at(&self, moment: usize, act: Act) {
        self.life.act_at(moment, act);
    }

    /// Has the server live on.
    pub fn live_on(&self) {
        self.life.end_never();
    }

    /// Whether the server is dead.
    pub fn is_dead(&self) -> bool {
        self.life.has_ended()
    }

    /// Plants a bug: clients that come back are not told what others have changed.
    pub fn hide_changes(&self, hides: bool) {
        self.hides.store(hides, Ordering::Relaxed);
    }

    /// Kills the server: its calls to the store have no effect any more, and it can't be reached. The
    /// links to it must be cut, too.
    pub fn kill(&self) {
        self.life.end();
        self.simulated.iter().for_each(|simulated| simulated.rows.kill());
        *self.reached.lock().unwrap() = None;
    }

    /// An account.
    pub async fn account(&self, user: &Name) -> Account {
        self.store.accounts.find(user.clone()).await.unwrap().unwrap()
    }

    /// Sets the quota of a user's tree, as an administrator does.
    pub async fn set_quota(&self, user: &Name, quota: Quota) {
        let account = self.account(user).await.id;
        self.store.accounts.change(account, Change::Quota(quota)).await.unwrap();
        self.engine.account_changed(user).await;
    }

    /// Sets the quota of a user's inbox, as an administrator does.
    pub async fn set_inbox(&self, user: &Name, quota: Quota) {
        let account = self.account(user).await.id;
        self.store.accounts.change(account, Change::Inbox(quota)).await.unwrap();
        self.engine.account_changed(user).await;
    }

    /// The deliveries that wait for a user.
    pub async fn waiting(&self, user: &Name) -> Vec<DeliveryHead> {
        let account = self.account(user).await;
        let waiting = self.store.deliveries.waiting(account.id, 0, usize::MAX).await.unwrap();
        waiting.into_iter().map(|(_, head)| head).collect()
    }

    /// The contents on the disk, if there is one.
    pub fn contents(&self) -> Option<BTreeSet<ContentId>> {
        let disk = self.disk.as_ref()?;
        let mut held = BTreeSet::new();
        disk.contents.each(&mut |content| held.extend([content])).unwrap();
        Some(held)
    }

    /// Logs in and returns the client.
    ///
    /// # Errors
    /// The server's answer, if it is not a session.
    pub async fn mount(&self, user: &str, purpose: Purpose) -> Result<Peer, Opened> {
        self.mount_with(user, purpose, roomy(user), Wiring::default()).await
    }

    /// Like [`Host::mount`], with these options and a cable of this kind.
    ///
    /// # Errors
    /// The server's answer, if it is not a session.
    pub async fn mount_with(
        &self,
        user: &str,
        purpose: Purpose,
        options: Options,
        wiring: Wiring,
    ) -> Result<Peer, Opened> {
        self.mount_on(&Machine::default(), user, purpose, options, wiring).await
    }

    /// Like [`Host::mount_with`], on this machine.
    ///
    /// # Errors
    /// The server's answer, if it is not a session.
    pub async fn mount_on(
        &self,
        machine: &Machine,
        user: &str,
        purpose: Purpose,
        options: Options,
        wiring: Wiring,
    ) -> Result<Peer, Opened> {
        let cable = Cable::new(wiring);
        match self.mount_over(&cable, machine, user, purpose, options).await {
            Ok(peer) => Ok(peer),
            Err(EndpointError::Refused(refusal)) => Err(Opened::Refused(refusal)),
            Err(error) => panic!("{error}"),
        }
    }

    /// Like [`Host::mount_on`], over this cable.
    ///
    /// # Errors
    /// If the server refuses, or the link breaks.
    pub async fn mount_over(
        &self,
        cable: &Cable,
        machine: &Machine,
        user: &str,
        purpose: Purpose,
        options: Options,
    ) -> Result<Peer, EndpointError> {
        let key = Arc::new(SigningKey::generate().unwrap());
        let dial = self.line(user, &key, cable);
        let password = || Identity::Password(Password(PASSWORD.to_vec()));
        let identity = machine.device.clone().map_or_else(password, Identity::Device);
        let terms = options.terms();
        let begin = Begin::New { identity, purpose, replaces: machine.replaces, terms };
        let link = dial.log_link(begin).await?;
        let mut surroundings = self.surroundings.clone();
        if let Some(disk) = &machine.disk {
            let process = disk.process();
            surroundings.rescue = Some(process.clone());
            surroundings.journal = options.offline_bytes.map(|_| process as Arc<dyn Journal>);
        }
        let (applied, session) = (link.grant.applied, link.grant.session);
        let client = Client::start_in(NewSession { link, dial }, options, surroundings);
        Ok(Peer { client, cable: cable.clone(), applied, session, key })
    }

    /// Has a task done for an account over a cable. There must be a guard.
    ///
    /// # Errors
    /// If the server refuses, or the link breaks.
    pub async fn perform_over(
        &self,
        cable: &Cable,
        user: &str,
        identity: Identity,
        task: Task,
    ) -> Result<Done, EndpointError> {
        let key = Arc::new(SigningKey::generate().unwrap());
        self.line(user, &key, cable).perform(identity, task).await
    }

    /// Sends over this cable what a client has left on a disk; its session is proved by this key.
    ///
    /// # Errors
    /// If it can't be sent now.
    pub async fn settle(
        &self,
        user: &str,
        (disk, key): (&Arc<LocalDisk>, &Arc<SigningKey>),
        options: &Options,
        cable: &Cable,
    ) -> Result<(), Unsent> {
        let Some(leftover) = disk.leftover() else { return Ok(()) };
        let (dial, process) = (self.line(user, key, cable), disk.process());
        let (journal, surroundings) = (process.clone(), self.surroundings.clone());
        leftover.settle(dial, Purpose::Mount, options, journal, &*process, surroundings).await
    }

    /// The way to the engine over a cable.
    fn line(&self, user: &str, key: &Arc<SigningKey>, cable: &Cable) -> Arc<Line> {
        let (reached, gate, hides) = (self.reached.clone(), self.gate.clone(), self.hides.clone());
        let (key, cable) = (key.clone(), cable.clone());
        Arc::new(Line { reached, gate, user: name(user), key, cable, hides })
    }
}

fn open(directory: &Path) -> (Store, Arc<SqliteStore>, Arc<FileStore>) {
    let meta = Arc::new(SqliteStore::open(directory).unwrap());
    let contents = Arc::new(FileStore::open(directory).unwrap());
    (embedded::over(meta.clone(), contents.clone()), meta, contents)
}
