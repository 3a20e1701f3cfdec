//! The link to the server, and how a session ends.
//!
//! A link is a connection; a session is a seat on the server and a position in the log. So the link
//! may be down while the session goes on.

use std::time::Instant;

use xfer_protocol::message::EndReason;
use xfer_protocol::{Errno, Seq};

/// The state of the log link, as far as the core knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// It carries ops and acknowledgements.
    Up,
    /// It broke, and the session may continue over another one.
    Down {
        /// When the break was noticed.
        since: Instant,
    },
    /// The session is over; there will be no other link.
    Over(Ending),
}

/// How a link broke.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkLoss {
    /// The server closed it.
    #[error("the server went away")]
    Closed,
    /// Nothing came over it for too long.
    #[error("the server fell silent")]
    Silent,
    /// The network or the peer broke it.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Why a session ended, or is about to end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ending {
    /// The mount was asked to end. Nothing is left to do.
    #[error("logged out")]
    LoggedOut,
    /// The server ended it. The user may mount again, unless another mount has the session by now.
    #[error(transparent)]
    ByServer(EndReason),
    /// The link was lost, and no other one took its place. The user may mount again.
    #[error(transparent)]
    LinkLost(LinkLoss),
    /// The server's rules refused a change that this side had acknowledged: a fault of either side.
    #[error("the server refused change {seq}: {errno}")]
    Diverged {
        /// The seq of the refused op.
        seq: Seq,
        /// The errno that the server's rules gave.
        errno: Errno,
    },
    /// The server sent something that no server may send.
    #[error("the server {0}")]
    Misbehaved(&'static str),
    /// A panic in this program left the state half changed.
    #[error("a fault in this program; please report it, with what it printed")]
    Fault,
}

impl From<EndReason> for Ending {
    fn from(reason: EndReason) -> Ending {
        match reason {
            EndReason::LoggedOut => Ending::LoggedOut,
            reason @ (EndReason::TakenOver { .. }
            | EndReason::Administrator
            | EndReason::Stopping
            | EndReason::Silent { .. }
            | EndReason::Protocol(_)
            | EndReason::Storage(_)) => Ending::ByServer(reason),
        }
    }
}

/// The state of a session's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) struct Session {
    pub(in crate::core) link: Link,
    /// Why the session ends as soon as everything is durable. No more changes are accepted then.
    pub(in crate::core) draining: Option<Ending>,
}

impl Session {
    /// A session that has just begun.
    pub(in crate::core) fn new() -> Session {
        Session { link: Link::Up, draining: None }
    }

    /// Whether the session accepts changes.
    pub(in crate::core) fn takes_changes(&self) -> bool {
        self.draining.is_none() && !self.is_over()
    }

    /// Whether the session is over.
    pub(in crate::core) fn is_over(&self) -> bool {
        match self.link {
            Link::Up | Link::Down { .. } => false,
            Link::Over(_) => true,
        }
    }
}
