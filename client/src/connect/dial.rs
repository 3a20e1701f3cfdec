//! Opening links: the log link of a session, and its read links.
//!
//! A [`Dial`] outlives a session's links. This crate's leads to a real server. Tests make others
//! from anything that speaks the protocol.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use xfer_protocol::SessionId;
use xfer_protocol::message::{Grant, Password, Purpose, Secret};

use super::error::EndpointError;

/// The reading half of a link.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The writing half of a link.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A link that is being opened.
pub type Dialling<'a, T> = Pin<Box<dyn Future<Output = Result<T, EndpointError>> + Send + 'a>>;

/// How a log link begins.
pub enum Begin {
    /// With a new session of the account.
    New {
        /// The account's password.
        password: Password,
        /// Whether to end a session that the account has already.
        purpose: Purpose,
    },
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
    /// The link's reading half.
    pub reader: Reader,
    /// The link's writing half.
    pub writer: Writer,
}

/// Opens links to one server.
pub trait Dial: Send + Sync + 'static {
    /// Opens a log link.
    fn log_link(&self, begin: Begin) -> Dialling<'_, LogLink>;

    /// Opens one more read link of a session.
    fn read_link(&self, credentials: Credentials) -> Dialling<'_, (Reader, Writer)>;
}

/// A session that has just begun: its log link, and the dial for its other links.
pub struct NewSession {
    /// The open log link.
    pub link: LogLink,
    /// Opens its other links.
    pub dial: Arc<dyn Dial>,
}

impl NewSession {
    /// The credentials that the session's read links present.
    pub fn credentials(&self) -> Credentials {
        let grant = &self.link.grant;
        Credentials { session: grant.session, secret: grant.secret.clone() }
    }
}
