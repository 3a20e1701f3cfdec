//! Tending the outbox: mailboxes for those that can be sent to, and sending what could not be sent
//! when it was closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xfer_protocol::Errno;

use super::Client;
use crate::core::{Core, OutboxDue as Due};

/// How long to wait before trying again to send what was refused: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// When what was refused is tried again: at growing intervals, as long as all of it is refused.
struct Retry {
    at: Option<Instant>,
    pause: Duration,
}

impl Retry {
    fn new() -> Retry {
        Retry { at: Some(Instant::now()), pause: RETRY_MIN }
    }

    fn is_due(&self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    /// Something was refused, or there may be room.
    fn hasten(&mut self) {
        let soon = Instant::now() + RETRY_MIN;
        self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
    }

    fn note(&mut self, left: Left) {
        (self.at, self.pause) = match left {
            Left::Nothing => (None, RETRY_MIN),
            Left::Some => (Some(Instant::now() + RETRY_MIN), RETRY_MIN),
            Left::All => (Some(Instant::now() + self.pause), (2 * self.pause).min(RETRY_MAX)),
        };
    }
}

/// What is left of what was not sent, after it was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Some of it; for the rest there was room.
    Some,
    /// All of it.
    All,
}

impl Client {
    /// Makes the mailboxes that are missing now, so that a mount has them from its first moment on.
    ///
    /// # Errors
    /// If the server does not answer, or there is no room for them.
    pub async fn make_mailboxes(self: &Arc<Self>) -> Result<(), Errno> {
        let owner = self.owner();
        self.call(move |core: &mut Core| core.make_mailboxes(owner)).await
    }

    /// Makes mailboxes for those that can be sent to, whenever there are new ones, and sends what
    /// could not be sent before, by this session or an earlier one.
    pub(super) async fn tend_outbox(self: Arc<Self>) {
        let mut progress = self.progress.subscribe();
        let (mut made, mut found, mut retry) = (None, false, Retry::new());
        loop {
            let Some(Due { users, resend }) = self.lock().take_outbox_due() else { return };
            if made != Some(users) && self.make_mailboxes().await.is_ok() {
                made = Some(users);
            }
            if resend {
                retry.hasten();
            }
            if retry.is_due() {
                found = found || self.call(Core::find_drafts).await.is_ok();
                let left = if found { self.send_unsent().await } else { Left::All };
                retry.note(left);
                if left != Left::Nothing {
                    // What this very attempt refused is no news.
                    self.lock().forget_resend();
                }
            }
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(retry.at.unwrap_or_else(Instant::now)),
                    if retry.at.is_some() => {}
            }
        }
    }

    /// Sends what stands in mailboxes, is whole and was not sent, as far as there is room. Once
    /// something for a user is refused, so is what is larger.
    pub(super) async fn send_unsent(self: &Arc<Self>) -> Left {
        let due = self.lock().unsent();
        let (mut full, mut sent) = (BTreeMap::new(), false);
        for (to, ino) in due {
            let refused = match full.get(&to) {
                Some(errno) => Some(*errno),
                None => self.call(move |core: &mut Core| core.send_again(ino)).await.err(),
            };
            match refused {
                None => sent = true,
                Some(errno) => {
                    self.lock().refuse_room(ino, errno);
                    full.insert(to, errno);
                }
            }
        }
        match (full.is_empty(), sent) {
            (true, _) => Left::Nothing,
            (false, true) => Left::Some,
            (false, false) => Left::All,
        }
    }
}
