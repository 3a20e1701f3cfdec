//! The log link: ops up, what became of them down.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::FRAME_OPS_MAX;
use crate::shown::Shown;
use crate::tree::{Limit, Op, Quota, Room};
use crate::{DeliveryId, Errno, IdRange, Name, Seq, Timestamp};

/// From the client, on the log link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToServer {
    /// Ops that follow each other, the first with this seq. The frame's payload is the data of
    /// those that are writes, one after the other.
    Ops {
        /// The seq of the first op.
        first: Seq,
        /// The ops; at most [`FRAME_OPS_MAX`].
        #[serde(deserialize_with = "ops_of_a_frame")]
        ops: Vec<Op>,
    },
    /// Commit soon: a program waits until this op is durable.
    Barrier {
        /// The op.
        upto: Seq,
    },
    /// A sign of life. Answered by [`ToClient::Pong`], and by [`ToClient::Durable`] once more with
    /// what the disk can take now.
    Ping {
        /// The client holds to this limit from now on, though it was granted a higher one.
        limit: Limit,
    },
    /// A program waits for room on the server's disk. Answered by [`ToClient::Room`].
    Room {
        /// The limit that would be enough.
        wanted: Room,
    },
    /// Numbers are running out: grant more. Answered by [`ToClient::Ids`].
    MoreIds,
    /// The session ends: every op that was sent is to be made durable, then
    /// [`ToClient::Ended`] is the last word.
    Logout,
}

/// From the server, on the log link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToClient {
    /// All ops up to this one are on the server's disk.
    Durable {
        /// The op.
        seq: Seq,
        /// What the server's disk can still take.
        disk: Room,
        /// What all ops of the session together may take up there.
        limit: Limit,
    },
    /// Answers [`ToServer::Room`]: if the limit is lower than what was wanted, there is no more.
    Room {
        /// What the server's disk can still take.
        disk: Room,
        /// What all ops of the session together may take up there.
        limit: Limit,
    },
    /// The server refused an op that the client predicted to succeed. The session ends; the tree
    /// is as it was after the op before.
    Diverged {
        /// The op.
        seq: Seq,
        /// What the server's rules said.
        errno: Errno,
    },
    /// Something was sent to this user.
    Arrived(DeliveryHead),
    /// Something that this user sent was accepted or turned away.
    Settled {
        /// Which.
        delivery: DeliveryId,
        /// What became of it.
        state: super::DeliveryState,
    },
    /// The users that one can send to, after a change.
    Users(Vec<Name>),
    /// The quota, after a change.
    Quota(Quota),
    /// More numbers, to be used when those granted before are used up.
    Ids(IdRange),
    /// Answers [`ToServer::Ping`].
    Pong,
    /// The session is about to end: take no more changes, send what there is, then
    /// [`ToServer::Logout`]. After the deadline the server ends it.
    Drain {
        /// Why.
        reason: EndReason,
        /// How long there is.
        deadline_ms: u64,
    },
    /// The session is over; the server closes the link.
    Ended(EndReason),
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum EndReason {
    /// The client asked for it.
    #[error("logged out")]
    LoggedOut,
    /// Another login took the session over.
    #[error("taken over by a mount on {} ({})", Shown(host), Shown(address))]
    TakenOver {
        /// The other client's host, as it named itself.
        host: String,
        /// The other client's address.
        address: String,
    },
    /// The server's admin ended it, or removed the account, or changed its password.
    #[error("ended by the server's administrator")]
    Administrator,
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
    /// The server heard nothing from the client for this long.
    #[error("the server heard nothing from this machine for {seconds} s")]
    Silent {
        /// How long.
        seconds: u64,
    },
    /// The client broke the protocol, or its ops and the server's rules disagree.
    #[error("the two sides disagree: {}", Shown(.0))]
    Protocol(String),
    /// The server's storage failed; its log says how.
    #[error("the server's storage failed: {}", Shown(.0))]
    Storage(String),
}

/// A delivery as it is announced; its items are fetched with [`super::Ask::Delivery`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeliveryHead {
    /// Its number.
    pub id: DeliveryId,
    /// The sender.
    pub from: Name,
    /// The name of what was sent.
    pub name: Name,
    /// When it was sent.
    pub sent: Timestamp,
    /// How many items it has.
    pub items: u32,
    /// How many bytes it takes up.
    pub bytes: u64,
}

/// Ops take up far more memory than bytes, so that there are too many is found while they are read.
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
