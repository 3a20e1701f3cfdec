//! The beginning of a link: versions, then identity.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Credential, DeliveryHead, Done, Silence, Task, Terms};
use crate::shown::Shown;
use crate::tree::{Quota, Room, Usage};
use crate::{Epoch, IdRange, Ino, Name, Seq, SessionId, Timestamp};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 6;

/// The protocol's name in TLS (ALPN), so that neither side can be tricked into another protocol.
pub const ALPN: &[u8] = b"xfer/1";

/// A fatal TLS alert, `access_denied`, that the server sends in place of its handshake when it has
/// no room for the link.
pub const BUSY_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// The first message of a link, from the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// Always [`ClientHello::MAGIC`], so that the server recognises strangers at once.
    pub magic: [u8; 4],
    /// The oldest version the client speaks.
    pub version_min: u16,
    /// The newest version the client speaks.
    pub version_max: u16,
    /// Optional abilities, one bit each. None are defined yet; unknown bits are ignored.
    pub capabilities: u64,
    /// The client's name and version, for the server's log; at most 64 bytes.
    pub software: String,
}

impl ClientHello {
    /// The value of [`ClientHello::magic`].
    pub const MAGIC: [u8; 4] = *b"xfer";

    /// The hello of a client that speaks only [`VERSION`].
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
        /// The version that the link uses.
        version: u16,
        /// The client's capabilities that the server has too.
        capabilities: u64,
        /// The server's name and version, for logs and messages.
        software: String,
        /// The server's time, so that the client can warn if the two clocks differ much.
        time: Timestamp,
    },
    /// The two have no version in common; the server closes the link.
    Incompatible {
        /// The oldest version the server speaks.
        version_min: u16,
        /// The newest version the server speaks.
        version_max: u16,
    },
    /// The server accepts no more links at the moment; try again later.
    Busy,
}

/// The second message of a link, from the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Opening {
    /// Begin a session; the link becomes its log link.
    Login {
        /// The account's name.
        user: String,
        /// How the client proves that it acts for the account; not by an invitation.
        credential: Credential,
        /// What to do if the account already has a session.
        purpose: Purpose,
        /// The client's host name, shown when this session keeps another login out; at most 64 bytes.
        host: String,
        /// The key that the client made for this session, with which it can resume it.
        key: PublicKey,
        /// A session of the account that is to make way, because its client has crashed on the same
        /// machine.
        replaces: Option<SessionId>,
        /// What the client asks for.
        terms: Terms,
    },
    /// Continue a session whose log link was lost, or take its seat again after another session had
    /// it; the link becomes its log link. No password is needed.
    Resume(Box<Resume>),
    /// Join an existing session; the link becomes a read link.
    Attach {
        /// The session's public name, from [`Grant::session`].
        session: SessionId,
        /// Its secret, from [`Grant::secret`].
        secret: Secret,
    },
    /// Do something with the account, without a session. The server answers and closes the link.
    Account {
        /// The account's name.
        user: String,
        /// How the client proves that it acts for the account.
        credential: Credential,
        /// What to do.
        task: Task,
    },
}

/// The request to continue a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// The account's name.
    pub user: String,
    /// The session's public name, from [`Grant::session`].
    pub session: SessionId,
    /// The secret from the last grant that the client received, [`Grant::resume`].
    pub secret: Secret,
    /// The epoch of that grant.
    pub epoch: Epoch,
    /// The last op that the client knows to be durable.
    pub durable: Seq,
    /// Counts the client's requests for this session, from 1. One that comes late, after a later one
    /// was granted, must not end that one's link.
    pub attempt: u64,
    /// How much the client wants the seat.
    pub wish: Wish,
    /// What the client asks for.
    pub terms: Terms,
    /// The signature of this TLS connection ([`BINDING_LABEL`]) by the session's key. A stolen
    /// secret is useless without the key, and a signature is useless on another connection.
    pub proof: Signature,
}

/// What to do if the account already has a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// Begin a session only if there is none.
    Mount,
    /// End the existing session, then begin one.
    TakeOver,
}

/// How much a client wants its session's seat, which another session may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Wish {
    /// If it is free.
    IfFree,
    /// A program waits for it: ask the other client to hand it over, if both clients do that.
    Now,
    /// No more: if another session has had it, the client does not come back.
    /// [`Refusal::NoSession`] confirms that.
    Never,
}

/// The server's answer to [`Opening`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Opened {
    /// The session began.
    Session(Box<Grant>),
    /// The session continues: the client sends all ops after [`Grant::applied`], again if need be.
    Resumed(Box<Grant>),
    /// The session has its seat again, after other sessions have changed the tree.
    Returned(Box<Return>),
    /// The link joined the session.
    Attached,
    /// The task was done.
    Done(Done),
    /// The link was refused; the server closes it.
    Refused(Refusal),
}

/// Why a link was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The name or the password is wrong; the server does not say which.
    #[error("wrong user name or password")]
    WrongPassword,
    /// Too many wrong passwords came from this address.
    #[error("blocked after too many wrong passwords; try again in {seconds} s")]
    Blocked {
        /// How long the block still lasts, in seconds.
        seconds: u64,
    },
    /// The account already has a session.
    #[error("the account is in use on {} ({})", Shown(host), Shown(address))]
    InUse {
        /// The other client's host name, as that client gave it.
        host: String,
        /// The other client's address, as the server saw it.
        address: String,
        /// When the other session began.
        since: Timestamp,
    },
    /// There is no such session (any more), or the secret is wrong.
    #[error("the session is over")]
    NoSession,
    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The server has as many sessions, or as much work, as it can take.
    #[error("the server is too busy")]
    Busy,
    /// The server failed; its log says why.
    #[error("the server failed; its log says why")]
    Internal,
    /// An administrator of the server is working on the account, for example importing into it.
    #[error("the server's administrator is working on the account")]
    Claimed,
    /// The session can't be continued, because the server's store is older than what the client
    /// knows: it was put back from a backup.
    #[error("the server's store is older than this session: it was put back from a backup")]
    RolledBack,
    /// The account does not know the device's key, or not any more.
    #[error("the server does not know this machine's key, or it was revoked or has expired")]
    UnknownKey,
    /// The password is right, and the account takes none: its devices log in with keys.
    #[error("this account takes no passwords, only keys of machines")]
    KeysOnly,
    /// The invitation was used, was replaced by a later one, or has expired.
    #[error(
        "the invitation was used already, was replaced by another, has expired, or is not as it was printed"
    )]
    UsedInvitation,
    /// A device's key is not enough for this task.
    #[error("this needs the account's password; a key of a machine is not enough")]
    PasswordNeeded,
    /// The account has [`KEYS_MAX`](crate::limits::KEYS_MAX) keys already.
    #[error("the account has as many keys as it may ({max})", max = crate::limits::KEYS_MAX)]
    TooManyKeys,
    /// The password or the key is right, and the account is disabled.
    #[error("the server's administrator has disabled this account, or it has expired")]
    Disabled,
}

/// Everything that a client needs to begin its session, or to continue it over a new link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The session's public name, for [`Opening::Attach`].
    pub session: SessionId,
    /// Proves that a read link belongs to the session and its present log link.
    pub secret: Secret,
    /// Proves that a later log link continues the session. Each grant has a new one, which replaces
    /// the older ones when it is used.
    pub resume: Secret,
    /// The session's number among all that the tree has had.
    pub epoch: Epoch,
    /// The last op that the server has applied; the client numbers its ops from the next one.
    pub applied: Seq,
    /// The account's name, as the server writes it.
    pub user: Name,
    /// How long each side may be silent: as long as the client asked for, or longer.
    pub silence: Silence,
    /// Numbers for new nodes, contents and deliveries: all that the session was granted and that
    /// the ops up to `applied` have not used up.
    pub ids: Vec<IdRange>,
    /// What the tree takes up now.
    pub usage: Usage,
    /// What the tree may take up.
    pub quota: Quota,
    /// What the server's disk can still take.
    pub disk: Room,
    /// The first limit on the room that all ops of the session together may take up there.
    pub limit: Room,
    /// The users that can be sent to.
    pub users: Vec<Name>,
    /// Deliveries that wait to be accepted or declined.
    pub deliveries: Vec<DeliveryHead>,
}

/// Everything that a client needs to go on with a session after others have changed its tree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Return {
    /// As for a new session: all numbers are new, and ops go on after [`Grant::applied`].
    pub grant: Grant,
    /// The last op of this session that was applied before it lost its seat. Later ones that the
    /// client still has are refused.
    pub base: Seq,
    /// What was changed meanwhile.
    pub changed: Changed,
}

/// The nodes that other sessions have changed, made or removed. An entry that was changed, made or
/// removed counts as a change of its directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Changed {
    /// These, in order, at most [`CHANGED_MAX`](crate::limits::CHANGED_MAX).
    Nodes(Vec<Ino>),
    /// Perhaps all.
    All,
}

/// The label by which both sides derive the value that is signed in proofs ([`Resume::proof`], and
/// those of devices) from the TLS connection (RFC 5705, RFC 8446 section 7.5), without a context.
pub const BINDING_LABEL: &[u8] = b"EXPORTER-xfer-resume";

/// The value that stands for one TLS connection, derived with [`BINDING_LABEL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Binding(pub [u8; 32]);

/// An Ed25519 public key (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signature (RFC 8032), its two halves in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Signature(pub [[u8; 32]; 2]);

/// A password in transit. `Debug` does not show it; dropping overwrites it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct Password(pub Vec<u8>);

/// Proves that a link belongs to a session: 256 random bits.
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
