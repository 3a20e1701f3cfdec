//! The sleep of this machine. Before it, everything that can be is made durable, the link is given up,
//! and no operation waits for it any more; after it, the server is dialled at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use xfer_protocol::size;

use crate::drive::Client;

/// How long operations that wait may take to fail.
const ANSWERED_MAX: Duration = Duration::from_millis(500);

impl Client {
    /// Prepares for sleep, in this time and [`ANSWERED_MAX`]. From then on operations that need the
    /// server fail with `ETIMEDOUT`, until [`Client::wake_up`]; those that wait by then have failed with
    /// it when this ends, unless that takes longer.
    pub async fn fall_asleep(self: &Arc<Self>, durable_max: Duration) {
        let _ = timeout(durable_max, self.sync()).await;
        self.is_asleep.send_replace(true);
        if timeout(ANSWERED_MAX, self.until_none_waits()).await.is_err() {
            tracing::warn!("operations still wait, though this machine is about to sleep");
        }
        match self.lock().pending() {
            (0, _) => tracing::info!("this machine is about to sleep; everything is durable"),
            (ops, bytes) => tracing::warn!(
                "this machine is about to sleep; to be sent when it wakes up: {}",
                size::changes(ops, bytes)
            ),
        }
    }

    /// Goes on after sleep.
    pub fn wake_up(&self) {
        self.is_asleep.send_replace(false);
    }

    /// Completes when this machine is about to sleep.
    pub(in crate::drive) async fn asleep(&self) {
        // The sender is part of `self`, so this can't fail.
        let _ = self.is_asleep.subscribe().wait_for(|is_asleep| *is_asleep).await;
    }

    /// Completes when this machine is awake.
    pub(in crate::drive) async fn awake(&self) {
        let _ = self.is_asleep.subscribe().wait_for(|is_asleep| !*is_asleep).await;
    }
}
