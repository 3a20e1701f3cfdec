//! The two ends between a session and its link.
//!
//! The session gives the link the reading ends of its queues. The link sends up its client's
//! messages, in order, and at last the reason why it ended. The session then has it write the last
//! words, or closes it at once. Messages that were not written are dropped: a client that resumes
//! the session finds out all that they said.
//!
//! **Invariant:** at most [`HEARD_MAX`] messages of a link wait for the session. If more come, the
//! link waits, and so does its client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use xfer_link::watch;
use xfer_protocol::Seq;
use xfer_protocol::limits::CLIENT_SILENCE_TIMEOUT_MS;
use xfer_protocol::message::ToClient;
use xfer_protocol::tree::{Limit, Op, Room};

use super::Session;
use super::queues::Queues;

/// The most messages of a link that may wait for the session.
const HEARD_MAX: usize = 4;

/// A message from a link to its session: one from the client, or the end of the link.
pub(crate) enum FromLink {
    /// The client sends ops to be applied.
    Ops(SentOps),
    /// A program waits until this op is durable.
    Barrier(Seq),
    /// The client is alive, and keeps to this limit.
    Ping(Limit),
    /// A program waits for room on the disk, and this limit would be enough.
    Room(Room),
    /// The client's numbers are running out.
    MoreIds,
    /// The link has ended. This is its last message.
    Ended(LinkEnd),
}

/// Consecutive ops from one frame.
pub(crate) struct SentOps {
    /// The seq of the first op.
    pub(crate) first: Seq,
    pub(crate) ops: Vec<Op>,
    /// The data of the writes, one after the other.
    pub(crate) payload: Bytes,
    /// The frame's share of the memory for frames, held until the ops are applied.
    pub(crate) held: OwnedSemaphorePermit,
}

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// The client logged out.
    LoggedOut,
    /// The client gave the seat up.
    Yielded,
    /// The client sent bytes that are not a frame or not a message.
    Protocol(String),
    /// The client can't be reached any more.
    Lost(Loss),
}

/// How a link was lost. The session need not end because of that.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Loss {
    /// The client closed the connection.
    #[error("the client closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The client was silent for too long. It may still receive messages.
    #[error("the client was silent for {} s", CLIENT_SILENCE_TIMEOUT_MS / 1000)]
    Silent,
}

/// An order from the session to its link.
#[derive(Clone)]
enum LinkOrder {
    /// Go on.
    Serve,
    /// Write all messages that wait, then these, and end.
    Farewell(Vec<ToClient>),
    /// End at once.
    Close,
}

/// The link's side of a loan: the only parts of the session that a link has.
pub(crate) struct Lent {
    pub(crate) session: Arc<Session>,
    pub(crate) queues: Queues,
    pub(crate) upward: mpsc::Sender<FromLink>,
    pub(crate) orders: LinkOrders,
    /// Dropped when the link has ended.
    pub(crate) ended: oneshot::Sender<()>,
}

/// The orders to a link, as its parts wait for them.
#[derive(Clone)]
pub(crate) struct LinkOrders(watch::Receiver<LinkOrder>);

/// The session's side of a loan.
pub(crate) struct Loan {
    heard: mpsc::Receiver<FromLink>,
    orders: watch::Sender<LinkOrder>,
    ended: oneshot::Receiver<()>,
}

/// Lends the queues of a session to a link.
pub(crate) fn lend(session: Arc<Session>, queues: Queues) -> (Lent, Loan) {
    let (upward, heard) = mpsc::channel(HEARD_MAX);
    session.note_link(upward.downgrade());
    let (orders, orders_end) = watch::channel(LinkOrder::Serve);
    let (ended, ended_end) = oneshot::channel();
    let orders_end = LinkOrders(orders_end);
    let lent = Lent { session, queues, upward, orders: orders_end, ended };
    (lent, Loan { heard, orders, ended: ended_end })
}

impl LinkOrders {
    /// Completes when the link is to write its last words, and returns these.
    pub(crate) async fn farewell(&mut self) -> Vec<ToClient> {
        let is_farewell = |order: &LinkOrder| matches!(order, LinkOrder::Farewell(_));
        let words = self.0.wait_for(is_farewell).await.ok().and_then(|order| match order {
            LinkOrder::Farewell(words) => Some(words),
            LinkOrder::Serve | LinkOrder::Close => None,
        });
        match words {
            Some(words) => words,
            // A session whose task failed has no last words; the link closes.
            None => std::future::pending().await,
        }
    }

    /// Completes when the link is to end at once, because the session ordered it or the session's
    /// task failed.
    pub(crate) async fn close(&mut self) {
        // The link ends in either case, so an error needs no separate handling.
        let _ = self.0.wait_for(|order| matches!(order, LinkOrder::Close)).await;
    }
}

impl Loan {
    /// Waits for the next message from the link. A link whose task failed counts as broken.
    pub(crate) async fn hear(&mut self) -> FromLink {
        let failed = || FromLink::Ended(LinkEnd::Lost(Loss::Broken("its task failed".to_owned())));
        self.heard.recv().await.unwrap_or_else(failed)
    }

    /// Ends the link. It first writes all messages that wait, then these words, within `patience`.
    /// Without words it ends at once.
    pub(crate) async fn call_in(mut self, words: Vec<ToClient>, patience: Duration) {
        // A link that can't send its messages up stops reading.
        self.heard.close();
        if !words.is_empty() {
            self.orders.send_replace(LinkOrder::Farewell(words));
            if timeout(patience, &mut self.ended).await.is_ok() {
                return;
            }
        }
        self.orders.send_replace(LinkOrder::Close);
        // A link that is closed waits for nothing, so this needs no deadline. The error says that it
        // has ended.
        let _ = self.ended.await;
    }
}
