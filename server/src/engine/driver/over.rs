//! Why a session ends, how that is logged, and the last words to the client.
//!
//! A link ends for other reasons: see [`LinkEnd`](crate::engine::session::lending::LinkEnd).

use xfer_protocol::limits::CLIENT_SILENCE_TIMEOUT_MS;
use xfer_protocol::message::{EndReason, ToClient};
use xfer_protocol::{Errno, Seq};
use xfer_store::Fate;

use crate::engine::durable::trouble::Trouble;
use crate::engine::session::Session;
use crate::engine::session::lending::Loss;
use crate::engine::session::turn::NoTree;

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Over {
    /// The client logged out.
    LoggedOut,
    /// The client gave the seat up, and may take it again.
    Yielded,
    /// The link was lost. The client may resume the session.
    LinkLost(Loss),
    /// The client broke the protocol.
    Protocol(String),
    /// The server's rules refused an op.
    Diverged(Seq, Errno),
    /// The disk has no room for an op. The client may resume the session, and find more room.
    NoRoom(Seq),
    /// The disk is full, so a commit failed, and no more may be committed. The client may resume the
    /// session, as after [`Over::NoRoom`].
    Full,
    /// A later session owns the tree.
    Fenced,
    /// The storage failed, or the tree is in an unknown state: no more may be committed.
    Failed(Trouble),
    /// The session was ordered to end, by an administrator, a takeover or the engine.
    Ordered(EndReason),
}

/// Returns the reason why the session must end now, if it was ordered to.
pub(crate) fn ordered(session: &Session) -> Option<Over> {
    session.seat.orders.due().map(Over::Ordered)
}

pub(crate) fn no_tree(_: NoTree) -> Over {
    Over::Failed(Trouble::of_server("the session's tree is gone"))
}

impl Over {
    /// The reason, unless the client could resume the session and it is to end for good.
    pub(crate) fn unless(self, for_good: Option<EndReason>) -> Over {
        match (&self, for_good) {
            // Nobody can take it over at a server that stops.
            (Over::Ordered(EndReason::Stopping), Some(EndReason::TakenOver { .. })) => self,
            (_, Some(reason)) if self.fate() != Fate::Over => Over::Ordered(reason),
            (_, _) => self,
        }
    }

    /// Whether the client may resume the session, and whether it keeps its seat until then.
    pub(crate) fn fate(&self) -> Fate {
        match self {
            Over::LinkLost(_) | Over::NoRoom(_) | Over::Full => Fate::Resumable,
            Over::Yielded | Over::Ordered(EndReason::TakenOver { .. }) => Fate::Yielded,
            Over::Ordered(reason) if reason.is_passing() => Fate::Resumable,
            Over::Ordered(_)
            | Over::LoggedOut
            | Over::Protocol(_)
            | Over::Diverged(..)
            | Over::Fenced
            | Over::Failed(_) => Fate::Over,
        }
    }

    /// Logs the end of this session.
    pub(crate) fn log(&self, session: &Session) {
        let (user, address) = (session.user(), &session.seat.who.address);
        let applied = session.position.applied();
        match self {
            Over::LoggedOut => tracing::info!(%user, address, %applied, "session ends: logged out"),
            Over::Yielded => tracing::info!(%user, address, %applied, "session gives its seat up"),
            Over::LinkLost(Loss::Closed) => {
                let why = "the client closed it";
                tracing::info!(%user, address, %applied, why, "link lost");
            }
            Over::LinkLost(Loss::Broken(why)) => {
                tracing::info!(%user, address, %applied, why, "link lost");
            }
            Over::LinkLost(Loss::Silent) => {
                tracing::info!(%user, address, %applied, "link lost: client silent");
            }
            Over::Protocol(what) => {
                tracing::warn!(%user, address, %applied, what, "session ends: protocol broken");
            }
            Over::Diverged(seq, errno) => {
                tracing::warn!(%user, address, %seq, ?errno, "session ends: an op was refused");
            }
            Over::NoRoom(seq) => {
                let why = "the disk is full";
                tracing::warn!(%user, address, %seq, why, "link given up");
            }
            Over::Full => {
                let why = "the disk is full";
                tracing::warn!(%user, address, %applied, why, "link given up");
            }
            Over::Fenced => tracing::warn!(%user, address, %applied, "session ends: fenced"),
            Over::Failed(what) => {
                tracing::error!(%user, address, %applied, %what, "session ends: storage failed");
            }
            Over::Ordered(reason) => {
                tracing::info!(%user, address, %applied, %reason, "session ends");
            }
        }
    }

    /// Returns the last messages to the client. There are none if no link can carry them.
    pub(crate) fn last_words(self) -> Vec<ToClient> {
        let reason = match self {
            Over::LoggedOut => EndReason::LoggedOut,
            Over::Yielded => EndReason::Yielded,
            Over::LinkLost(Loss::Closed | Loss::Broken(_)) => return Vec::new(),
            // A client whose process was stopped reads this when it continues.
            Over::LinkLost(Loss::Silent) => {
                EndReason::Silent { seconds: CLIENT_SILENCE_TIMEOUT_MS / 1000 }
            }
            Over::Protocol(what) => EndReason::Protocol(what),
            Over::Diverged(seq, errno) => {
                let reason = EndReason::Protocol(format!("op {seq}: {errno}"));
                return vec![ToClient::Diverged { seq, errno }, ToClient::Ended(reason)];
            }
            Over::NoRoom(_) | Over::Full => EndReason::DiskFull,
            // Within one server, a session is over before the next begins, so another server fenced
            // it.
            Over::Fenced => EndReason::TakenOver {
                host: "another server".to_owned(),
                address: "unknown".to_owned(),
            },
            Over::Failed(what) => EndReason::Storage(what.told()),
            Over::Ordered(reason) => reason,
        };
        vec![ToClient::Ended(reason)]
    }
}
