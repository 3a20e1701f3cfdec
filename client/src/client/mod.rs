//! The client's core: a replica of the tree, the log of its changes, and the caches.
//!
//! Works without FUSE. Every operation is an *attempt* on [`State`], run under one lock: it is
//! answered at once, or says what it waits for; that is fetched without the lock, and then the
//! attempt is made again.
//!
//! **Invariant:** the lock is never held across an await, a reply or a call into the kernel.

mod block;

mod cache;

mod log;

mod readahead;

mod walk;

mod handles;

mod kernel;

mod room;

mod state;

mod lock;

mod names;

mod attributes;

mod data;

mod copies;

mod directories;

mod outbox;

mod reading;

mod loading;

mod uplink;

mod arrivals;

mod tending;

mod ending;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use xfer_protocol::message::{Ask, ReadError};
use xfer_protocol::tree::{Need, Owner};
use xfer_protocol::{Errno, Ino, Seq};

pub use attributes::{NewAttributes, Space};
pub use data::{Copy, Seek};
pub use directories::Listed;
pub use ending::{Lost, Standing};
pub use handles::HandleId;
pub use kernel::{Kernel, Notice};
pub use names::{Found, New};
pub use outbox::drafts::Unsents;
pub use state::{Pause, State};

use crate::session::Session;
use reading::{ReadLinks, Unanswered};

/// How long an answer may take in all, though its link is alive: long enough for as much as one link
/// has under way at a time, on a slow line.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// How often an operation may find rows missing until all that is loaded stays for it: what needs
/// more rows at once than may be kept would load the same ones for ever.
const LOADS_BEFORE_HOLD: usize = 16;

/// Whose numbers nodes show as their owner's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    /// Those of the user that mounts, whatever is stored.
    Mounter {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// Those that are stored.
    Stored,
}

/// What a client is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most memory that cached blocks take, in bytes.
    pub cache_bytes: usize,
    /// The most memory that changes take that are not durable, in bytes.
    pub log_bytes: usize,
    /// The most memory that names and attributes take that the server has too, in bytes. A
    /// directory that is being listed is known whole, whatever that takes.
    pub tree_bytes: usize,
    /// Whose numbers nodes show, and so who owns what xfer makes by itself.
    pub ids: Ids,
    /// The account and server, for messages: `user@host:port`.
    pub label: String,
}

/// A running session.
pub struct Client {
    this: Weak<Client>,
    /// A fair lock: one program that never pauses does not keep the links' tasks from it.
    state: parking_lot::Mutex<State>,
    options: Options,
    runtime: Handle,
    links: Arc<ReadLinks>,
    /// Wakes the task that sends.
    outgoing: Notify,
    /// Ticks whenever something that an attempt can wait for has happened.
    progress: watch::Sender<u64>,
    /// Whether the session is over.
    over: watch::Sender<bool>,
    /// Rows being loaded.
    loads: Mutex<HashMap<Need, Outcome>>,
    /// Fetches of bytes under way.
    fetches: Mutex<HashMap<u64, Outcome>>,
    kernel: Mutex<Option<Arc<dyn Kernel>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// Keeps all rows that are loaded as long as it is there.
struct Hold<'a>(&'a Client);

impl<'a> Hold<'a> {
    fn new(client: &'a Client) -> Hold<'a> {
        client.lock().hold_rows();
        Hold(client)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.lock().release_rows();
    }
}

/// How something under way ended, once it has.
type Outcome = watch::Receiver<Option<Result<(), Errno>>>;

impl Client {
    /// Takes over a session that has just begun. Must be called within a tokio runtime.
    pub fn start(session: Session, options: Options) -> Arc<Client> {
        let Session { grant, reader, writer, dial } = session;
        let state = State::new(&grant, &options);
        let client = Arc::new_cyclic(|this| Client {
            this: this.clone(),
            state: parking_lot::Mutex::new(state),
            options,
            runtime: Handle::current(),
            links: Arc::new(ReadLinks::new(dial)),
            outgoing: Notify::new(),
            progress: watch::Sender::new(0),
            over: watch::Sender::new(false),
            loads: Mutex::default(),
            fetches: Mutex::default(),
            kernel: Mutex::default(),
            tasks: Mutex::default(),
        });
        client.spawn(client.links.clone().open_first());
        client.spawn(client.clone().receive(reader));
        client.spawn(client.clone().transmit(writer));
        client.spawn(client.clone().tend_mailboxes());
        client.spawn(client.clone().receive_deliveries());
        client
    }

    /// Runs an operation and hands its result on: at once if everything it needs is here, or later
    /// from a task of its own.
    pub fn run<T, A, R>(self: &Arc<Self>, attempt: A, reply: R)
    where
        T: Send + 'static,
        A: FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
        R: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        self.run_until(attempt, std::future::pending, reply);
    }

    /// As [`Client::run`]; an operation that has to wait is given up with `EINTR` when `interrupted`
    /// resolves, and then has changed nothing.
    pub fn run_until<T, A, I, F, R>(self: &Arc<Self>, mut attempt: A, interrupted: I, reply: R)
    where
        T: Send + 'static,
        A: FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
        I: FnOnce() -> F,
        F: Future<Output = ()> + Send + 'static,
        R: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        match self.attempt(&mut attempt) {
            Ok(done) => reply(Ok(done)),
            Err(Pause::Refused(errno)) => reply(Err(errno)),
            Err(pause) => {
                let (client, interrupted) = (self.clone(), interrupted());
                self.runtime.spawn(async move {
                    // An attempt that is made is answered: it ends the wait in the same moment.
                    let result = tokio::select! {
                        biased;
                        result = client.persist(attempt, pause) => result,
                        () = interrupted => Err(Errno::EINTR),
                    };
                    reply(result);
                });
            }
        }
    }

    /// Runs an operation and waits for its result.
    ///
    /// # Errors
    /// Whatever the operation is refused with; `ETIMEDOUT` if the server does not answer.
    pub async fn call<T, A>(self: &Arc<Self>, mut attempt: A) -> Result<T, Errno>
    where
        A: FnMut(&mut State) -> Result<T, Pause> + Send,
    {
        match self.attempt(&mut attempt) {
            Ok(done) => Ok(done),
            Err(pause) => self.persist(attempt, pause).await,
        }
    }

    /// Whether something that was not sent depends on a file being whole.
    pub fn matters_to_drafts(&self, ino: Ino) -> bool {
        self.lock().matters_to_drafts(ino)
    }

    /// Notes that part of a file could not be written, so that it is not sent as if it were whole.
    pub fn note_failure(&self, ino: Ino, errno: Errno) {
        self.lock().note_failure(ino, errno);
    }

    /// Whose numbers nodes show.
    pub fn ids(&self) -> Ids {
        self.options.ids
    }

    fn attempt<T, A>(self: &Arc<Self>, attempt: &mut A) -> Result<T, Pause>
    where
        A: FnMut(&mut State) -> Result<T, Pause>,
    {
        let mut state = self.lock();
        let result = match catch_unwind(AssertUnwindSafe(|| attempt(&mut state))) {
            Ok(result) => result,
            Err(_) => {
                state.fault();
                Err(Errno::EIO.into())
            }
        };
        let orders = std::mem::take(&mut state.orders);
        let notices = std::mem::take(&mut state.notices);
        let news = state.log.last_sent() < state.log.last()
            || state.barrier > state.log.durable()
            || state.numbers_are_low()
            || state.rooms.has_question();
        let resend = state.resend;
        drop(state);
        for (ino, order) in orders {
            self.fetch(ino, order);
        }
        self.pass_on(notices);
        if news {
            self.outgoing.notify_one();
        }
        if resend {
            self.tick();
        }
        result
    }

    /// Waits for what an attempt waits for, and makes it again, until it is answered.
    async fn persist<T, A>(self: &Arc<Self>, mut attempt: A, mut pause: Pause) -> Result<T, Errno>
    where
        A: FnMut(&mut State) -> Result<T, Pause> + Send,
    {
        let mut progress = self.progress.subscribe();
        // What the first attempt waits for may have happened before there was anybody to tell.
        progress.mark_changed();
        let mut loads = 0;
        let mut _hold = None;
        loop {
            match pause {
                Pause::Refused(errno) => return Err(errno),
                Pause::Rows(needs) => {
                    loads += 1;
                    if loads == LOADS_BEFORE_HOLD {
                        _hold = Some(Hold::new(self));
                    }
                    self.load(needs).await?;
                }
                Pause::Data(waits) => self.fetched(waits).await?,
                // The session ends by itself when the server is silent, and that is progress too.
                Pause::Progress => drop(progress.changed().await),
                Pause::Room(room) => self.ask_room(room).await?,
                Pause::State(id) => self.ask_state(id).await?,
            }
            match self.attempt(&mut attempt) {
                Ok(done) => return Ok(done),
                Err(next) => pause = next,
            }
        }
    }

    /// Waits until the session is over.
    async fn wait_over(&self) {
        // The sender is part of `self`, so this can't fail.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// From now on there is a mount, or none any more.
    pub fn set_kernel(&self, kernel: Option<Arc<dyn Kernel>>) {
        *self.kernel.lock() = kernel;
        self.tick();
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

    fn tick(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        tasks.spawn_on(task, &self.runtime);
    }

    /// Asks the server, for as long as the session lives.
    async fn ask(&self, after: Seq, ask: Ask) -> Result<reading::Answered, Errno> {
        let answered = tokio::select! {
            biased;
            () = self.wait_over() => Err(Unanswered::Lost),
            answered = tokio::time::timeout(ANSWER_MAX, self.links.ask(after, ask.clone())) => {
                answered.unwrap_or(Err(Unanswered::Late))
            }
        };
        answered.map_err(|why| {
            match &why {
                Unanswered::Refused(
                    ReadError::Invalid | ReadError::Storage | ReadError::Damaged,
                ) => {
                    self.lock().note_error(format!("a question was not answered: {why} ({ask:?})"));
                }
                // Why that is so is told when the session ends.
                Unanswered::NoLink(_)
                | Unanswered::Broken
                | Unanswered::Late
                | Unanswered::Lost
                | Unanswered::Refused(ReadError::Ended) => {
                    tracing::warn!("a question was not answered: {why}");
                }
                Unanswered::Refused(
                    ReadError::OtherContent
                    | ReadError::NoDirectory
                    | ReadError::NoUser
                    | ReadError::InboxFull,
                ) => {}
            }
            why.errno()
        })
    }

    /// Who owns what xfer makes by itself.
    fn owner(&self) -> Owner {
        match self.options.ids {
            Ids::Mounter { uid, gid } => Owner { uid, gid },
            Ids::Stored => Owner { uid: 0, gid: 0 },
        }
    }
}
