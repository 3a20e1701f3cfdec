//! Why the service of a session ends.

use xfer_protocol::message::EndReason;
use xfer_protocol::{Errno, Seq};

use crate::engine::session::Session;
use crate::engine::session::orders::Order;
use crate::engine::session::turn::NoTree;
use crate::engine::trouble::Trouble;

/// Why a session's service ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    /// The client logged out.
    LoggedOut,
    /// The link broke.
    LinkLost(String),
    /// The client said nothing for too long.
    Silent,
    /// The client broke the protocol.
    Protocol(String),
    /// The server's rules refuse an op.
    Diverged(Seq, Errno),
    /// A later session owns the tree.
    Fenced,
    /// The storage failed, or the tree is in an unknown state: nothing more may be committed.
    Failed(Trouble),
    /// Somebody else ordered it.
    Ordered(EndReason),
}

/// Why the session has to end now, if somebody says so.
pub(crate) fn ordered(session: &Session) -> Option<Over> {
    if let Order::Lost { why } = &*session.seat.orders.subscribe().borrow() {
        return Some(Over::LinkLost(why.clone()));
    }
    session.seat.orders.due().map(Over::Ordered)
}

pub(crate) fn no_tree(_: NoTree) -> Over {
    Over::Failed(Trouble::of_server("the session's tree is gone"))
}

pub(crate) fn panicked(_: tokio::task::JoinError) -> Over {
    Over::Failed(Trouble::of_server("a part of the server failed"))
}
