//! A running client: the core behind one lock, with the links, timers and tasks that drive it.
//!
//! Reading order: this file (the parts), [`attempts`] (how an operation runs), [`lock`], [`clock`],
//! [`tasks`]; [`links`], [`away`] (what goes on without a link), [`waiting`] (whether an operation or
//! a change waits); [`loading`] and [`fetching`] (what attempts wait for); [`outbox`] and [`inbox`]
//! (work of the client's own); [`kernel`], [`ending`].
//!
//! **Invariant:** the lock is never held across an await, a reply or a call into the kernel.
//! **Invariant:** every task belongs to a [`Tasks`] and ends with it.

mod attempts;
mod lock;
mod clock;
mod tasks;
mod links;
mod away;
mod waiting;
mod loading;
mod fetching;
mod outbox;
mod inbox;
mod kernel;
mod ending;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use xfer_link::watch;
use xfer_protocol::tree::{Need, Owner};
use xfer_protocol::{Errno, Ino};

pub use attempts::Origin;
pub use away::{Journal, Rescue, Writing};
pub use clock::{Clock, SystemClock};
pub use ending::{Farewell, Lost};
pub use kernel::Kernel;
pub use links::Traffic;

use crate::connect::{Dial, LogLink, NewSession};
use crate::core::{Change, Core, Ending, Link, LinkLoss, Notice, Options, Owners, Spill, Status};
use away::Answers;
use links::{Attention, ReadLinks};
use loading::Outcome;
use tasks::Tasks;
use waiting::Waiting;

/// The parts of its surroundings that a client depends on: time and randomness.
#[derive(Clone)]
pub struct Surroundings {
    /// The clocks that the client reads.
    pub clock: Arc<dyn Clock>,
    /// A random key for the order of directory listings, and for the pauses between tries to reach
    /// the server.
    pub cookie_key: [u8; 16],
    /// Keeps changes while the link is down, if the client works offline.
    pub journal: Option<Arc<dyn Journal>>,
    /// Takes data that is too much for memory meanwhile.
    pub spill: Option<Arc<dyn Spill>>,
    /// Takes changes that can't be made any more, because another client has changed the tree.
    pub rescue: Option<Arc<dyn Rescue>>,
}

/// A running session.
pub struct Client {
    this: Weak<Client>,
    /// A fair lock, so that a program which never pauses can't keep the links' tasks from it.
    core: Mutex<Core>,
    clock: Arc<dyn Clock>,
    options: Options,
    runtime: Handle,
    dial: Arc<dyn Dial>,
    links: Arc<ReadLinks>,
    /// What has gone over all links.
    traffic: Arc<Traffic>,
    /// Whether the log link is up.
    is_up: watch::Sender<bool>,
    /// Whether this machine is about to sleep.
    is_asleep: watch::Sender<bool>,
    /// Wakes the task that dials.
    attention: Attention,
    /// A random key for the pauses between tries.
    jitter: [u8; 16],
    waiting: Waiting,
    /// Wakes the task that sends.
    outgoing: Notify,
    journal: Option<Arc<dyn Journal>>,
    rescue: Option<Arc<dyn Rescue>>,
    /// Wakes the task that hands the seat over.
    wanted: Notify,
    answers: Answers,
    /// Held while a delivery is placed.
    placing: tokio::sync::Mutex<()>,
    /// Held while the seat is being left, or after it was lost, until the kernel keeps nothing.
    leaving: Arc<tokio::sync::Mutex<()>>,
    /// Held while the kernel is told to forget.
    outdating: Arc<tokio::sync::Mutex<()>>,
    /// Held while the journal is written.
    journaling: tokio::sync::Mutex<()>,
    /// Wakes the task that keeps the journal.
    unkept: Notify,
    /// Ticks after every event that an attempt may wait for.
    progress: watch::Sender<u64>,
    /// Whether the session is over.
    over: watch::Sender<bool>,
    /// The loads of rows in flight.
    loads: Mutex<BTreeMap<Need, Outcome>>,
    /// The fetches of bytes in flight.
    fetches: Mutex<BTreeMap<u64, Outcome>>,
    kernel: Mutex<Option<Arc<dyn Kernel>>>,
    /// The tasks that serve the session until it is finished.
    service: Tasks,
    /// Operations that wait, and the work that they wait for. They end when the session does,
    /// without being aborted.
    operations: Tasks,
}

impl Surroundings {
    /// This machine's clocks, and a random key.
    pub fn real() -> Surroundings {
        let draw = || RandomState::new().hash_one(()).to_le_bytes();
        let mut cookie_key = [0; 16];
        cookie_key[..8].copy_from_slice(&draw());
        cookie_key[8..].copy_from_slice(&draw());
        let (journal, spill, rescue) = (None, None, None);
        Surroundings { clock: Arc::new(SystemClock), cookie_key, journal, spill, rescue }
    }
}

impl Client {
    /// Runs a session that has just begun. Must be called within a tokio runtime.
    pub fn start(session: NewSession, options: Options) -> Arc<Client> {
        Client::start_in(session, options, Surroundings::real())
    }

    /// Like [`Client::start`], with surroundings of the caller's.
    pub fn start_in(
        session: NewSession,
        options: Options,
        surroundings: Surroundings,
    ) -> Arc<Client> {
        let NewSession { link, dial } = session;
        let core =
            Core::new(&link.grant, &options, surroundings.cookie_key, surroundings.clock.now());
        let client = Client::with_core(core, &link, dial, options, surroundings);
        client.service.spawn(client.clone().keep_link(link, 0));
        client.service.spawn(client.clone().keep_journal());
        client.service.spawn(client.clone().tend_outbox());
        client.service.spawn(client.clone().tend_inbox());
        client.service.spawn(client.clone().tend_seat());
        if client.options.offline_bytes.is_some() {
            client.load_root();
        }
        client
    }

    /// Sends changes that an earlier client of the same session has left, and ends the session. The
    /// first of them is the one after the last that the server has applied. `attempt` is the number
    /// of the request that resumed the session.
    ///
    /// # Errors
    /// If the session is over, the server can't be reached, or its disk is full, before all are
    /// durable.
    pub async fn replay(
        session: NewSession,
        attempt: u64,
        changes: Vec<Change>,
        options: Options,
        surroundings: Surroundings,
    ) -> Result<(), Lost> {
        let NewSession { link, dial } = session;
        let mut core =
            Core::new(&link.grant, &options, surroundings.cookie_key, surroundings.clock.now());
        core.take_up(changes);
        let client = Client::with_core(core, &link, dial, options, surroundings);
        client.service.spawn(client.clone().keep_link(link, attempt));
        client.service.spawn(client.clone().keep_journal());
        // No user is there to make room, so a full disk is not waited out.
        let crowded = client.clone();
        client.service.spawn(async move {
            let is_full = |link| matches!(link, Link::Down { loss: LinkLoss::DiskFull, .. });
            crowded.reached(|core| is_full(core.link_state())).await;
            crowded.end(Ending::LinkLost(LinkLoss::DiskFull));
        });
        client.finish().await
    }

    fn with_core(
        mut core: Core,
        link: &LogLink,
        dial: Arc<dyn Dial>,
        options: Options,
        surroundings: Surroundings,
    ) -> Arc<Client> {
        let Surroundings { clock, cookie_key, journal, spill, rescue } = surroundings;
        spill.into_iter().for_each(|spill| core.spill_to(spill));
        let (runtime, traffic) = (Handle::current(), Arc::<Traffic>::default());
        let read_links =
            ReadLinks::new(dial.clone(), &link.grant, traffic.clone(), runtime.clone());
        let client = Arc::new_cyclic(|this| Client {
            this: this.clone(),
            core: Mutex::new(core),
            clock,
            options,
            links: Arc::new(read_links),
            traffic,
            dial,
            is_up: watch::Sender::new(true),
            is_asleep: watch::Sender::new(false),
            attention: Attention::default(),
            jitter: cookie_key,
            waiting: Waiting::default(),
            outgoing: Notify::new(),
            journal,
            rescue,
            wanted: Notify::new(),
            answers: Answers::default(),
            placing: tokio::sync::Mutex::default(),
            leaving: Arc::default(),
            outdating: Arc::default(),
            journaling: tokio::sync::Mutex::default(),
            unkept: Notify::new(),
            progress: watch::Sender::new(0),
            over: watch::Sender::new(false),
            loads: Mutex::default(),
            fetches: Mutex::default(),
            kernel: Mutex::default(),
            service: Tasks::new(runtime.clone()),
            operations: Tasks::new(runtime.clone()),
            runtime,
        });
        client.service.spawn(client.links.clone().open_first());
        client
    }

    /// Whether a draft depends on a file being complete.
    pub fn matters_to_drafts(&self, ino: Ino) -> bool {
        self.lock().matters_to_drafts(ino)
    }

    /// Notes that a change of a file's data failed, so that the file is not sent as if it were
    /// complete.
    pub fn note_failure(&self, ino: Ino, errno: Errno) {
        self.lock().note_failure(ino, errno);
    }

    /// The owner that nodes show.
    pub fn owners(&self) -> Owners {
        self.options.owners
    }

    /// The state of the session, for display.
    pub fn status(&self) -> Status {
        let core = self.lock();
        let mut status = core.status();
        if let Link::Down { next_try: Some(next), .. } = &mut status.link
            && self.has_waiting_programs()
        {
            *next = (*next).min(core.now_after(links::HASTE));
        }
        status
    }

    /// What has gone over the session's links.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Plants a bug.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&self, bug: crate::core::Bug) {
        self.lock().plant(bug);
    }

    /// How long an operation waits for a server that can't be asked; `None` for ever.
    pub fn wait(&self) -> Option<Duration> {
        self.options.wait
    }

    /// Sets the mount's side of the kernel; `None` once there is no mount any more.
    pub fn set_kernel(&self, kernel: Option<Arc<dyn Kernel>>) {
        *self.kernel.lock() = kernel;
        self.tick();
    }

    /// Waits until the session is over.
    pub async fn wait_over(&self) {
        // This can't fail, since the sender is part of `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    fn pass_on(&self, notices: Vec<Notice>) {
        if !notices.is_empty()
            && let Some(kernel) = self.kernel()
        {
            notices.into_iter().for_each(|notice| kernel.notice(notice));
        }
    }

    fn kernel(&self) -> Option<Arc<dyn Kernel>> {
        self.kernel.lock().clone()
    }

    /// Wakes all attempts that wait for progress, to be made again.
    fn tick(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    /// The owner of nodes that xfer makes itself.
    pub(crate) fn owner(&self) -> Owner {
        match self.options.owners {
            Owners::Mounter { uid, gid } => Owner { uid, gid },
            Owners::Stored => Owner { uid: 0, gid: 0 },
        }
    }
}
