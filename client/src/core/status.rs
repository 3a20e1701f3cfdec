//! How a session is doing, for people to see.

use std::time::Duration;

use xfer_protocol::Seq;
use xfer_protocol::message::DeliveryHead;
use xfer_protocol::tree::{Quota, Rows, Usage};

use super::link::{Ending, Link};
use super::outbox::Unsents;
use super::state::Core;

/// How a session is doing.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The link to the server.
    pub link: Link,
    /// Why the session is about to end, if it is.
    pub draining: Option<Ending>,
    /// Changes that are not durable.
    pub pending_ops: usize,
    /// The bytes of those, with what they take up beside their data.
    pub pending_bytes: usize,
    /// The last change made.
    pub last: Seq,
    /// The last durable change.
    pub durable: Seq,
    /// The size of the tree.
    pub usage: Usage,
    /// The limit of that size.
    pub quota: Quota,
    /// Bytes in the cache.
    pub cache_bytes: usize,
    /// About how much memory the loaded rows take, in bytes.
    pub tree_bytes: usize,
    /// How long the server last took to give a sign of life.
    pub round_trip: Option<Duration>,
    /// Deliveries that wait to be placed.
    pub waiting: usize,
    /// How many of those the quota leaves no room for.
    pub waiting_for_room: usize,
    /// How many files and directories in the outbox were not sent, and why.
    pub unsent: Unsents,
    /// The first hundred of them: path and state.
    pub unsent_files: Vec<(String, String)>,
    /// Errors that no program was told of.
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
    /// How the session is doing.
    pub fn status(&self) -> Status {
        let (pending_ops, pending_bytes) = self.uplink.log.pending();
        let (unsent, unsent_files) = self.show_drafts();
        let has_no_room = |head: &&DeliveryHead| !self.has_room_to_receive(head);
        let table = &self.replica.table;
        Status {
            link: self.session.link.clone(),
            draining: self.session.draining.clone(),
            pending_ops,
            pending_bytes,
            last: self.uplink.log.last(),
            durable: self.uplink.log.durable(),
            usage: table.usage(),
            quota: table.quota(),
            cache_bytes: self.data.cache.bytes(),
            tree_bytes: table.bytes(),
            round_trip: self.uplink.heartbeat.round_trip,
            waiting: self.inbox.waiting.len(),
            waiting_for_room: self.inbox.waiting.iter().filter(has_no_room).count(),
            unsent,
            unsent_files,
            errors: self.errors.clone(),
        }
    }

    /// Ops and bytes that are not durable.
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
