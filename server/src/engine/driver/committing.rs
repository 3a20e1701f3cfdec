//! The commits of one session: when one is due, and what is in one.
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

/// How long applied ops wait for a commit at most.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How far commits are.
pub(crate) struct Committing {
    session: Arc<Session>,
    stores: Stores,
    committer: mpsc::Sender<Job>,
    /// The last op that is durable.
    durable: Seq,
    /// The batch that is being committed, by its last op.
    in_flight: Option<(Seq, oneshot::Receiver<Verdict>)>,
    /// The last op that some program waits for.
    barrier: Seq,
    /// So much waits for the next batch that no more is taken in until that is on its way.
    large: bool,
    /// When the oldest op that is in no batch yet has waited long enough.
    due: Option<Instant>,
}

/// What is to be done next.
pub(crate) enum Step {
    /// Start a commit.
    Start,
    /// Take note of the verdict on the batch that ends with this op.
    Conclude(Seq, Verdict),
}

/// A batch that is durable.
pub(crate) struct Done {
    /// Whether the disk has so little room that what the batch frees is to be given back first.
    pub(crate) scarce: bool,
}

impl Committing {
    /// All that is applied now is durable.
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

    /// Whether no more may be taken in for now.
    pub(crate) fn is_full(&self) -> bool {
        self.large
    }

    /// Whether a batch is in a commit.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether all that was applied is durable.
    pub(crate) fn is_done(&self) -> bool {
        self.session.position.applied() <= self.durable
    }

    /// Notes that ops were applied, and whether so much waits now that it should be committed at once.
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

    /// Waits until something is to be done.
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

    /// Hands what was applied to the committer.
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

    /// Takes note of the verdict on the batch that ends with this op.
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
            Verdict::Failed(trouble) => Err(Over::Failed(trouble)),
        }
    }

    /// Gives back what a commit made unreachable; says whether there was anything.
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

    /// Makes the next commit due at once, if a program waits for an op that is in none yet.
    pub(crate) fn hasten(&mut self) {
        let taken = self.in_flight.as_ref().map_or(self.durable, |(seq, _)| *seq);
        if self.barrier > taken && self.session.position.applied() > taken {
            self.due = Some(Instant::now());
        }
    }
}

/// Waits for a moment; for ever, if there is none.
pub(crate) async fn when(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
