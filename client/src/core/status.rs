//! The state of a session, for display.

use std::time::Duration;

use xfer_protocol::message::DeliveryHead;
use xfer_protocol::tree::{Quota, Rows, Usage};
use xfer_protocol::{Seq, Timestamp};

use super::away::Holder;
use super::link::{Ending, Link};
use super::outbox::Unsents;
use super::state::Core;

/// The state of a session at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The link to the server.
    pub link: Link,
    /// Whether this client has the tree, and not another one of the account.
    pub has_seat: bool,
    /// The client that has it, or that asks for it, if that is known.
    pub other: Option<Holder>,
    /// Why the session is about to end, if it is.
    pub draining: Option<Ending>,
    /// The number of changes that are not durable.
    pub pending_ops: usize,
    /// The memory that those take, in bytes: their data and what each takes beside it.
    pub pending_bytes: usize,
    /// Whether the server's disk has no room for those.
    pub is_stuck: bool,
    /// Since when programs rely on changes that are on this machine only.
    pub kept_here_since: Option<Timestamp>,
    /// Whether all changes that are not durable are kept on this machine's disk.
    pub all_kept: bool,
    /// Whether some of them are, so that the next mount can send these.
    pub some_kept: bool,
    /// The seq of the last change.
    pub last: Seq,
    /// The seq of the last durable change.
    pub durable: Seq,
    /// The bytes and nodes that the tree is charged for.
    pub usage: Usage,
    /// The limit of that.
    pub quota: Quota,
    /// Bytes in the cache.
    pub cache_bytes: usize,
    /// About how much memory the loaded rows take, in bytes.
    pub tree_bytes: usize,
    /// The time that the server took to answer the last ping.
    pub round_trip: Option<Duration>,
    /// How fast changes become durable, in bytes a second, once there were enough to measure it.
    pub rate: Option<f64>,
    /// The number of deliveries that wait to be placed.
    pub waiting: usize,
    /// How many of those do not fit the quota, of which arrivals leave a tenth free.
    pub waiting_for_room: usize,
    /// The numbers of files and directories in the outbox that are not sent, by reason.
    pub unsent: Unsents,
    /// Up to a hundred of them, with path and state.
    pub unsent_files: Vec<(String, String)>,
    /// Errors that no program was told about.
    pub errors: Vec<String>,
}

impl Status {
    /// Why the session is over, or is about to end, if it is.
    pub fn trouble(&self) -> Option<&Ending> {
        self.ending().or(self.draining.as_ref())
    }

    /// Why the session is over, if it is.
    pub fn ending(&self) -> Option<&Ending> {
        match &self.link {
            Link::Over(ending) => Some(ending),
            Link::Up | Link::Down { .. } => None,
        }
    }
}

impl Core {
    /// The state of the session now.
    pub fn status(&self) -> Status {
        let (pending_ops, pending_bytes) = self.uplink.log.pending();
        let (unsent, unsent_files) = self.show_drafts();
        let has_no_room = |head: &&DeliveryHead| !self.has_room_to_receive(head);
        let table = &self.replica.table;
        Status {
            link: self.session.link.clone(),
            has_seat: self.has_seat(),
            other: self.session.holder.clone().or(self.session.wanted_by.clone()),
            draining: self.session.draining.clone(),
            pending_ops,
            pending_bytes,
            is_stuck: self.is_stuck(),
            all_kept: self.all_kept(),
            some_kept: self.some_kept(),
            kept_here_since: self.kept_here_since(),
            last: self.uplink.log.last(),
            durable: self.uplink.log.durable(),
            usage: table.usage(),
            quota: table.quota(),
            cache_bytes: self.data.cache.bytes(),
            tree_bytes: table.bytes(),
            round_trip: self.uplink.heartbeat.round_trip,
            rate: self.uplink.log.bytes_per_s(),
            waiting: self.inbox.waiting.len(),
            waiting_for_room: self.inbox.waiting.iter().filter(has_no_room).count(),
            unsent,
            unsent_files,
            errors: self.errors.iter().chain(self.trouble_with_keeping()).cloned().collect(),
        }
    }

    /// The link to the server.
    pub(crate) fn link_state(&self) -> Link {
        self.session.link.clone()
    }

    /// The ops that are not durable, and the bytes that they take.
    pub(crate) fn pending(&self) -> (usize, usize) {
        self.uplink.log.pending()
    }

    /// Why the session is over, if it is.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        match &self.session.link {
            Link::Over(ending) => Some(ending),
            Link::Up | Link::Down { .. } => None,
        }
    }
}
