//! The commits of one session: when one is due, and how its verdict is handled.
//!
//! **Invariant:** at most one batch of a session is in a commit at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use xfer_protocol::Seq;

use crate::engine::driver::over::{Over, no_tree};
use crate::engine::durable::commit::{Job, Verdict};
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::Session;
use crate::engine::session::counters::add;
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;
use crate::engine::tree::holding::{self, Unmade};

/// The longest time that applied ops wait for a commit.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The state of a session's commits.
pub(crate) struct Committing {
    session: Arc<Session>,
    stores: Stores,
    committer: mpsc::Sender<Job>,
    /// The last op that is durable.
    durable: Seq,
    /// The seq of the last op in the batch that is being committed, and the verdict to come.
    in_flight: Option<(Seq, oneshot::Receiver<Verdict>)>,
    /// The last op that a program waits for.
    barrier: Seq,
    /// The next batch is so large that no more ops are applied until it is handed over.
    large: bool,
    /// The time at which the oldest op without a batch has waited long enough.
    due: Option<Instant>,
}

/// The next step of a session's commits.
pub(crate) enum Step {
    /// Start a commit.
    Start,
    /// Handle the verdict on the batch that ends with this op.
    Conclude(Seq, Verdict),
}

/// A batch that is durable.
pub(crate) struct Done {
    /// Whether the disk has so little room that the space that the batch frees must be reclaimed
    /// before the acknowledgement.
    pub(crate) scarce: bool,
}

impl Committing {
    /// At the beginning of a session all applied ops are durable.
    pub(crate) fn new(
        session: Arc<Session>,
        stores: Stores,
        committer: mpsc::Sender<Job>,
    ) -> Committing {
        let durable = session.position.applied();
        let (in_flight, barrier) = (None, durable);
        Committing {
            session,
            stores,
            committer,
            durable,
            in_flight,
            barrier,
            large: false,
            due: None,
        }
    }

    /// The last op that is durable.
    pub(crate) fn durable(&self) -> Seq {
        self.durable
    }

    /// Whether no more ops may be applied for now.
    pub(crate) fn is_full(&self) -> bool {
        self.large
    }

    /// Whether a batch is in a commit.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether all applied ops are durable.
    pub(crate) fn is_done(&self) -> bool {
        self.session.position.applied() <= self.durable
    }

    /// Notes that ops were applied, and whether the batch is now so large that it should be
    /// committed at once.
    pub(crate) fn note_applied(&mut self, large: bool) {
        self.due.get_or_insert_with(|| Instant::now() + COMMIT_INTERVAL);
        self.large = large;
        if large {
            self.due = Some(Instant::now());
        }
        self.hasten();
    }

    /// Notes that a program waits for an op.
    pub(crate) fn note_barrier(&mut self, upto: Seq) {
        self.barrier = self.barrier.max(upto);
        self.hasten();
    }

    /// Waits for the next step.
    pub(crate) async fn next(&mut self) -> Step {
        let Some((seq, verdict)) = &mut self.in_flight else {
            when(self.due).await;
            return Step::Start;
        };
        let (seq, verdict) = (*seq, verdict.await);
        self.in_flight = None;
        let failed = || Verdict::Failed(Trouble::of_server("the committer failed"));
        Step::Conclude(seq, verdict.unwrap_or_else(|_| failed()))
    }

    /// Hands the applied ops to the committer.
    pub(crate) async fn start(&mut self) -> Result<(), Over> {
        self.due = None;
        self.large = false;
        let now = self.stores.now();
        let taken = self.session.tree.with(|tree| tree.take_batch(now));
        let Some(work) = taken.map_err(no_tree)? else { return Ok(()) };
        let (reply, verdict) = oneshot::channel();
        let seq = work.batch.applied;
        let sent = self.committer.send(Job { work, reply }).await;
        sent.map_err(|_| Over::Failed(Trouble::of_server("the committer is gone")))?;
        self.in_flight = Some((seq, verdict));
        Ok(())
    }

    /// Handles the verdict on the batch that ends with this op.
    pub(crate) async fn conclude(&mut self, seq: Seq, verdict: Verdict) -> Result<Done, Over> {
        match verdict {
            Verdict::Durable { scarce } => {
                self.durable = seq;
                self.session.position.set_durable(seq);
                add(&self.session.counters().commits, 1);
                Ok(Done { scarce })
            }
            Verdict::Fenced => {
                self.session.tree.with(|tree| tree.withdraw()).map_err(no_tree)?;
                Err(Over::Fenced)
            }
            Verdict::Full => {
                self.session.tree.with(|tree| tree.withdraw()).map_err(no_tree)?;
                Err(Over::Full)
            }
            Verdict::Failed(trouble) => Err(Over::Failed(trouble)),
        }
    }

    /// Reclaims the space that a commit made unreachable. Returns whether there was any.
    pub(crate) async fn give_back(&self, seq: Seq) -> Result<bool, Over> {
        let _turn = self.session.tree.turn().await.map_err(no_tree)?;
        match holding::reclaim(&self.stores.store, &self.session.tree, seq).await {
            Ok(any) => Ok(any),
            Err(Unmade::NoTree) => Err(no_tree(NoTree)),
            Err(Unmade::Storage(error)) => {
                tracing::warn!(user = %self.session.user(), %error, "space is not given back");
                Ok(false)
            }
        }
    }

    /// Makes the next commit due at once, if a program waits for an op that is in no batch yet.
    pub(crate) fn hasten(&mut self) {
        let taken = self.in_flight.as_ref().map_or(self.durable, |(seq, _)| *seq);
        if self.barrier > taken && self.session.position.applied() > taken {
            self.due = Some(Instant::now());
        }
    }
}

/// Waits until a moment, or for ever if there is none.
pub(crate) async fn when(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
