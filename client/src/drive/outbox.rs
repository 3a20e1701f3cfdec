//! Tending the outbox: making mailboxes for the users that can be sent to, and sending drafts that
//! could not be sent when they were closed.
//!
//! The core decides which drafts are due. Here they are tried, and the next try is timed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xfer_protocol::{Errno, Ino, Name};

use super::Client;
use crate::core::{Core, OutboxDue as Due};

/// The pauses before refused drafts are tried again: the first and the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The next time to try refused drafts. The pauses grow as long as all of them are refused.
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

    /// Has drafts tried soon, since one was refused or there may be room.
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

/// The drafts that are left after all that were due have been tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// None.
    Nothing,
    /// Some of them. For others there was room.
    Some,
    /// All of them.
    All,
}

impl Client {
    /// Makes the mailboxes that are missing, so that a mount has them from its first moment on.
    ///
    /// # Errors
    /// If the server does not answer, or there is no room for them.
    pub async fn make_mailboxes(self: &Arc<Self>) -> Result<(), Errno> {
        let owner = self.owner();
        self.tend(move |core: &mut Core| core.make_mailboxes(owner)).await
    }

    /// Makes mailboxes whenever there are new users that can be sent to. Sends drafts that could
    /// not be sent before, by this session or an earlier one.
    pub(super) async fn tend_outbox(self: Arc<Self>) {
        let mut progress = self.progress.subscribe();
        let (mut made, mut found, mut retry) = (None, None, Retry::new());
        let mut rested: Option<Instant> = None;
        loop {
            let Some(due) = self.lock().take_outbox_due() else { return };
            let Due { users, tenure, resend, .. } = due;
            if let Some(rest) = due.rested {
                let at = Instant::now() + rest;
                rested = Some(rested.map_or(at, |rested| rested.min(at)));
            }
            if !self.lock().has_seat() {
                if progress.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if found.is_some_and(|found| found != tenure) {
                (found, retry) = (None, Retry::new());
            }
            if made != Some(users) && self.make_mailboxes().await.is_ok() {
                made = Some(users);
            }
            if resend {
                retry.hasten();
            }
            if rested.is_some_and(|at| at <= Instant::now()) {
                rested = None;
                self.send_rested().await;
                // The others at rest have said until when by now.
                continue;
            }
            if retry.is_due() {
                if found.is_none() && self.tend(Core::find_drafts).await.is_ok() {
                    found = Some(tenure);
                }
                let left = if found.is_some() { self.send_unsent().await } else { Left::All };
                retry.note(left);
                if left != Left::Nothing {
                    // A draft that this very try refused is no reason to try again sooner.
                    self.lock().forget_resend();
                }
            }
            let next = retry.at.into_iter().chain(rested).min();
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)),
                    if next.is_some() => {}
            }
        }
    }

    /// Sends all complete drafts for which there is room.
    pub(super) async fn send_unsent(self: &Arc<Self>) -> Left {
        let due = self.lock().unsent();
        self.send_all(due).await
    }

    /// Sends the drafts that have rested for long enough. Those that are refused are tried again with
    /// the others.
    async fn send_rested(self: &Arc<Self>) {
        let rested = self.lock().rested();
        self.send_all(rested).await;
    }

    /// Sends drafts, the smallest to each user first. Once one to a user is refused, so are that user's
    /// larger ones, without asking the server.
    async fn send_all(self: &Arc<Self>, due: Vec<(Name, Ino)>) -> Left {
        let (mut full, mut sent) = (BTreeMap::new(), false);
        for (to, ino) in due {
            let refused = match full.get(&to) {
                Some(errno) => Some(*errno),
                None => self.tend(move |core: &mut Core| core.send_again(ino)).await.err(),
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
