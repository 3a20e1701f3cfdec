//! The beginning of a link: versions, then who one is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::DeliveryHead;
use crate::shown::Shown;
use crate::tree::{Quota, Room, Usage};
use crate::{Epoch, IdRange, Name, Seq, SessionId, Timestamp};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 2;

/// What the two sides call their protocol in TLS, so that neither can be led to talk to another's.
pub const ALPN: &[u8] = b"xfer/1";

/// What a server says in place of its part of the TLS handshake when it has no place for the link: a
/// fatal alert, `access_denied`.
pub const BUSY_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// The first message of a link, from the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// Always [`ClientHello::MAGIC`]: so that a stranger is told apart at once.
    pub magic: [u8; 4],
    /// The oldest version the client speaks.
    pub version_min: u16,
    /// The newest version the client speaks.
    pub version_max: u16,
    /// Bits of optional abilities. None are defined yet; unknown ones are ignored.
    pub capabilities: u64,
    /// The client's name and version, for logs: at most 64 bytes.
    pub software: String,
}

impl ClientHello {
    /// What [`ClientHello::magic`] holds.
    pub const MAGIC: [u8; 4] = *b"xfer";

    /// The hello of a client that speaks just [`VERSION`].
    pub fn new(software: &str) -> ClientHello {
        ClientHello {
            magic: Self::MAGIC,
            version_min: VERSION,
            version_max: VERSION,
            capabilities: 0,
            software: software.to_owned(),
        }
    }
}

/// The server's answer to [`ClientHello`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServerHello {
    /// The link goes on in this version.
    Welcome {
        /// The version that both speak.
        version: u16,
        /// Those of the client's capabilities that the server has too.
        capabilities: u64,
        /// The server's name and version, for logs and messages.
        software: String,
        /// The server's time, so that the client can warn of a clock that is far off.
        time: Timestamp,
    },
    /// No common version; the server closes the link.
    Incompatible {
        /// The oldest version the server speaks.
        version_min: u16,
        /// The newest version the server speaks.
        version_max: u16,
    },
    /// The server takes no more links now; try again later.
    Busy,
}

/// The second message of a link, from the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Opening {
    /// Begin a session; the link becomes its log link.
    Login {
        /// The account's name.
        user: String,
        /// Its password.
        password: Password,
        /// What to do about a session that runs already.
        purpose: Purpose,
        /// The client's host name, shown to whoever is refused for this session: at most 64 bytes.
        host: String,
    },
    /// Join a session that runs; the link becomes a read link.
    Attach {
        /// The session.
        session: SessionId,
        /// Its secret, from [`Grant::secret`].
        secret: Secret,
    },
}

/// What a login is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// A session, if none runs.
    Mount,
    /// A session, ending one that runs.
    TakeOver,
}

/// The server's answer to [`Opening`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Opened {
    /// The session began.
    Session(Box<Grant>),
    /// The link joined the session.
    Attached,
    /// No. The server closes the link.
    Refused(Refusal),
}

/// Why a link was not opened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The name or the password is wrong; which of them is not said.
    #[error("wrong user name or password")]
    WrongPassword,
    /// Too many wrong passwords from this address.
    #[error("blocked, try again in {seconds} s")]
    Blocked {
        /// How long the block lasts from now.
        seconds: u64,
    },
    /// The account has a session already.
    #[error("already mounted on {} ({})", Shown(host), Shown(address))]
    InUse {
        /// The other client's host, as it named itself.
        host: String,
        /// The other client's address.
        address: String,
        /// When the other session began.
        since: Timestamp,
    },
    /// No such session, or not its secret.
    #[error("the session is over")]
    NoSession,
    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The server has as many sessions, or as much to do, as it can take.
    #[error("the server is too busy")]
    Busy,
    /// The server failed; its log says why.
    #[error("the server failed; its log says why")]
    Internal,
    /// The server's administrator is working on the account: importing into it, for example.
    #[error("the server's administrator is working on the account")]
    Claimed,
}

/// What a session begins with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The session's name.
    pub session: SessionId,
    /// What proves that a link belongs to the session.
    pub secret: Secret,
    /// Which session of the tree it is.
    pub epoch: Epoch,
    /// The last op that the tree has had; the client's first is the next.
    pub applied: Seq,
    /// The account's name, as the server writes it.
    pub user: Name,
    /// Numbers for new nodes, contents and deliveries.
    pub ids: IdRange,
    /// What the tree takes up.
    pub usage: Usage,
    /// What it may take up.
    pub quota: Quota,
    /// What the server's disk can still take.
    pub disk: Room,
    /// What all ops of the session together may take up there.
    pub limit: Room,
    /// The users that one can send to.
    pub users: Vec<Name>,
    /// Deliveries that wait to be accepted.
    pub deliveries: Vec<DeliveryHead>,
}

/// A password on its way. Not shown by `Debug`; overwritten when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct Password(pub Vec<u8>);

/// What proves that a link belongs to a session: 256 random bits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
