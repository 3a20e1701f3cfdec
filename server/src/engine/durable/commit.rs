//! The committer: makes batches durable, those of all sessions that wait in one transaction.
//!
//! **Invariant:** contents are durable before the rows that refer to them are written.
//!
//! **Invariant:** what failed is not tried again: a system that reported a failed sync once may
//! report success the next time although the data is lost.
//!
//! **Invariant:** each batch has a verdict of its own: a content or a row that fails ends the session
//! that it belongs to. Only what is nobody's (the transaction's end, a store that is gone) ends all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_blocking;
use xfer_protocol::tree::DeliveryEffect;
use xfer_protocol::{ContentId, DeliveryId};
use xfer_store::{Batch, Committed, StoreError};

use crate::engine::deliveries::post::{Post, contents};
use crate::engine::durable::garbage::{collect, remove_unreferenced};
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::counters::{Commits, add};
use crate::engine::stores::Stores;
use crate::engine::tree::Work;

/// How many batches share a transaction at most.
const GROUP_MAX: usize = 64;

/// How many batches may wait for theirs.
pub(crate) const WAITING_MAX: usize = 256;

/// What became of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is durable.
    Durable {
        /// Whether the disk has so little room that what this frees is to be given back first.
        scarce: bool,
    },
    /// A later session owns the tree.
    Fenced,
    /// The storage failed. Whether the batch is durable is not known.
    Failed(Trouble),
}

/// A batch that waits to be committed.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Verdict>,
}

/// All that commits need.
#[derive(Clone)]
pub(crate) struct Committer {
    pub(crate) stores: Stores,
    pub(crate) post: Arc<Post>,
    pub(crate) garbage: Arc<Notify>,
    pub(crate) commits: Arc<Commits>,
}

impl Committer {
    /// Commits what comes, for as long as there is somebody to send it.
    pub(crate) async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::new();
        while jobs.recv_many(&mut group, GROUP_MAX).await > 0 {
            let (works, replies): (Vec<Work>, Vec<_>) =
                group.drain(..).map(|job| (job.work, job.reply)).unzip();
            let committer = self.clone();
            let verdicts = spawn_blocking(move || committer.commit(works)).await;
            // After a panic the replies are dropped, which those who wait take for a failure.
            for (reply, verdict) in replies.into_iter().zip(verdicts.unwrap_or_default()) {
                // A session that is gone does not need to know.
                let _ = reply.send(verdict);
            }
            self.garbage.notify_one();
        }
    }

    #[tracing::instrument(level = "trace", skip_all, fields(sessions = works.len()))]
    fn commit(&self, works: Vec<Work>) -> Vec<Verdict> {
        let count = works.len();
        let verdicts = self.try_commit(works);
        self.post.release_used();
        verdicts.unwrap_or_else(|error| {
            tracing::error!(%error, sessions = count, "a commit failed");
            vec![Verdict::Failed(Trouble::from(&error)); count]
        })
    }

    fn try_commit(&self, works: Vec<Work>) -> Result<Vec<Verdict>, StoreError> {
        let failures = self.sync(&works)?;
        let mut batches = Vec::with_capacity(works.len());
        let mut prepared = Vec::with_capacity(works.len());
        for work in works {
            prepared.push(self.prepare(work, &failures).map(|batch| batches.push(batch)));
        }
        let commit = || self.post.commit(&batches, || self.stores.meta.commit_each(&batches));
        let committed = tracing::trace_span!("rows").in_scope(commit)?;
        add(&self.commits.transactions, 1);
        add(&self.commits.batches, batches.len() as u64);
        for (batch, committed) in batches.iter().zip(&committed) {
            let Ok(committed) = committed else { continue };
            self.follow_up(batch, *committed);
        }
        let scarce = self.is_scarce();
        let mut committed = committed.into_iter();
        let verdict = |prepared: Result<(), Trouble>| match prepared {
            Ok(()) => match committed.next() {
                Some(Ok(Committed::Durable)) => Verdict::Durable { scarce },
                Some(Ok(Committed::Fenced)) => Verdict::Fenced,
                Some(Err(error)) => Verdict::Failed(Trouble::from(&error)),
                None => Verdict::Failed(Trouble::of_server("the store said nothing of it")),
            },
            Err(why) => Verdict::Failed(why),
        };
        Ok(prepared.into_iter().map(verdict).collect())
    }

    /// Makes the contents of a group durable, and says for which of them that failed.
    fn sync(&self, works: &[Work]) -> Result<HashMap<ContentId, StoreError>, StoreError> {
        let mut touched: Vec<ContentId> =
            works.iter().flat_map(|work| work.contents.iter().copied()).collect();
        touched.sort_unstable();
        touched.dedup();
        tracing::trace_span!("contents", count = touched.len())
            .in_scope(|| self.stores.contents.make_each_durable(&touched))
    }

    /// A batch that is ready for its rows to be written, or why there is none.
    fn prepare(
        &self,
        work: Work,
        failures: &HashMap<ContentId, StoreError>,
    ) -> Result<Batch, Trouble> {
        if let Some(error) = work.contents.iter().find_map(|content| failures.get(content)) {
            return Err(Trouble::from(error));
        }
        let mut batch = work.batch;
        self.post.judge(&mut batch).map_err(|error| Trouble::from(&error))?;
        Ok(batch)
    }

    /// Whether the disk has little room. Then garbage goes first: a client that removes files to
    /// make room is to hear of the room, not of the want of it.
    fn is_scarce(&self) -> bool {
        let scarce = self.stores.space.is_scarce();
        if scarce && let Err(error) = collect(&self.stores) {
            tracing::warn!(%error, "garbage stays for now");
        }
        scarce
    }

    /// The batch is durable: what fails here is not its session's.
    fn follow_up(&self, batch: &Batch, committed: Committed) {
        let refused: HashSet<DeliveryId> = batch.refused.iter().copied().collect();
        for effect in &batch.deliveries {
            let left = match effect {
                // Its sender may have removed the files since, so that nothing has the contents.
                DeliveryEffect::Sent { delivery, .. } if refused.contains(&delivery.id) => {
                    remove_unreferenced(&self.stores, contents(delivery))
                }
                DeliveryEffect::Sent { .. }
                | DeliveryEffect::Accepted(_)
                | DeliveryEffect::Declined(_) => continue,
            };
            if let Err(error) = left {
                tracing::warn!(%error, "contents of a refused delivery stay for now");
            }
        }
        if let Err(error) = self.post.announce(batch, committed) {
            tracing::error!(%error, "nobody was told of a delivery");
        }
    }
}
