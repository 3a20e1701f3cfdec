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
use crate::engine::session::counters::{Commits, add};
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
    /// The batch that is being committed.
    in_flight: Option<InFlight>,
    /// The last op that a program waits for.
    barrier: Seq,
    /// The next batch is so large that no more ops are applied until it is handed over.
    large: bool,
    /// The time at which the oldest op without a batch has waited long enough.
    due: Option<Instant>,
    /// Since when a batch is due that is not taken yet.
    due_since: Option<Instant>,
    commits: Arc<Commits>,
}

/// A batch in a commit.
struct InFlight {
    /// The seq of its last op.
    seq: Seq,
    verdict: oneshot::Receiver<Verdict>,
    /// Since when it is due.
    due_since: Instant,
}

/// The next step of a session's commits.
pub(crate) enum Step {
    /// Start a commit.
    Start,
    /// Handle the verdict on a batch.
    Conclude(Judged),
}

/// A batch with its verdict.
pub(crate) struct Judged {
    /// The seq of its last op.
    pub(crate) seq: Seq,
    verdict: Verdict,
    /// Since when it was due.
    due_since: Instant,
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
        (committer, commits): (mpsc::Sender<Job>, Arc<Commits>),
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
            due_since: None,
            commits,
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
            self.make_due();
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
        let Some(InFlight { seq, verdict, due_since }) = &mut self.in_flight else {
            when(self.due).await;
            return Step::Start;
        };
        let (seq, due_since, verdict) = (*seq, *due_since, verdict.await);
        self.in_flight = None;
        let failed = |_| Verdict::Failed(Trouble::of_server("the committer failed"));
        Step::Conclude(Judged { seq, verdict: verdict.unwrap_or_else(failed), due_since })
    }

    /// Hands the applied ops to the committer.
    pub(crate) async fn start(&mut self) -> Result<(), Over> {
        let due_since = self.due_since.take().or(self.due.take());
        self.due = None;
        self.large = false;
        let now = self.stores.now();
        let taken = self.session.tree.with(|tree| tree.take_batch(now));
        let Some(work) = taken.map_err(no_tree)? else { return Ok(()) };
        let (reply, verdict) = oneshot::channel();
        let seq = work.batch.applied;
        let sent = self.committer.send(Job { work, reply }).await;
        sent.map_err(|_| Over::Failed(Trouble::of_server("the committer is gone")))?;
        // The last commit of a session is made before it is due.
        let due_since = due_since.map_or_else(Instant::now, |since| since.min(Instant::now()));
        self.in_flight = Some(InFlight { seq, verdict, due_since });
        Ok(())
    }

    /// Handles the verdict on a batch.
    pub(crate) async fn conclude(&mut self, judged: Judged) -> Result<Done, Over> {
        let Judged { seq, verdict, due_since } = judged;
        match verdict {
            Verdict::Durable { scarce } => {
                self.durable = seq;
                self.session.position.set_durable(seq);
                add(&self.session.counters().commits, 1);
                self.commits.batch.note(due_since.elapsed());
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
        let taken = self.in_flight.as_ref().map_or(self.durable, |in_flight| in_flight.seq);
        if self.barrier > taken && self.session.position.applied() > taken {
            self.make_due();
        }
    }

    fn make_due(&mut self) {
        let now = Instant::now();
        self.due = Some(now);
        self.due_since.get_or_insert(now);
    }
}

/// Waits until a moment, or for ever if there is none.
pub(crate) async fn when(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
