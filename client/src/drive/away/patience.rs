//! How long an operation waits while the link is down.

use tokio::time::{Instant, sleep_until};
use xfer_protocol::{Errno, Seq};

use crate::drive::Client;
use crate::drive::links::GOOD_LINK;

/// The patience of one operation. Time counts while the link is down, and while it comes and goes
/// without bringing anything about.
#[derive(Clone, Debug, Default)]
pub(in crate::drive) struct Patience {
    /// When it ends, if the link is down.
    end: Option<Instant>,
    /// What was so when the link came up.
    before: Option<Before>,
}

/// What was so when the link came up again.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// When the patience would have ended.
    end: Instant,
    up_since: Instant,
    durable: Seq,
}

impl Client {
    /// Completes when the link has been down for as long as the operation may wait, or this machine is
    /// about to sleep.
    pub(in crate::drive) async fn worn_out(&self, patience: &mut Patience) {
        let mut is_up = self.is_up.subscribe();
        loop {
            patience.note(self, is_up.get());
            let changed = is_up.changed();
            tokio::select! {
                biased;
                // The sender is part of `self`, so this can't fail.
                _ = changed => {}
                () = until(patience.end) => return,
                () = self.asleep() => return,
            }
        }
    }

    /// Like [`Client::worn_out`], but not as long as changes are being written to this machine's disk: an
    /// operation may wait for that, and not for the server.
    pub(in crate::drive) async fn worn_out_unless_kept(&self, patience: &mut Patience) {
        self.worn_out(patience).await;
        tokio::select! {
            biased;
            () = self.reached(|core| !core.is_keeping()) => {}
            () = self.asleep() => {}
        }
    }

    /// Waits until the link is up.
    ///
    /// `ETIMEDOUT` if it is down for longer than the operation may wait, `EIO` if the session is over.
    pub(in crate::drive) async fn wait_up(&self, patience: &mut Patience) -> Result<(), Errno> {
        let mut is_up = self.is_up.subscribe();
        patience.note(self, is_up.get());
        tokio::select! {
            biased;
            () = self.wait_over() => Err(Errno::EIO),
            _ = is_up.wait_for(|is_up| *is_up) => Ok(()),
            () = self.worn_out(patience) => Err(Errno::ETIMEDOUT),
        }
    }

    /// Completes when the link is down.
    pub(in crate::drive) async fn wait_down(&self) {
        // The sender is part of `self`, so this can't fail.
        let _ = self.is_up.subscribe().wait_for(|is_up| !*is_up).await;
    }
}

impl Patience {
    /// Whether the operation may still wait.
    pub(in crate::drive) fn lasts(&self) -> bool {
        self.end.is_none_or(|end| Instant::now() < end)
    }

    /// Notes whether the link is up.
    fn note(&mut self, client: &Client, is_up: bool) {
        match (is_up, self.end) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(end)) => {
                let durable = client.lock().durable();
                self.before = Some(Before { end, up_since: Instant::now(), durable });
                self.end = None;
            }
            (false, None) => {
                let fruitless = self.before.take().filter(|before| before.was_fruitless(client));
                let whole =
                    || client.options.wait.and_then(|wait| Instant::now().checked_add(wait));
                self.end = fruitless.map(|before| before.end).or_else(whole);
            }
        }
    }
}

impl Before {
    /// Whether the link that has come up since has gone soon, and nothing has become durable by it.
    fn was_fruitless(&self, client: &Client) -> bool {
        self.up_since.elapsed() < GOOD_LINK && client.lock().durable() == self.durable
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
