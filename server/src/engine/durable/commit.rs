//! The committer: makes the batches of all waiting sessions durable in one transaction.
//!
//! **Invariant:** contents are durable before the rows that refer to them are written.
//!
//! **Invariant:** a failed commit is never retried. After a failed sync, the operating system may
//! report success the next time, although the data is lost.
//!
//! **Invariant:** each batch has a separate verdict: a content or row that fails ends only the
//! session that it belongs to. A failure that belongs to no session (the end of the transaction, a
//! store that is gone) ends all of them.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;
use xfer_protocol::{DeliveryId, Name};
use xfer_store::{Batch, Committed, StoreError};

use crate::engine::deliveries::exchange::{Exchange, sent};
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::counters::{Commits, add};
use crate::engine::stores::Stores;
use crate::engine::tree::Work;

/// The most batches in a transaction.
const GROUP_MAX: usize = 64;

/// The most batches that may wait for a transaction.
pub(crate) const WAITING_MAX: usize = 256;

/// The outcome of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is durable.
    Durable {
        /// Whether the disk has so little room that the space that the batch frees must be
        /// reclaimed before the acknowledgement.
        scarce: bool,
    },
    /// A later session owns the tree.
    Fenced,
    /// The disk is full. The batch is not durable.
    Full,
    /// The storage failed. Whether the batch is durable is not known.
    Failed(Trouble),
}

/// A batch that waits to be committed.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Verdict>,
}

/// The committer, with the parts of the engine that it uses.
pub(crate) struct Committer {
    pub(crate) stores: Stores,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) commits: Arc<Commits>,
}

impl From<StoreError> for Verdict {
    fn from(error: StoreError) -> Verdict {
        match error {
            StoreError::Full => Verdict::Full,
            error => Verdict::Failed(Trouble::from(&error)),
        }
    }
}

/// The deliveries that a batch sends, with their recipients.
type Sent = Vec<(DeliveryId, Name)>;

impl Committer {
    /// Commits jobs in groups, until all senders are gone.
    pub(crate) async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::new();
        while jobs.recv_many(&mut group, GROUP_MAX).await > 0 {
            let (works, replies): (Vec<Work>, Vec<_>) =
                group.drain(..).map(|job| (job.work, job.reply)).unzip();
            let verdicts = self.commit(works).await;
            for (reply, verdict) in replies.into_iter().zip(verdicts) {
                // A session that is gone does not need to know.
                let _ = reply.send(verdict);
            }
        }
    }

    #[tracing::instrument(level = "trace", skip_all, fields(sessions = works.len()))]
    async fn commit(&self, works: Vec<Work>) -> Vec<Verdict> {
        let count = works.len();
        self.try_commit(works).await.unwrap_or_else(|error| {
            tracing::error!(%error, sessions = count, "a commit failed");
            vec![Verdict::from(error); count]
        })
    }

    async fn try_commit(&self, works: Vec<Work>) -> Result<Vec<Verdict>, StoreError> {
        let (mut batches, sets): (Vec<Batch>, Vec<_>) =
            works.into_iter().map(|work| (work.batch, work.contents)).unzip();
        let span = tracing::trace_span!("contents");
        let start = Instant::now();
        let synced = self.stores.store.contents.make_durable(sets).instrument(span).await?;
        let mut ready = Vec::with_capacity(batches.len());
        let mut synced = synced.into_iter();
        // A batch without an answer from the store does not count as durable.
        let silent = || Verdict::Failed(Trouble::of_server("the store said nothing of it"));
        let mut prepare = |mut batch: Batch| match synced.next() {
            Some(Ok(placements)) => {
                batch.placements = placements;
                let sent = sent(&batch);
                ready.push(batch);
                Ok(sent)
            }
            Some(Err(error)) => Err(Verdict::from(error)),
            None => Err(silent()),
        };
        let prepared: Vec<Result<Sent, Verdict>> = batches.drain(..).map(&mut prepare).collect();
        let (span, count) = (tracing::trace_span!("rows"), ready.len() as u64);
        let committed = self.stores.store.trees.commit(ready).instrument(span).await?;
        self.commits.transaction.note(start.elapsed());
        add(&self.commits.batches, count);
        let scarce = self.reclaim_if_scarce().await;
        let mut committed = committed.into_iter();
        let verdict = |prepared| match prepared {
            Ok(sent) => match committed.next() {
                Some(committed) => self.verdict(sent, committed, scarce),
                None => silent(),
            },
            Err(verdict) => verdict,
        };
        Ok(prepared.into_iter().map(verdict).collect())
    }

    fn verdict(
        &self,
        sent: Sent,
        committed: Result<Committed, StoreError>,
        scarce: bool,
    ) -> Verdict {
        match committed {
            Ok(Committed::Durable(decided)) => {
                self.exchange.announce(&sent, &decided);
                self.exchange.tell(decided);
                Verdict::Durable { scarce }
            }
            Ok(Committed::Fenced) => Verdict::Fenced,
            Err(error) => Verdict::from(error),
        }
    }

    /// Reclaims garbage if the disk has little room, and returns whether that is so. A client that
    /// removes files to make room then learns of the room that it made.
    async fn reclaim_if_scarce(&self) -> bool {
        let scarce = self.stores.space.is_scarce().await;
        if scarce && let Err(error) = self.stores.store.contents.reclaim().await {
            tracing::warn!(%error, "garbage stays for now");
        }
        scarce
    }
}
