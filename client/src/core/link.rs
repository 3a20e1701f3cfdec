//! The link to the server, and how a session ends.
//!
//! A link is a connection; a session is a seat on the server and a position in the log. So the link
//! may be down while the session goes on.

use std::time::Instant;

use xfer_protocol::message::{EndReason, Refusal};
use xfer_protocol::shown::Shown;
use xfer_protocol::{Errno, Seq};

use super::away::{Holder, Position, Seat};

/// The state of the log link, as far as the core knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// It carries ops and acknowledgements.
    Up,
    /// It was lost. The session continues over another one, as soon as the server is reached.
    Down {
        /// When the loss was noticed.
        since: Instant,
        /// How it was lost.
        loss: LinkLoss,
        /// Why the last try to reach the server failed, if there was one.
        trouble: Option<String>,
        /// When the next try is.
        next_try: Option<Instant>,
    },
    /// The session is over; there will be no other link.
    Over(Ending),
}

/// How a link was lost.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkLoss {
    /// The server closed it.
    #[error("the server went away")]
    Closed,
    /// Nothing came over it for too long.
    #[error("the server fell silent")]
    Silent,
    /// The server is stopping. Another one will go on with the session.
    #[error("the server is stopping")]
    Stopping,
    /// The server's disk has no room for a change that was made while there was. It is sent again
    /// until there is room.
    #[error("the server's disk is full")]
    DiskFull,
    /// The server has heard nothing from this machine for too long.
    #[error("the server heard nothing from this machine for {seconds} s")]
    Unheard {
        /// How long, in seconds.
        seconds: u64,
    },
    /// This machine was about to sleep.
    #[error("this machine went to sleep")]
    Asleep,
    /// This machine no longer has the address from which it was opened.
    #[error("this machine's network address changed")]
    Moved,
    /// The seat was handed to another client of the account.
    #[error("the tree was handed to another client")]
    Yielded,
    /// Another client of the account took the seat.
    #[error("taken over by a client on {} ({})", Shown(host), Shown(address))]
    TakenOver {
        /// Its host's name, as it gave it.
        host: String,
        /// Its address, as the server saw it.
        address: String,
    },
    /// The session was continued over another link, perhaps by an earlier attempt that came late.
    #[error("the session was continued over another connection")]
    Continued,
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
    /// The user gave it up, without waiting for the server.
    #[error("given up")]
    Abandoned,
    /// The server ended it. The user may mount again, unless another mount has the session by now.
    #[error(transparent)]
    ByServer(EndReason),
    /// The link was lost, and the client was not to wait for another one. The user may mount again.
    #[error(transparent)]
    LinkLost(LinkLoss),
    /// The link was lost, and the server refused to continue the session over another one.
    #[error("the session cannot be continued: {}", refused(.0))]
    Refused(Refusal),
    /// Another client has changed the tree since, so this one's changes can't be made any more, and
    /// there is nothing that keeps them.
    #[error("another client of the account has changed the tree")]
    Displaced,
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

/// The server's last words on a link.
pub(in crate::core) enum LastWords {
    /// The session may continue over another link.
    Lost(LinkLoss),
    /// The session is over.
    Over(Ending),
}

impl From<EndReason> for LastWords {
    fn from(reason: EndReason) -> LastWords {
        match reason {
            EndReason::Stopping => LastWords::Lost(LinkLoss::Stopping),
            EndReason::DiskFull => LastWords::Lost(LinkLoss::DiskFull),
            EndReason::Silent { seconds } => LastWords::Lost(LinkLoss::Unheard { seconds }),
            EndReason::Continued => LastWords::Lost(LinkLoss::Continued),
            EndReason::Yielded => LastWords::Lost(LinkLoss::Yielded),
            EndReason::TakenOver { host, address } => {
                LastWords::Lost(LinkLoss::TakenOver { host, address })
            }
            EndReason::LoggedOut => LastWords::Over(Ending::LoggedOut),
            reason
            @ (EndReason::Administrator | EndReason::Protocol(_) | EndReason::Storage(_)) => {
                LastWords::Over(Ending::ByServer(reason))
            }
        }
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoSession => {
            "the account's password was changed, the account was removed, or the \
            session was ended"
                .to_owned()
        }
        refusal @ (Refusal::WrongPassword
        | Refusal::Blocked { .. }
        | Refusal::InUse { .. }
        | Refusal::Stopping
        | Refusal::Busy
        | Refusal::Internal
        | Refusal::Claimed
        | Refusal::RolledBack
        | Refusal::UnknownKey
        | Refusal::KeysOnly
        | Refusal::Disabled
        | Refusal::UsedInvitation
        | Refusal::PasswordNeeded
        | Refusal::TooManyKeys) => refusal.to_string(),
    }
}

/// The state of a session's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) struct Session {
    pub(in crate::core) link: Link,
    /// Why the session ends as soon as everything is durable. No more changes are accepted then.
    pub(in crate::core) draining: Option<Ending>,
    /// The server is stopping. Changes wait until the link is down, so that all earlier ones become
    /// durable first.
    pub(in crate::core) holding: bool,
    pub(in crate::core) seat: Seat,
    /// Another client that wants the seat.
    pub(in crate::core) wanted_by: Option<Holder>,
    /// Whether the drive is to look again whether it can hand the seat over.
    pub(in crate::core) lets_go: bool,
    /// Whether the attempt that is being made writes back what the kernel has kept.
    pub(in crate::core) writes_back: bool,
    /// The client that has the seat, if another one has it.
    pub(in crate::core) holder: Option<Holder>,
    /// For each time that others have changed the tree, this client's last op that was applied before.
    pub(in crate::core) bases: Vec<Seq>,
    /// The end of the log when the changes that others came before were rescued.
    pub(in crate::core) rescued: Option<Position>,
}

impl Session {
    /// A session that has just begun.
    pub(in crate::core) fn new(now: Instant) -> Session {
        Session {
            link: Link::Up,
            draining: None,
            holding: false,
            seat: Seat::Held { since: now },
            wanted_by: None,
            lets_go: false,
            writes_back: false,
            holder: None,
            bases: Vec::new(),
            rescued: None,
        }
    }

    /// Whether the session accepts changes.
    pub(in crate::core) fn takes_changes(&self) -> bool {
        self.draining.is_none() && !self.is_over()
    }

    /// Whether the link is up.
    pub(in crate::core) fn is_up(&self) -> bool {
        match self.link {
            Link::Up => true,
            Link::Down { .. } | Link::Over(_) => false,
        }
    }

    /// Whether the session is over.
    pub(in crate::core) fn is_over(&self) -> bool {
        match self.link {
            Link::Up | Link::Down { .. } => false,
            Link::Over(_) => true,
        }
    }
}
