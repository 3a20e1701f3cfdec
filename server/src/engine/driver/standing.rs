//! Whether a session has a link, and how long it stands without one.

use tokio::time::{Instant, sleep_until};

use crate::engine::session::lending::Loss;

/// The link of a session.
pub(crate) enum Link {
    /// The session has a link.
    Up,
    /// The session has lost its link.
    Down { since: Instant, loss: Loss },
}

impl Link {
    /// Notes that the link was lost.
    pub(crate) fn lose(&mut self, loss: Loss) {
        *self = Link::Down { since: Instant::now(), loss };
    }

    pub(crate) fn is_up(&self) -> bool {
        match self {
            Link::Up => true,
            Link::Down { .. } => false,
        }
    }

    /// Completes when a session without a link is given up, which is at once. This is the only
    /// place that decides it; a time for the client to come back would be added to `since` here. A
    /// session without a link applies no ops, but it commits, obeys orders and queues messages.
    pub(crate) async fn given_up(&self) -> Loss {
        match self {
            Link::Up => std::future::pending().await,
            Link::Down { since, loss } => {
                sleep_until(*since).await;
                loss.clone()
            }
        }
    }
}
