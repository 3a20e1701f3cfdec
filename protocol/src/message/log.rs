//! The log link: ops up, acknowledgements down.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::FRAME_OPS_MAX;
use crate::shown::Shown;
use crate::tree::{Limit, Op, Quota, Room};
use crate::{DeliveryId, Errno, IdRange, Name, Seq, Timestamp};

/// A message from the client on the log link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToServer {
    /// Consecutive ops. The frame's payload is the data of the writes among them, concatenated in
    /// the order of the ops.
    Ops {
        /// The seq of the first op.
        first: Seq,
        /// The ops, at most [`FRAME_OPS_MAX`], numbered from `first` on.
        #[serde(deserialize_with = "ops_of_a_frame")]
        ops: Vec<Op>,
    },
    /// Commit soon: a program waits for an op to become durable.
    Barrier {
        /// The last op that must be durable.
        upto: Seq,
    },
    /// A heartbeat. The server answers with [`ToClient::Pong`], and repeats [`ToClient::Durable`]
    /// with the disk's present room.
    Ping {
        /// The limit that the client keeps to from now on; it may be lower than the granted one.
        limit: Limit,
    },
    /// A program waits for room on the server's disk. The server answers with [`ToClient::Room`].
    Room {
        /// The limit that would suffice.
        wanted: Room,
    },
    /// The granted numbers run low. The server answers with [`ToClient::Ids`].
    MoreIds,
    /// The session ends: the server makes every op that was sent durable, then says
    /// [`ToClient::Ended`] as its last message.
    Logout,
    /// Like [`ToServer::Logout`], but the client may take the seat again
    /// ([`Opening::Resume`](super::Opening::Resume)). It shows nothing of the tree until then.
    Yield,
}

/// A message from the server on the log link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToClient {
    /// All ops up to `seq` are on the server's disk.
    Durable {
        /// The last op that is durable.
        seq: Seq,
        /// What the server's disk can still take.
        disk: Room,
        /// The limit on the room that all ops of the session together may take up there.
        limit: Limit,
    },
    /// Answers [`ToServer::Room`]. A limit lower than the one wanted means that there is no more room.
    Room {
        /// What the server's disk can still take.
        disk: Room,
        /// The limit on the room that all ops of the session together may take up there.
        limit: Limit,
    },
    /// The server refused an op that the client had predicted to succeed. The session ends, and the
    /// tree stays as the previous op left it.
    Diverged {
        /// The op that was refused; no later op is applied.
        seq: Seq,
        /// The error from the server's rules.
        errno: Errno,
    },
    /// Something was sent to this user.
    Arrived(DeliveryHead),
    /// A delivery from this user was accepted or refused, or found no room in the inbox.
    Settled {
        /// The delivery's number.
        delivery: DeliveryId,
        /// Its new state.
        state: super::DeliveryState,
    },
    /// The complete list of users that can be sent to, after a change.
    Users(Vec<Name>),
    /// The tree's new quota, after the administrator changed it.
    Quota(Quota),
    /// More numbers. The client uses up those granted before first.
    Ids(IdRange),
    /// Answers [`ToServer::Ping`].
    Pong,
    /// The session is about to end: make no more changes, send the ops in hand, then
    /// [`ToServer::Logout`]. The server ends it at the deadline.
    Drain {
        /// Why the session ends; [`ToClient::Ended`] repeats it.
        reason: EndReason,
        /// The time left, in milliseconds.
        deadline_ms: u64,
    },
    /// Another client of the user's wants the seat. One that hands it over says
    /// [`ToServer::Yield`] when it can.
    Wanted {
        /// The other client's host name, as that client gave it.
        host: String,
        /// The other client's address, as the server saw it.
        address: String,
    },
    /// The server serves the session no longer and closes the link. The client may resume it after
    /// a reason that passes ([`EndReason::is_passing`]); else the session is over.
    Ended(EndReason),
}

/// Why a session ended, or why the server serves it no longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum EndReason {
    /// The client logged out.
    #[error("logged out")]
    LoggedOut,
    /// The client handed its seat over, and may take it again.
    #[error("handed over")]
    Yielded,
    /// Another login took the seat. The client may take it again once it is free.
    #[error("taken over by a client on {} ({})", Shown(host), Shown(address))]
    TakenOver {
        /// The other client's host name, as that client gave it.
        host: String,
        /// The other client's address, as the server saw it.
        address: String,
    },
    /// Its client continues it over another link. This is the last message of the link before.
    #[error("continued over another connection")]
    Continued,
    /// An administrator of the server ended it, removed the account or changed its password.
    #[error(
        "ended by the server's administrator, or the key or password of this machine is no longer good"
    )]
    Administrator,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The server's disk has no room for a change that the client made while there was room. The
    /// changes before it are durable.
    #[error("the server's disk is full")]
    DiskFull,
    /// The server received nothing from the client for too long.
    #[error("the server heard nothing from this machine for {seconds} s")]
    Silent {
        /// How long the client was silent, in seconds.
        seconds: u64,
    },
    /// The client broke the protocol, or its ops contradict the server's rules.
    #[error("the client and the server disagree: {}", Shown(.0))]
    Protocol(String),
    /// The server's storage failed; the server's log has the details.
    #[error("the server's storage failed: {}", Shown(.0))]
    Storage(String),
}

impl EndReason {
    /// Whether the session goes on when its client resumes it.
    pub fn is_passing(&self) -> bool {
        match self {
            EndReason::Stopping
            | EndReason::DiskFull
            | EndReason::Continued
            | EndReason::Yielded
            | EndReason::TakenOver { .. }
            | EndReason::Silent { .. } => true,
            EndReason::LoggedOut
            | EndReason::Administrator
            | EndReason::Protocol(_)
            | EndReason::Storage(_) => false,
        }
    }
}

/// The announcement of a delivery; the client fetches its items with [`super::Ask::Delivery`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeliveryHead {
    /// The number to fetch, accept or decline it by.
    pub id: DeliveryId,
    /// The sender's user name.
    pub from: Name,
    /// The name of the file or directory that was sent.
    pub name: Name,
    /// When it was sent, by the sender's clock.
    pub sent: Timestamp,
    /// The number of items, its top one included.
    pub items: u32,
    /// Its size in an inbox, in bytes, as [`crate::tree::Delivery::bytes`] counts it.
    pub bytes: u64,
}

/// Rejects too many ops while decoding: they take up far more memory than their encoded bytes.
fn ops_of_a_frame<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Op>, D::Error> {
    struct Ops;

    impl<'de> Visitor<'de> for Ops {
        type Value = Vec<Op>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {FRAME_OPS_MAX} ops")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Op>, A::Error> {
            let mut ops = Vec::new();
            while let Some(op) = seq.next_element()? {
                if ops.len() == FRAME_OPS_MAX {
                    return Err(A::Error::custom(format!("more than {FRAME_OPS_MAX} ops")));
                }
                ops.push(op);
            }
            Ok(ops)
        }
    }

    deserializer.deserialize_seq(Ops)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tree::Action;
    use crate::{Ino, codec};

    #[test]
    fn a_frame_with_too_many_ops_is_refused_while_it_is_read() {
        let action = Action::ForgetOrphan { ino: Ino(5000) };
        let op = Op { time: Timestamp::default(), action };
        let frame = |count| ToServer::Ops { first: Seq(1), ops: vec![op.clone(); count] };
        let most = frame(FRAME_OPS_MAX);
        assert_eq!(codec::decode::<ToServer>(&codec::encode(&most).unwrap()).unwrap(), most);
        let more = codec::encode(&frame(FRAME_OPS_MAX + 1)).unwrap();
        let error = codec::decode::<ToServer>(&more).unwrap_err();
        assert!(error.to_string().contains("more than 4096 ops"), "{error}");
    }
}
