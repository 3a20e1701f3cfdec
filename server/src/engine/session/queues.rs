//! The queues to a session's client. They belong to the session. A link borrows their reading ends
//! while it lives.
//!
//! A message that was written may not have arrived, because the link may have broken just then. None
//! needs to be kept for that case. Most state a present fact, which the grant over the next link
//! states anew. News of deliveries is found again in the store: those that wait are in the grant, and
//! a client asks for the states of those that it has sent.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
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
    /// Queues a message to the client. If its link has ended, the driver will hear of that, and
    /// nobody of the message.
    pub(crate) fn tell(&self, message: ToClient) -> Result<(), Full> {
        match self.outgoing.try_send(message) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Full),
        }
    }

    /// Queues a message made from news, as soon as there is room for it.
    pub(crate) async fn tell_news(&self, message: ToClient) {
        // This fails only if the session is over.
        let _ = self.told_news.send(message).await;
    }

    /// Queues news to be turned into a message.
    pub(crate) fn pass_on(&self, news: News) -> Result<(), Full> {
        match self.news.try_send(news) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_after_the_links_end_is_not_one_that_the_client_leaves_unread() {
        let (outbound, Queues { outgoing, told_news }, _news) = queues();
        for _ in 0..OUTGOING_MAX {
            assert!(outbound.tell(ToClient::Pong).is_ok());
        }
        assert!(outbound.tell(ToClient::Pong).is_err());
        drop((outgoing, told_news));
        assert!(outbound.tell(ToClient::Pong).is_ok());
    }
}
