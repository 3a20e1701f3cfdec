//! How a session ends: drained and logged out, or lost.

use std::sync::Arc;
use std::time::Duration;

use xfer_protocol::message::DeliveryHead;
use xfer_protocol::tree::{Kind, Loaded, Rows};
use xfer_protocol::{Errno, Ino, Name};

use super::Client;
use super::kernel::Notice;
use super::outbox::drafts::Unsents;
use super::state::{Phase, State};

/// How long the server's last word is waited for, once everything is durable.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after its end a session's last answers may still reach the kernel.
const ANSWERS_MAX: Duration = Duration::from_secs(1);

/// How long the kernel may take to write what programs changed in mapped files.
const WRITE_BACK_MAX: Duration = Duration::from_secs(10);

/// The session ended before everything was durable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}; {ops} changes ({bytes} bytes) are not on the server")]
pub struct Lost {
    /// Why it ended.
    pub reason: String,
    /// How many changes were not durable.
    pub ops: usize,
    /// How many bytes those were.
    pub bytes: usize,
}

impl Lost {
    /// The reason of a session that ended as it was asked to.
    pub(super) const LOGGED_OUT: &str = "logged out";
}

/// Where a client stands, for people to see.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// `None` while all is well; else why it is not.
    pub trouble: Option<String>,
    /// Whether the session is about to end, but is not over.
    pub draining: bool,
    /// Changes that are not durable.
    pub pending_ops: usize,
    /// Bytes of those.
    pub pending_bytes: usize,
    /// The last change made.
    pub last: xfer_protocol::Seq,
    /// The last durable change.
    pub durable: xfer_protocol::Seq,
    /// What the tree takes up.
    pub usage: xfer_protocol::tree::Usage,
    /// What it may take up.
    pub quota: xfer_protocol::tree::Quota,
    /// Bytes in the block cache.
    pub cache_bytes: usize,
    /// About how much memory the rows that are known take, in bytes.
    pub tree_bytes: usize,
    /// How long the server last took to give a sign of life.
    pub round_trip: Option<Duration>,
    /// Deliveries that wait to be placed.
    pub waiting: usize,
    /// How many of those the quota leaves no room for.
    pub waiting_for_room: usize,
    /// How much of what stands in the outbox was not sent, and why.
    pub unsent: Unsents,
    /// What of it, the first hundred: the path, and the state.
    pub unsent_files: Vec<(String, String)>,
    /// What went wrong that no program was told.
    pub errors: Vec<String>,
}

impl Client {
    /// Waits until every change made so far is on the server's disk.
    ///
    /// # Errors
    /// `EIO` if the session is over before.
    pub async fn settle(self: &Arc<Self>) -> Result<(), Errno> {
        self.write_back().await;
        let last = self.lock().log.last();
        self.call(move |state: &mut State| state.sync_to(last)).await
    }

    /// Ends the session: takes no more changes, makes all durable, logs out.
    ///
    /// # Errors
    /// If the session was over before everything was durable.
    pub async fn finish(self: &Arc<Self>) -> Result<(), Lost> {
        // What was closed just now may still be on its way into the other's inbox.
        let _ = self.send_unsent().await;
        self.write_back().await;
        self.lock().begin_drain(Lost::LOGGED_OUT);
        self.outgoing.notify_one();
        let mut progress = self.progress.subscribe();
        loop {
            progress.mark_unchanged();
            let over = {
                let state = self.lock();
                state.log.pending().0 == 0 || state.is_over()
            };
            if over || progress.changed().await.is_err() {
                break;
            }
        }
        let goodbye = async { while !self.lock().is_over() && progress.changed().await.is_ok() {} };
        // Everything is durable: a server that does not say goodbye costs nothing.
        let _ = tokio::time::timeout(LOGOUT_TIMEOUT, goodbye).await;
        self.lose(Lost::LOGGED_OUT);
        self.tasks.lock().abort_all();
        self.loss()
    }

    /// Drains the session, as the server asks for another mount's sake.
    pub(super) fn drain_soon(self: &Arc<Self>, reason: String) {
        let client = self.clone();
        self.runtime.spawn(async move {
            client.write_back().await;
            client.lock().begin_drain(&reason);
            client.tick();
            client.outgoing.notify_one();
        });
    }

    /// Has what programs changed in mapped files become changes in the log, which it does otherwise
    /// only when they sync or unmap it.
    async fn write_back(&self) {
        let Some(kernel) = self.kernel() else { return };
        let files: Vec<_> = match self.lock() {
            state if state.is_over() => return,
            state => state.handles.written().collect(),
        };
        let writing = self.runtime.spawn_blocking(move || {
            files.into_iter().for_each(|ino| kernel.write_back(ino));
        });
        let _ = tokio::time::timeout(WRITE_BACK_MAX, writing).await;
    }

    /// Where the client stands.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        let (pending_ops, pending_bytes) = state.log.pending();
        let (trouble, draining) = match &state.phase {
            Phase::Connected => (None, false),
            Phase::Draining(reason) => (Some(reason.clone()), true),
            Phase::Over(reason) => (Some(reason.clone()), false),
        };
        let (unsent, unsent_files) = state.show_drafts();
        let has_no_room = |head: &&DeliveryHead| !state.has_room_to_receive(head);
        Standing {
            trouble,
            draining,
            pending_ops,
            pending_bytes,
            last: state.log.last(),
            durable: state.log.durable(),
            usage: state.table.usage(),
            quota: state.table.quota(),
            cache_bytes: state.cache.bytes(),
            tree_bytes: state.table.bytes(),
            round_trip: state.round_trip,
            waiting: state.waiting.len(),
            waiting_for_room: state.waiting.iter().filter(has_no_room).count(),
            unsent,
            unsent_files,
            errors: state.errors.clone(),
        }
    }

    /// Keeps the root's node loaded: its attributes can be had even when the session is over.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn keep_root(self: &Arc<Self>) -> Result<(), Errno> {
        let keep = |state: &mut State| {
            state.node(Ino::ROOT)?;
            state.table.pin(Ino::ROOT);
            Ok(())
        };
        self.call(keep).await
    }

    /// The session is over, and others may change the tree: the kernel forgets what it keeps of it.
    /// Twice, since an answer given just before may reach it after the first time.
    pub(super) fn outdate_kernel(self: &Arc<Self>) {
        let client = self.clone();
        self.runtime.spawn(async move {
            client.pass_on(client.lock().outdated());
            tokio::time::sleep(ANSWERS_MAX).await;
            client.pass_on(client.lock().outdated());
        });
    }

    fn loss(&self) -> Result<(), Lost> {
        let state = self.lock();
        let (ops, bytes) = state.log.pending();
        match &state.phase {
            Phase::Over(reason) if ops > 0 => Err(Lost { reason: reason.clone(), ops, bytes }),
            Phase::Over(_) | Phase::Draining(_) | Phase::Connected => Ok(()),
        }
    }
}

impl State {
    /// All that the kernel may keep. Files' data is not among it: what is not open can't be read any
    /// more, and what is open may be, directories too. Attributes come first, since those notices never
    /// have to wait for a request under way.
    fn outdated(&self) -> Vec<Notice> {
        let nodes = self.handles.known().chain([Ino::ROOT]).map(Notice::Node);
        let absent = self.handles.absent();
        let names = absent.chain(self.open_in_root()).cloned();
        let entries = names.map(|name| Notice::Entry(Ino::ROOT, name));
        let contents = self.handles.known().filter(|ino| match self.table.node(*ino) {
            Loaded::Present(node) => matches!(node.kind, Kind::Symlink { .. }),
            Loaded::Absent | Loaded::Unknown => true,
        });
        nodes.chain(entries).chain(contents.map(Notice::Contents)).collect()
    }

    /// Names in the root of what is open. Its attributes can still be had, so that a path through
    /// such a name would go on to work; a path through any other directory leads to no attributes.
    fn open_in_root(&self) -> impl Iterator<Item = &Name> {
        let open = self.handles.open_nodes();
        let entries = self.table.known_entries(Ino::ROOT, None);
        entries.filter_map(move |(name, ino)| {
            ino.is_some_and(|ino| open.contains(&ino)).then_some(name)
        })
    }
}
