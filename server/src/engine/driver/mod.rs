//! A session's driver: the task that applies ops in order, has them committed, and obeys orders.
//!
//! The driver belongs to the session, not to its link. The link sends it the client's messages, and
//! writes the driver's answers from the session's queues. The driver lives until the session leaves
//! memory: it is over, or has lost its link.
//!
//! Reading order: `applying`, `committing`, `granting`, `news`; `over` (why a session leaves memory)
//! and `leaving`; `drivers` (all of them).
//!
//! **Invariant:** `Durable(seq)` is sent only after the commit that holds `seq`.

pub(crate) mod applying;
pub(crate) mod committing;
pub(crate) mod granting;
pub(crate) mod news;
pub(crate) mod over;
pub(crate) mod leaving;
pub(crate) mod drivers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use xfer_link::watch;
use xfer_protocol::message::ToClient;
use xfer_protocol::tree::Room;
use xfer_store::Fate;

use super::seats::registry::SeatGuard;
use super::session::Session;
use super::session::counters::{Commits, add};
use super::session::lending::{FromLink, LinkEnd, Loan, SentOps};
use super::session::orders::Order;
use super::stores::Stores;
use crate::engine::driver::applying::{Applied, Frame};
use crate::engine::durable::commit::Job;
use crate::engine::durable::trouble::Trouble;
use committing::{Committing, Done, Judged, Step, when};
use granting::Granting;
use leaving::leave;
use over::{Over, ordered};

/// How long a link may take to write the last words.
const FAREWELL: Duration = Duration::from_secs(10);

/// The parts of the engine that a driver uses.
pub(crate) struct Means {
    pub(crate) stores: Stores,
    pub(crate) committer: mpsc::Sender<Job>,
    pub(crate) commits: Arc<Commits>,
}

pub(crate) struct Driver {
    session: Arc<Session>,
    guard: SeatGuard,
    committing: Committing,
    granting: Granting,
    loan: Loan,
    stores: Stores,
    /// The task that turns news into messages. It ends with the driver.
    news: JoinSet<()>,
}

impl Driver {
    /// Makes the driver of a session whose queues are lent to a link.
    pub(crate) fn new(guard: SeatGuard, loan: Loan, news: JoinSet<()>, means: Means) -> Driver {
        let Means { stores, committer, commits } = means;
        let session = guard.session.clone();
        let committing = Committing::new(session.clone(), stores.clone(), (committer, commits));
        let granting = Granting::new(session.clone(), stores.clone());
        Driver { session, guard, committing, granting, loan, stores, news }
    }

    /// Serves the session until it leaves memory, and sends the last words.
    pub(crate) async fn run(mut self) {
        let over = self.serve().await.unless(self.session.seat.orders.for_good());
        let over = self.last_commit(over).await;
        let Driver { session, guard, loan, stores, news, .. } = self;
        drop(news);
        over.log(&session);
        let fate = match over.fate() {
            // Its client does not know of it, so nobody could ever take it up.
            Fate::Yielded if !session.seat.is_heard() => Fate::Over,
            fate => fate,
        };
        leave(&stores, &session, fate).await;
        // The seat is left before the last words, because a client that hears them may come again
        // at once.
        guard.leave(fate);
        loan.call_in(over.last_words(), FAREWELL).await;
    }

    async fn serve(&mut self) -> Over {
        let mut orders = self.session.seat.orders.subscribe();
        orders.mark_changed();
        loop {
            let served = tokio::select! {
                biased;
                order = next_order(&mut orders) => self.obey(order),
                step = self.committing.next() => self.commit(step).await,
                () = when(self.session.seat.orders.deadline()) => {
                    ordered(&self.session).map_or(Ok(()), Err)
                }
                heard = self.loan.hear(), if !self.committing.is_full() => {
                    self.handle_heard(heard).await
                }
            };
            if let Err(over) = served {
                return over;
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Over> {
        match order {
            Order::Run => {}
            Order::Drain { reason, deadline } => {
                let left = deadline.saturating_duration_since(Instant::now());
                let deadline_ms = left.as_millis() as u64;
                self.session.tell(ToClient::Drain { reason, deadline_ms });
            }
            Order::End { reason } => return Err(Over::Ordered(reason)),
        }
        Ok(())
    }

    async fn handle_heard(&mut self, heard: FromLink) -> Result<(), Over> {
        match heard {
            FromLink::Ops(sent) => self.handle_ops(sent).await,
            FromLink::Barrier(upto) => {
                add(&self.session.counters().barriers, 1);
                self.committing.note_barrier(upto);
                Ok(())
            }
            FromLink::Ping(limit) => {
                self.session.tell(ToClient::Pong);
                self.granting.take_back(limit).await?;
                self.tell_durable().await
            }
            FromLink::Room(wanted) => self.grant_room(wanted).await,
            FromLink::MoreIds => {
                let range = self.granting.more_ids().await?;
                self.session.tell(ToClient::Ids(range));
                Ok(())
            }
            FromLink::Ended(LinkEnd::LoggedOut) => Err(Over::LoggedOut),
            FromLink::Ended(LinkEnd::Yielded) => Err(Over::Yielded),
            FromLink::Ended(LinkEnd::Protocol(what)) => Err(Over::Protocol(what)),
            FromLink::Ended(LinkEnd::Lost(loss)) => Err(Over::LinkLost(loss)),
        }
    }

    async fn handle_ops(&mut self, sent: SentOps) -> Result<(), Over> {
        let SentOps { first, ops, payload, held } = sent;
        let mut frame = Frame::new(self.session.position.applied(), first, ops, payload)?;
        let large = loop {
            match frame.apply(&self.session, &self.stores).await? {
                Applied::All { large } => break large,
                Applied::UpToUnsettled => self.finish().await?,
            }
        };
        drop(held);
        self.committing.note_applied(large);
        Ok(())
    }

    /// Tells the client the last durable op and the room on the disk, which other sessions change
    /// too.
    async fn tell_durable(&self) -> Result<(), Over> {
        if let Some((disk, limit)) = self.granting.room(None).await? {
            self.session.tell(ToClient::Durable { seq: self.committing.durable(), disk, limit });
        }
        Ok(())
    }

    /// Answers a client that waits for room on the disk.
    async fn grant_room(&self, wanted: Room) -> Result<(), Over> {
        let Some((disk, limit)) = self.granting.room(Some(wanted)).await? else {
            return Err(Over::Failed(Trouble::of_server(
                "the free space of the store's disk cannot be asked for",
            )));
        };
        self.session.tell(ToClient::Room { disk, limit });
        Ok(())
    }

    async fn commit(&mut self, step: Step) -> Result<(), Over> {
        match step {
            Step::Start => self.committing.start().await,
            Step::Conclude(judged) => self.conclude(judged).await,
        }
    }

    async fn conclude(&mut self, judged: Judged) -> Result<(), Over> {
        let seq = judged.seq;
        let Done { scarce } = self.committing.conclude(judged).await?;
        // A client that frees space learns of it in the acknowledgement that makes the removal
        // durable; if there is enough room, the acknowledgement does not wait for that.
        if scarce {
            self.committing.give_back(seq).await?;
        }
        let room = self.granting.room(Some(Room::default())).await?;
        let (disk, limit) = room.unwrap_or_default();
        self.session.tell(ToClient::Durable { seq, disk, limit });
        self.committing.hasten();
        if !scarce && self.committing.give_back(seq).await? {
            self.tell_durable().await?;
        }
        Ok(())
    }

    /// Commits the applied ops, unless the reason for the session's end forbids it.
    async fn last_commit(&mut self, over: Over) -> Over {
        match over {
            Over::Fenced | Over::Failed(_) | Over::Full => {
                self.await_verdict().await;
                over
            }
            // The session of a removed account is also fenced, but the order is the better reason.
            Over::Ordered(_) => match self.finish().await {
                Err(failed @ (Over::Failed(_) | Over::Full)) => failed,
                Ok(()) | Err(_) => over,
            },
            Over::LoggedOut
            | Over::Yielded
            | Over::LinkLost(_)
            | Over::Protocol(_)
            | Over::Diverged(..)
            | Over::NoRoom(_) => self.finish().await.err().unwrap_or(over),
        }
    }

    /// Commits all applied ops.
    async fn finish(&mut self) -> Result<(), Over> {
        while self.committing.is_in_flight() || !self.committing.is_done() {
            if self.committing.is_in_flight() {
                let step = self.committing.next().await;
                self.commit(step).await?;
            } else {
                self.committing.start().await?;
            }
        }
        Ok(())
    }

    /// Waits for the verdict on the batch that is in a commit, if there is one. Until then it is
    /// not known which contents are needed, so no other session of the account may begin.
    async fn await_verdict(&mut self) {
        if self.committing.is_in_flight() {
            let step = self.committing.next().await;
            // The session is over for another reason already.
            let _ = self.commit(step).await;
        }
    }
}

async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    // The session, which holds the sender, outlives its driver.
    if orders.changed().await.is_err() {
        return std::future::pending().await;
    }
    orders.get()
}
