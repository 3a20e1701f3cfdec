//! Opening links: the log link of a session, and its read links.
//!
//! A [`Dial`] outlives a session's links. This crate's leads to a real server. Tests make others
//! from anything that speaks the protocol.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use xfer_protocol::message::{Changed, Grant, Purpose, Secret, Terms, Wish};
use xfer_protocol::{Epoch, Seq, SessionId};

use super::account::Identity;
use super::error::EndpointError;

/// The reading half of a link.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The writing half of a link.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A link that is being opened.
pub type Dialling<'a, T> = Pin<Box<dyn Future<Output = Result<T, EndpointError>> + Send + 'a>>;

/// Something that will happen.
pub type Happening<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// How a log link begins.
pub enum Begin {
    /// With a new session of the account.
    New {
        /// How the client shows that it acts for the account.
        identity: Identity,
        /// Whether to end a session that the account has already.
        purpose: Purpose,
        /// A session that makes way for the new one, because its client has crashed on this machine.
        replaces: Option<SessionId>,
        /// What the client asks for.
        terms: Terms,
    },
    /// With a session that goes on, whose link was lost.
    Resume(Ticket, Bid),
}

/// How much a client wants the seat of its session, if another client has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bid {
    /// What to do if another client has it.
    pub wish: Wish,
    /// What the client asks for.
    pub terms: Terms,
}

/// A client's claim to a session whose link was lost. The dial adds the proof.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The session's public name.
    pub session: SessionId,
    /// The secret from the last grant.
    pub secret: Secret,
    /// The epoch of that grant.
    pub epoch: Epoch,
    /// The last op that is known to be durable.
    pub durable: Seq,
    /// The number of this request for the session. Each has a higher one than the one before.
    pub attempt: u64,
}

impl Ticket {
    /// The claim to the session of a grant, before the first request.
    pub fn new(grant: &Grant) -> Ticket {
        let Grant { session, resume, epoch, applied, .. } = grant;
        let (secret, durable) = (resume.clone(), *applied);
        Ticket { session: *session, secret, epoch: *epoch, durable, attempt: 0 }
    }

    /// The claim to the session once it was granted again.
    #[must_use]
    pub fn after(&self, grant: &Grant) -> Ticket {
        Ticket { attempt: self.attempt, ..Ticket::new(grant) }
    }
}

/// The proof that a link belongs to a session.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The session's public name.
    pub session: SessionId,
    /// Its secret, which the server granted.
    pub secret: Secret,
}

/// A log link that was just opened.
pub struct LogLink {
    /// The server's grant: the session, its limits, and the state of its tree.
    pub grant: Grant,
    /// The changes by other clients since the session lost its seat, if there were any.
    pub missed: Option<Missed>,
    /// The link's reading half.
    pub reader: Reader,
    /// The link's writing half.
    pub writer: Writer,
}

/// The changes by other clients while they had the seat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missed {
    /// The last op of the session that was applied before that.
    pub base: Seq,
    /// The nodes that they changed.
    pub changed: Changed,
}

/// Opens links to one server.
pub trait Dial: Send + Sync + 'static {
    /// Opens a log link.
    fn log_link(&self, begin: Begin) -> Dialling<'_, LogLink>;

    /// Opens one more read link of a session.
    fn read_link(&self, credentials: Credentials) -> Dialling<'_, (Reader, Writer)>;

    /// Waits until this machine's network changes, so that a server may be reached, or not be
    /// reached any more. Never, unless it is known.
    fn network_change(&self) -> Happening<'_> {
        Box::pin(std::future::pending())
    }

    /// Has what the last log link did not deliver yet thrown away once that link is closed. Otherwise the
    /// system goes on delivering it.
    fn give_up(&self) {}

    /// Whether this machine no longer has the address from which the last log link was opened.
    fn has_lost_address(&self) -> bool {
        false
    }
}

/// A session that has just begun: its log link, and the dial for its other links.
pub struct NewSession {
    /// The open log link.
    pub link: LogLink,
    /// Opens its other links.
    pub dial: Arc<dyn Dial>,
}

impl Credentials {
    /// The credentials that read links present beside the log link of this grant.
    pub fn new(grant: &Grant) -> Credentials {
        Credentials { session: grant.session, secret: grant.secret.clone() }
    }
}
