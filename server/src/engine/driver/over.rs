//! Why a session ends, how that is logged, and the last words to the client.
//!
//! A link ends for other reasons: see [`LinkEnd`](crate::engine::session::lending::LinkEnd).

use tracing::Level;
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

/// What the log says of a session that leaves memory.
#[derive(PartialEq, Eq, Debug)]
struct Note {
    level: Level,
    event: &'static str,
    why: String,
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

    /// Logs that this session leaves memory.
    pub(crate) fn log(&self, session: &Session) {
        let (user, address) = (session.user(), &session.seat.who.address);
        let applied = session.position.applied();
        let Note { level, event, why } = self.note(session.seat.orders.given().as_ref());
        match level {
            Level::ERROR => tracing::error!(%user, address, %applied, why, "{event}"),
            Level::WARN => tracing::warn!(%user, address, %applied, why, "{event}"),
            _ => tracing::info!(%user, address, %applied, why, "{event}"),
        }
    }

    /// What the log says, if the session had been given a reason to end. A client that was asked to log out,
    /// or to let go, did not end its session of itself.
    fn note(&self, given: Option<&EndReason>) -> Note {
        let event = match self.fate() {
            Fate::Over => "session ends",
            Fate::Yielded => "session gives its seat up",
            Fate::Resumable if matches!(self, Over::Ordered(EndReason::Continued)) => {
                "session leaves its link"
            }
            Fate::Resumable => "session is away",
        };
        let (level, why) = match (self, given) {
            (Over::LinkLost(_), Some(reason)) => (Level::INFO, reason.to_string()),
            (Over::LoggedOut, Some(reason)) if !reason.is_passing() => {
                (Level::INFO, reason.to_string())
            }
            (Over::LoggedOut, _) => (Level::INFO, EndReason::LoggedOut.to_string()),
            (Over::Yielded, _) => (Level::INFO, EndReason::Yielded.to_string()),
            (Over::LinkLost(loss), None) => (Level::INFO, loss.to_string()),
            (Over::Ordered(reason), _) => (Level::INFO, reason.to_string()),
            (Over::Protocol(what), _) => (Level::WARN, format!("protocol broken: {what}")),
            (Over::Diverged(seq, errno), _) => {
                (Level::WARN, format!("op {seq} was refused: {errno}"))
            }
            (Over::NoRoom(seq), _) => (Level::WARN, format!("the disk is full (op {seq})")),
            (Over::Full, _) => (Level::WARN, "the disk is full".to_owned()),
            (Over::Fenced, _) => (Level::WARN, "fenced by a later session".to_owned()),
            (Over::Failed(what), _) => (Level::ERROR, format!("storage failed: {what}")),
        };
        Note { level, event, why }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_over() -> EndReason {
        EndReason::TakenOver { host: "desk".to_owned(), address: "192.0.2.1".to_owned() }
    }

    fn check(over: Over, given: Option<EndReason>, event: &str, why: &str) {
        let note = over.unless(None).note(given.as_ref());
        assert_eq!((note.event, note.why.as_str()), (event, why));
    }

    #[test]
    fn the_log_says_who_ended_a_session_and_whether_it_can_go_on() {
        let administrator = EndReason::Administrator.to_string();
        let (stopping, closed) = ("the server is stopping", "the client closed the connection");
        let lost = || Over::LinkLost(Loss::Closed);
        let broken = || Over::LinkLost(Loss::Broken("reset".to_owned()));
        let storage = || EndReason::Storage("its disk failed".to_owned());
        for (over, given, event, why) in [
            (lost(), None, "session is away", closed),
            (broken(), None, "session is away", "the connection broke: reset"),
            (
                Over::LinkLost(Loss::Silent),
                None,
                "session is away",
                "the client was silent for 90 s",
            ),
            // The client answers an order.
            (lost(), Some(EndReason::Stopping), "session is away", stopping),
            (broken(), Some(EndReason::Stopping), "session is away", stopping),
            (Over::LoggedOut, Some(EndReason::Administrator), "session ends", &administrator),
            (Over::LoggedOut, Some(EndReason::Stopping), "session ends", "logged out"),
            (Over::LoggedOut, None, "session ends", "logged out"),
            (Over::Yielded, None, "session gives its seat up", "handed over"),
            (Over::Ordered(EndReason::Stopping), None, "session is away", stopping),
            (Over::Ordered(EndReason::Administrator), None, "session ends", &administrator),
            (
                Over::Ordered(taken_over()),
                None,
                "session gives its seat up",
                "taken over by a client on desk (192.0.2.1)",
            ),
            (
                Over::Ordered(EndReason::Continued),
                None,
                "session leaves its link",
                "continued over another connection",
            ),
            (
                Over::Ordered(storage()),
                None,
                "session ends",
                "the server's storage failed: its disk failed",
            ),
            (Over::Full, Some(EndReason::Stopping), "session is away", "the disk is full"),
            (Over::NoRoom(Seq(7)), None, "session is away", "the disk is full (op 7)"),
            (Over::Fenced, None, "session ends", "fenced by a later session"),
            (Over::Protocol("x".to_owned()), None, "session ends", "protocol broken: x"),
            (Over::Failed(Trouble::of_server("x")), None, "session ends", "storage failed: x"),
        ] {
            check(over, given, event, why);
        }
    }
}
