//! The queues to a session's client. They belong to the session. A link borrows their reading ends
//! while it lives, and gives them back with all messages that it did not write.
//!
//! A message that was written may not have arrived, because the link may have broken just then.
//! Most messages need not be kept for that case: they state a present fact, and can be made again
//! for another link:
//!
//! | message | made anew from |
//! |---|---|
//! | `Durable`, `Room` | the position in the log, the tree's share of the disk |
//! | `Ids` | the numbers that the tree was granted and has not used |
//! | `Users`, `Quota` | the accounts |
//! | `Drain` | the order that the session is under |
//! | `Pong` | nothing: it answers a link, not a client |
//!
//! The others report events, so a client that returns over another link may have missed them:
//!
//! - `Arrived`: each delivery is announced once, in the order of arrivals; the announcing task
//!   (`driver/news.rs`) keeps the last one announced. Deliveries wait in the store until they are
//!   accepted, so they can be announced again from an earlier point.
//! - `Settled`: sent once, when it happens. The store knows the state of each delivery, but not
//!   which states a client was told.
//! - `Diverged`, `Ended`: the last words. After them the session is gone, together with the reason.

use tokio::sync::mpsc;
use xfer_protocol::DeliveryId;
use xfer_protocol::message::{DeliveryState, ToClient};

/// The most messages that may wait for a client to read them.
const OUTGOING_MAX: usize = 1024;

/// The most pieces of news that may wait for a client.
const NEWS_MAX: usize = 1 << 16;

/// The most messages made from news that may wait.
const TOLD_NEWS_MAX: usize = 16;

/// News from other users' sessions. Much of it may come at once, so it waits apart from the
/// session's own messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// A delivery to this user arrived.
    Arrived,
    /// A delivery from this user was accepted, declined or refused.
    Settled(DeliveryId, DeliveryState),
}

/// The reading ends, for a link.
pub(crate) struct Queues {
    /// Messages, in order.
    pub(crate) outgoing: mpsc::Receiver<ToClient>,
    /// Messages made from news. They have a separate queue, so that other users can't fill the one
    /// whose overflow ends this session.
    pub(crate) told_news: mpsc::Receiver<ToClient>,
}

/// The writing ends.
pub(crate) struct Outbound {
    outgoing: mpsc::Sender<ToClient>,
    told_news: mpsc::Sender<ToClient>,
    news: mpsc::Sender<News>,
}

/// The queue is full.
pub(crate) struct Full;

/// Makes empty queues, and the end from which news is turned into messages.
pub(crate) fn queues() -> (Outbound, Queues, mpsc::Receiver<News>) {
    let (outgoing, outgoing_end) = mpsc::channel(OUTGOING_MAX);
    let (told_news, told_news_end) = mpsc::channel(TOLD_NEWS_MAX);
    let (news, news_end) = mpsc::channel(NEWS_MAX);
    let queues = Queues { outgoing: outgoing_end, told_news: told_news_end };
    (Outbound { outgoing, told_news, news }, queues, news_end)
}

impl Outbound {
    /// Queues a message to the client.
    pub(crate) fn tell(&self, message: ToClient) -> Result<(), Full> {
        self.outgoing.try_send(message).map_err(|_| Full)
    }

    /// Queues a message made from news, as soon as there is room for it.
    pub(crate) async fn tell_news(&self, message: ToClient) {
        // This fails only if the session is over.
        let _ = self.told_news.send(message).await;
    }

    /// Queues news to be turned into a message.
    pub(crate) fn pass_on(&self, news: News) -> Result<(), Full> {
        self.news.try_send(news).map_err(|_| Full)
    }
}
