//! Lending a session's queues to a link, and getting them back.
//!
//! The session lends the reading ends of its queues. The link sends up what it hears, in order, and
//! at last why it ended. The session then lets it say its last words, or closes it at once, and gets
//! the queues back, with all that was not written.
//!
//! **Invariant:** at most [`HEARD_MAX`] messages of a link wait for the session. A link that hears
//! more waits, and so does its client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use xfer_link::watch;
use xfer_protocol::Seq;
use xfer_protocol::message::ToClient;
use xfer_protocol::tree::{Limit, Op, Room};

use super::Session;
use super::queues::Queues;

/// How many messages of a link may wait for the session.
const HEARD_MAX: usize = 4;

/// What a link sends up: what its client said, or that it ended.
pub(crate) enum FromLink {
    /// Ops, to be applied.
    Ops(SentOps),
    /// A program waits until this op is durable.
    Barrier(Seq),
    /// The client lives, and holds to this limit.
    Ping(Limit),
    /// A program waits for room on the disk: this limit would be enough.
    Room(Room),
    /// The client's numbers are running out.
    MoreIds,
    /// The link hears no more. This is the last that it sends.
    Ended(LinkEnd),
}

/// Ops that follow each other, as they came in one frame.
pub(crate) struct SentOps {
    /// The seq of the first.
    pub(crate) first: Seq,
    pub(crate) ops: Vec<Op>,
    /// The data of those that are writes, one after the other.
    pub(crate) payload: Bytes,
    /// The frame's share of the memory for frames, held until the ops are applied.
    pub(crate) held: OwnedSemaphorePermit,
}

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// The client logged out.
    LoggedOut,
    /// The bytes that came were no frame, or no message.
    Protocol(String),
    /// The client can't be heard any more.
    Lost(Loss),
}

/// How a link was lost. The session need not end for it.
#[derive(Clone, Debug)]
pub(crate) enum Loss {
    /// The client closed the connection.
    Closed,
    /// The connection failed.
    Broken(String),
    /// Nothing came for too long. The client may still receive messages.
    Silent,
}

/// What a link is to do.
#[derive(Clone)]
enum LinkOrder {
    /// Go on.
    Serve,
    /// Write all that waits, then these, and end.
    Farewell(Vec<ToClient>),
    /// End at once.
    Close,
}

/// The link's side: all that it has of the session.
pub(crate) struct Lent {
    pub(crate) session: Arc<Session>,
    pub(crate) queues: Queues,
    pub(crate) upward: mpsc::Sender<FromLink>,
    pub(crate) orders: LinkOrders,
    pub(crate) back: oneshot::Sender<Queues>,
}

/// The orders to a link, for those of its parts that wait for them.
#[derive(Clone)]
pub(crate) struct LinkOrders(watch::Receiver<LinkOrder>);

/// The session's side.
pub(crate) struct Loan {
    heard: mpsc::Receiver<FromLink>,
    orders: watch::Sender<LinkOrder>,
    back: oneshot::Receiver<Queues>,
}

/// Lends the queues of a session to a link.
pub(crate) fn lend(session: Arc<Session>, queues: Queues) -> (Lent, Loan) {
    let (upward, heard) = mpsc::channel(HEARD_MAX);
    let (orders, orders_end) = watch::channel(LinkOrder::Serve);
    let (back, back_end) = oneshot::channel();
    let orders_end = LinkOrders(orders_end);
    let lent = Lent { session, queues, upward, orders: orders_end, back };
    (lent, Loan { heard, orders, back: back_end })
}

impl LinkOrders {
    /// Completes when the link is to say its last words, with these.
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

    /// Completes when the link is to end at once: it is told to, or its session's task failed.
    pub(crate) async fn close(&mut self) {
        // Both are reasons to end, so they need not be told apart.
        let _ = self.0.wait_for(|order| matches!(order, LinkOrder::Close)).await;
    }
}

impl Loan {
    /// The next message from the link. A link whose task failed counts as broken.
    pub(crate) async fn hear(&mut self) -> FromLink {
        let failed = || FromLink::Ended(LinkEnd::Lost(Loss::Broken("its task failed".to_owned())));
        self.heard.recv().await.unwrap_or_else(failed)
    }

    /// Ends the link and gives back the queues, unless the link's task failed. The link first writes all
    /// that waits, then these words, within `patience`; without words it ends at once.
    pub(crate) async fn call_in(
        mut self,
        words: Vec<ToClient>,
        patience: Duration,
    ) -> Option<Queues> {
        // The link stops reading when it can send nothing up.
        self.heard.close();
        if !words.is_empty() {
            self.orders.send_replace(LinkOrder::Farewell(words));
            if let Ok(back) = timeout(patience, &mut self.back).await {
                return back.ok();
            }
        }
        // A link that is closed waits for nothing, so this needs no deadline.
        self.orders.send_replace(LinkOrder::Close);
        self.back.await.ok()
    }
}
