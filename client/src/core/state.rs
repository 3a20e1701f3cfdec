//! The state machine of one session: replica, log, caches, handles.
//!
//! The drive keeps it behind one lock. Nothing here waits. An operation is an *attempt*: it is
//! answered at once, or it says why not ([`Stop`]) and is made again after the pause.
//!
//! **Invariant:** the core has no clock, no randomness and no tasks. Time comes in with each call
//! ([`Core::set_time`]), and the drive takes out all that must leave ([`Core::take_effects`],
//! [`Core::poll_outgoing`]). Collections are ordered, so the same inputs give the same outputs.

use std::sync::Arc;

use xfer_protocol::message::Grant;
use xfer_protocol::size;
use xfer_protocol::tree::{Loaded, Need, Node, Rows, Table, XattrMap};
use xfer_protocol::{Errno, Ino, Name, Seq};

use super::away::{Kept, Position};
use super::data::{Data, FetchOrder};
use super::inbox::Inbox;
use super::link::{Ending, Link, Session};
use super::notice::Notice;
use super::options::Options;
use super::outbox::Outbox;
use super::pause::{Pause, Stop};
use super::time::Now;
use super::tree::{Handles, Replica};
use super::uplink::Uplink;

/// The most errors that are kept for display. Later ones are only logged.
const ERRORS_MAX: usize = 100;

/// The client's state for one session.
#[derive(Debug)]
pub struct Core {
    /// The time of the current call.
    pub(in crate::core) now: Now,
    /// The account's name, which is the sender's name of its deliveries.
    pub(in crate::core) user: Name,
    pub(in crate::core) session: Session,
    pub(in crate::core) uplink: Uplink,
    pub(in crate::core) replica: Replica,
    pub(in crate::core) data: Data,
    pub(in crate::core) handles: Handles,
    pub(in crate::core) outbox: Outbox,
    pub(in crate::core) inbox: Inbox,
    pub(in crate::core) kept: Kept,
    /// Notices for the kernel, until the drive takes them.
    pub(in crate::core) notices: Vec<Notice>,
    /// Errors that no program was told about, for display.
    pub(in crate::core) errors: Vec<String>,
    /// A bug that is planted.
    #[cfg(feature = "planted-bugs")]
    pub(in crate::core) bug: Option<super::planted::Bug>,
}

/// The work that an attempt leaves for the drive.
#[derive(Debug)]
pub(crate) struct Effects {
    /// Fetches of bytes to start, each with a node that has the content.
    pub(crate) fetches: Vec<(Ino, FetchOrder)>,
    /// Notices for the kernel.
    pub(crate) notices: Vec<Notice>,
    /// Whether the log link has something to send.
    pub(crate) has_outgoing: bool,
    /// Whether tasks should look again: a draft can be tried again, or the seat be handed over.
    pub(crate) look_again: bool,
}

impl Core {
    /// The core of a session that has just begun. `cookie_key` keys the hash behind
    /// [`Handles::cookie`] and must be random.
    pub(crate) fn new(grant: &Grant, options: &Options, cookie_key: [u8; 16], now: Now) -> Core {
        let table = Table::new(grant.usage, grant.quota, grant.applied);
        Core {
            now,
            user: grant.user.clone(),
            session: Session::new(now.monotonic),
            uplink: Uplink::new(grant, options.log_bytes),
            replica: Replica::new(table, options.tree_bytes),
            data: Data::new(options.cache_bytes, grant.applied),
            handles: Handles::new(cookie_key),
            outbox: Outbox::new(&grant.users),
            inbox: Inbox::new(&grant.deliveries),
            kept: Kept::new(options.offline_bytes),
            notices: Vec::new(),
            errors: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            bug: None,
        }
    }

    /// Sets the time for the calls that follow.
    pub(crate) fn set_time(&mut self, now: Now) {
        self.now = now;
    }

    /// Takes the work that attempts left.
    pub(crate) fn take_effects(&mut self) -> Effects {
        let tenure = self.tenure();
        let orders = std::mem::take(&mut self.data.orders).into_iter();
        Effects {
            fetches: orders.map(|(ino, order)| (ino, FetchOrder { tenure, ..order })).collect(),
            notices: std::mem::take(&mut self.notices),
            has_outgoing: self.has_outgoing(),
            look_again: self.outbox.tell_resend()
                | self.outbox.tell_rested()
                | std::mem::take(&mut self.session.lets_go),
        }
    }

    /// A node; `ESTALE` if it does not exist.
    pub(in crate::core) fn node(&self, ino: Ino) -> Result<Arc<Node>, Stop> {
        self.must_have_seat()?;
        match self.replica.table.node(ino) {
            Loaded::Present(node) => Ok(node),
            Loaded::Absent => Err(Errno::ESTALE.into()),
            Loaded::Unknown => Err(self.need(Need::Node(ino))),
        }
    }

    /// A node, if it is loaded and exists.
    pub(in crate::core) fn known_node(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.replica.table.node(ino) {
            Loaded::Present(node) => Some(node),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }

    /// All extended attributes of a node; `ESTALE` if it does not exist.
    pub(in crate::core) fn all_xattrs(&self, ino: Ino) -> Result<Arc<XattrMap>, Stop> {
        self.node(ino)?.xattrs.all().ok_or_else(|| self.need(Need::Attributes(ino)))
    }

    /// The node that an entry refers to; `None` if there is no such entry.
    pub(in crate::core) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, Stop> {
        self.must_have_seat()?;
        match self.replica.table.entry(parent, name) {
            Loaded::Present(ino) => Ok(Some(ino)),
            Loaded::Absent => Ok(None),
            Loaded::Unknown => Err(self.need(Need::Entry(parent, name.clone()))),
        }
    }

    /// All entries of a directory.
    pub(in crate::core) fn children(&self, directory: Ino) -> Result<Vec<(Name, Ino)>, Stop> {
        self.must_have_seat()?;
        let children = self.replica.table.children(directory);
        children.ok_or_else(|| self.need(Need::Children(directory)))
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Whether the session accepts changes: it is neither over nor about to end.
    pub(crate) fn takes_changes(&self) -> bool {
        self.session.takes_changes()
    }

    /// Refuses an operation once the session is over, since another session may change the tree by
    /// then. Only nodes that were open before remain usable.
    pub(in crate::core) fn must_have_session(&self) -> Result<(), Stop> {
        match self.is_over() {
            false => Ok(()),
            true => Err(Errno::EIO.into()),
        }
    }

    /// Like [`Core::must_have_session`], but an open node remains usable.
    pub(in crate::core) fn must_be_usable(&self, ino: Ino) -> Result<(), Stop> {
        match !self.is_over() || self.handles.is_open(ino) {
            true => Ok(()),
            false => Err(Errno::EIO.into()),
        }
    }

    /// Pauses until a row is loaded. Once the session is over there is no server to ask, so it
    /// refuses.
    fn need(&self, need: Need) -> Stop {
        match self.is_over() {
            false => Pause::Rows(vec![need]).into(),
            true => Errno::EIO.into(),
        }
    }

    /// Pauses until all changes up to a place are durable. `ENOSPC` if the server's disk has no room
    /// for them; they are kept, and sent as soon as it has. `EIO` if they never will be durable.
    pub fn sync_to(&mut self, position: Position) -> Result<(), Stop> {
        match self.reach(position) {
            Err(Stop::Pause(_)) if self.is_stuck() => Err(Errno::ENOSPC.into()),
            reached => reached,
        }
    }

    /// Like [`Core::sync_to`], for what only needs the changes to be durable at last: it pauses even if
    /// the server's disk has no room for them now.
    pub(crate) fn reach(&mut self, position: Position) -> Result<(), Stop> {
        if self.is_durable(position)? {
            return Ok(());
        }
        self.must_have_session()?;
        self.hasten(position);
        Err(Pause::Progress.into())
    }

    /// Whether the server is reached but its disk has no room for a change that was made while there
    /// was some.
    pub(crate) fn is_stuck(&self) -> bool {
        self.session.is_up() && self.uplink.disk_room.is_stuck()
    }

    /// Takes in an acknowledgement of all ops up to `seq`. False if the server can't have them all.
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

    /// Ends the session. False if it was over already.
    pub(crate) fn end(&mut self, ending: Ending, label: &str) -> bool {
        if self.is_over() {
            return false;
        }
        let (ops, bytes) = self.uplink.log.pending();
        if ops > 0 {
            self.note_error(format!(
                "{label}: {ending}; not on the server: {}",
                size::changes(ops, bytes)
            ));
        }
        // If the session was drained and everything is durable, it ended for the reason of the
        // drain.
        let asked = self.session.draining.take().filter(|_| ops == 0);
        self.session.link = Link::Over(asked.unwrap_or(ending));
        true
    }

    /// Refuses further changes. The session ends when all earlier ones are durable.
    pub(crate) fn begin_drain(&mut self, ending: Ending) {
        if self.takes_changes() {
            self.session.draining = Some(ending);
            self.uplink.barrier = self.uplink.log.last();
        }
    }

    /// Logs an error, and keeps it for display.
    pub(crate) fn note_error(&mut self, error: String) {
        tracing::error!("{error}");
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// Keeps loaded rows and cached bytes, beyond the limits if need be, until [`Core::release_loaded`].
    pub(crate) fn hold_loaded(&mut self) {
        self.replica.hold();
        self.data.cache.hold();
    }

    /// Ends one [`Core::hold_loaded`].
    pub(crate) fn release_loaded(&mut self) {
        self.replica.release();
        self.data.cache.release();
    }
}
