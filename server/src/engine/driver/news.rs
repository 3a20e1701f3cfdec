//! Turning news into messages to the client.

use std::sync::Arc;

use tokio::sync::mpsc;
use xfer_protocol::message::ToClient;
use xfer_store::Deliveries;

use crate::engine::session::Session;
use crate::engine::session::queues::News;

/// How many pieces of news are taken from the queue at a time.
const NEWS_COUNT: usize = 1024;

/// How many deliveries to announce are looked up at a time.
const ARRIVALS_COUNT: usize = 1024;

/// Turns news into messages. Deliveries are looked up in the order of their arrival, starting after
/// the last one that the client was told of. So each is announced exactly once, even if many arrive
/// at the same time.
pub(crate) async fn tell_news(
    deliveries: Arc<dyn Deliveries>,
    session: Arc<Session>,
    mut last_told: u64,
    mut news: mpsc::Receiver<News>,
) {
    let mut some = Vec::new();
    while news.recv_many(&mut some, NEWS_COUNT).await > 0 {
        let mut arrived = some.contains(&News::Arrived);
        while arrived {
            let look = deliveries.waiting(session.account(), last_told, ARRIVALS_COUNT);
            let waiting = look.await.unwrap_or_else(|error| {
                tracing::error!(user = %session.user(), %error, "an inbox cannot be read");
                Vec::new()
            });
            arrived = waiting.len() == ARRIVALS_COUNT;
            for (arrival, head) in waiting {
                last_told = arrival;
                session.outbound.tell_news(ToClient::Arrived(head)).await;
            }
        }
        for one in some.drain(..) {
            match one {
                News::Arrived => {}
                News::Settled(delivery, state) => {
                    session.outbound.tell_news(ToClient::Settled { delivery, state }).await;
                }
            }
        }
    }
}
