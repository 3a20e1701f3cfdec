//! The queues to a session's client. They are the session's; a link has their reading ends for as
//! long as it lives, and gives them back with all that it did not write.
//!
//! A message that was written may not have arrived: the link may have broken just then. Most messages
//! need not be remembered for that, since they state what is, and can be made anew for another link:
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
//!   accepted, so they can be announced again from an earlier one on.
//! - `Settled`: sent once, when it happens. The store has the state of each delivery, but does not know
//!   which states a client was told.
//! - `Diverged`, `Ended`: the last words. The session is gone after them, and with it the reason.

use tokio::sync::mpsc;
use xfer_protocol::DeliveryId;
use xfer_protocol::message::{DeliveryState, ToClient};

/// How many messages may wait for a client to read them.
const OUTGOING_MAX: usize = 1024;

/// How much news may wait for a client.
const NEWS_MAX: usize = 1 << 16;

/// How many messages made of news wait beside the session's own.
const TOLD_NEWS_MAX: usize = 16;

/// News from other users' sessions. There may be much of it at once, so it waits apart from the
/// session's own messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// Something was sent to this user.
    Arrived,
    /// Something that this user sent was accepted, declined or refused.
    Settled(DeliveryId, DeliveryState),
}

/// The reading ends, for a link.
pub(crate) struct Queues {
    /// Messages, in order.
    pub(crate) outgoing: mpsc::Receiver<ToClient>,
    /// Messages made of news. They have a separate queue, so that other users' doings never make
    /// this client one that lets too much wait.
    pub(crate) told_news: mpsc::Receiver<ToClient>,
}

/// The writing ends.
pub(crate) struct Outbound {
    outgoing: mpsc::Sender<ToClient>,
    told_news: mpsc::Sender<ToClient>,
    news: mpsc::Sender<News>,
}

/// More waits than may.
pub(crate) struct Full;

/// Queues with nothing in them, and the news that messages are to be made of.
pub(crate) fn queues() -> (Outbound, Queues, mpsc::Receiver<News>) {
    let (outgoing, outgoing_end) = mpsc::channel(OUTGOING_MAX);
    let (told_news, told_news_end) = mpsc::channel(TOLD_NEWS_MAX);
    let (news, news_end) = mpsc::channel(NEWS_MAX);
    let queues = Queues { outgoing: outgoing_end, told_news: told_news_end };
    (Outbound { outgoing, told_news, news }, queues, news_end)
}

impl Outbound {
    /// Says something to the client.
    pub(crate) fn tell(&self, message: ToClient) -> Result<(), Full> {
        self.outgoing.try_send(message).map_err(|_| Full)
    }

    /// Tells the client news, as soon as there is room for it.
    pub(crate) async fn tell_news(&self, message: ToClient) {
        // This fails only when the session is over.
        let _ = self.told_news.send(message).await;
    }

    /// Passes on news that a message is to be made of.
    pub(crate) fn pass_on(&self, news: News) -> Result<(), Full> {
        self.news.try_send(news).map_err(|_| Full)
    }
}
