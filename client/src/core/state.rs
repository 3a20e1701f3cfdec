//! All that the client knows and owes: replica, log, caches, handles.
//!
//! The drive keeps it behind one lock. Nothing here waits: an operation is an *attempt*, which is
//! answered at once or says what it waits for ([`Stop`]), and is then made again.
//!
//! **Invariant:** the core has no clock, no randomness and no tasks. Time comes in with each call
//! ([`Core::set_time`]), and whatever must go out is left for the drive to take
//! ([`Core::take_effects`], [`Core::poll_outgoing`]). Collections are ordered, so the same inputs
//! give the same outputs.

use std::sync::Arc;

use xfer_protocol::message::Grant;
use xfer_protocol::tree::{Loaded, Need, Node, Rows, Table, XattrMap};
use xfer_protocol::{Errno, Ino, Name, Seq};

use super::data::{Data, FetchOrder};
use super::inbox::Inbox;
use super::link::{Ending, Link, LinkLoss, Session};
use super::notice::Notice;
use super::options::Options;
use super::outbox::Outbox;
use super::pause::{Pause, Stop};
use super::time::Now;
use super::tree::{Handles, Replica};
use super::uplink::Uplink;

/// The most errors kept to be shown.
const ERRORS_MAX: usize = 100;

/// All that the client knows and owes.
#[derive(Debug)]
pub struct Core {
    /// When the present call was made.
    pub(in crate::core) now: Now,
    /// The account's own name.
    pub(in crate::core) user: Name,
    pub(in crate::core) session: Session,
    pub(in crate::core) uplink: Uplink,
    pub(in crate::core) replica: Replica,
    pub(in crate::core) data: Data,
    pub(in crate::core) handles: Handles,
    pub(in crate::core) outbox: Outbox,
    pub(in crate::core) inbox: Inbox,
    /// What the kernel is to be told.
    pub(in crate::core) notices: Vec<Notice>,
    /// Errors that no program was told of.
    pub(in crate::core) errors: Vec<String>,
}

/// What an attempt leaves for the drive to do.
#[derive(Debug)]
pub(crate) struct Effects {
    /// Fetches of bytes to be made, each with a node that has the content.
    pub(crate) fetches: Vec<(Ino, FetchOrder)>,
    /// What the kernel is to be told.
    pub(crate) notices: Vec<Notice>,
    /// Whether the log link has something to send.
    pub(crate) has_outgoing: bool,
    /// Whether something in the outbox is to be tried again soon.
    pub(crate) resend: bool,
}

impl Core {
    /// The core of a session that has just begun. `cookie_key` keys the hash behind
    /// [`Handles::cookie`] and must be random.
    pub(crate) fn new(grant: &Grant, options: &Options, cookie_key: [u8; 16], now: Now) -> Core {
        let table = Table::new(grant.usage, grant.quota, grant.applied);
        Core {
            now,
            user: grant.user.clone(),
            session: Session::new(),
            uplink: Uplink::new(grant, options.log_bytes),
            replica: Replica::new(table, options.tree_bytes),
            data: Data::new(options.cache_bytes, grant.applied),
            handles: Handles::new(cookie_key),
            outbox: Outbox::new(&grant.users),
            inbox: Inbox::new(&grant.deliveries),
            notices: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Says what time it is, for the calls that follow.
    pub(crate) fn set_time(&mut self, now: Now) {
        self.now = now;
    }

    /// Takes what attempts left to be done.
    pub(crate) fn take_effects(&mut self) -> Effects {
        Effects {
            fetches: std::mem::take(&mut self.data.orders),
            notices: std::mem::take(&mut self.notices),
            has_outgoing: self.has_outgoing(),
            resend: self.outbox.resend,
        }
    }

    /// The node, which must exist.
    pub(in crate::core) fn node(&self, ino: Ino) -> Result<Arc<Node>, Stop> {
        match self.replica.table.node(ino) {
            Loaded::Present(node) => Ok(node),
            Loaded::Absent => Err(Errno::ESTALE.into()),
            Loaded::Unknown => Err(self.need(Need::Node(ino))),
        }
    }

    /// The node, if it is loaded and exists.
    pub(in crate::core) fn known_node(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.replica.table.node(ino) {
            Loaded::Present(node) => Some(node),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }

    /// All extended attributes of the node, which must exist.
    pub(in crate::core) fn all_xattrs(&self, ino: Ino) -> Result<Arc<XattrMap>, Stop> {
        self.node(ino)?.xattrs.all().ok_or_else(|| self.need(Need::Attributes(ino)))
    }

    /// The node that the entry refers to, if it exists.
    pub(in crate::core) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, Stop> {
        match self.replica.table.entry(parent, name) {
            Loaded::Present(ino) => Ok(Some(ino)),
            Loaded::Absent => Ok(None),
            Loaded::Unknown => Err(self.need(Need::Entry(parent, name.clone()))),
        }
    }

    /// All entries of a directory.
    pub(in crate::core) fn children(&self, directory: Ino) -> Result<Vec<(Name, Ino)>, Stop> {
        let children = self.replica.table.children(directory);
        children.ok_or_else(|| self.need(Need::Children(directory)))
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Whether the session takes changes: it is not over, nor about to end.
    pub(crate) fn takes_changes(&self) -> bool {
        self.session.takes_changes()
    }

    /// Refuses an operation on a tree that another session may change by now: once the session is
    /// over, only nodes that were open before can be used.
    pub(in crate::core) fn must_have_session(&self) -> Result<(), Stop> {
        match self.is_over() {
            false => Ok(()),
            true => Err(Errno::EIO.into()),
        }
    }

    /// As [`Core::must_have_session`], for operations that are allowed on an open node.
    pub(in crate::core) fn must_be_usable(&self, ino: Ino) -> Result<(), Stop> {
        match !self.is_over() || self.handles.is_open(ino) {
            true => Ok(()),
            false => Err(Errno::EIO.into()),
        }
    }

    /// Asks for a row. Once the session is over there is no server to ask.
    fn need(&self, need: Need) -> Stop {
        match self.is_over() {
            false => Pause::Rows(vec![need]).into(),
            true => Errno::EIO.into(),
        }
    }

    /// Waits until the server has all changes on its disk, up to the one given.
    pub fn sync_to(&mut self, seq: Seq) -> Result<(), Stop> {
        if self.uplink.log.durable() >= seq {
            return Ok(());
        }
        self.must_have_session()?;
        self.uplink.barrier = self.uplink.barrier.max(seq);
        Err(Pause::Progress.into())
    }

    /// Notes that the server has the ops up to `seq` on its disk. False if that can't be.
    pub(in crate::core) fn acknowledge(&mut self, seq: Seq) -> bool {
        if seq < self.uplink.log.durable() {
            return true;
        }
        let possible = self.uplink.log.retire(seq, self.now.monotonic);
        if possible {
            self.replica.table.mark_durable(seq);
            self.data.cache.acknowledge(seq);
            self.replica.trim();
        }
        possible
    }

    /// Notes that the link broke. What was sent and is not durable will be sent again over the next.
    pub(crate) fn lose_link(&mut self, loss: &LinkLoss) {
        if self.session.link == Link::Up {
            tracing::debug!("the link is down: {loss}");
            self.session.link = Link::Down { since: self.now.monotonic };
            self.uplink.rewind();
        }
    }

    /// Ends the session. False if it was over before.
    pub(crate) fn end(&mut self, ending: Ending, label: &str) -> bool {
        if self.is_over() {
            return false;
        }
        let (ops, bytes) = self.uplink.log.pending();
        if ops > 0 {
            self.note_error(format!(
                "{label}: {ending}; {ops} changes ({bytes} bytes) were not durable"
            ));
        }
        // A session that was asked to end, and had nothing left to do, ended for that reason.
        let asked = self.session.draining.take().filter(|_| ops == 0);
        self.session.link = Link::Over(asked.unwrap_or(ending));
        true
    }

    /// Takes no more changes; the session ends when all are durable.
    pub(crate) fn begin_drain(&mut self, ending: Ending) {
        if self.takes_changes() {
            self.session.draining = Some(ending);
            self.uplink.barrier = self.uplink.log.last();
        }
    }

    /// Keeps an error to be shown to the user.
    pub(crate) fn note_error(&mut self, error: String) {
        tracing::error!("{error}");
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// Keeps all rows that are loaded, until [`Core::release_rows`].
    pub(crate) fn hold_rows(&mut self) {
        self.replica.hold();
    }

    /// Takes one [`Core::hold_rows`] back.
    pub(crate) fn release_rows(&mut self) {
        self.replica.release();
    }
}
