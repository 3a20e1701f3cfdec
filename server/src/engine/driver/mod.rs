//! A session's log link: ops come up, what became of them goes down.
//!
//! Three tasks serve it: one reads frames, one writes messages, and the driver between them applies
//! ops, in order, and has batches committed while it goes on. They end together.
//!
//! **Invariant:** `Durable(seq)` is said only after the commit that holds `seq`; at most one batch
//! of a session is in a commit at a time.

pub(crate) mod over;
pub(crate) mod granting;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use xfer_protocol::Seq;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::HEARTBEAT_MS;
use xfer_protocol::message::{ToClient, ToServer};
use xfer_protocol::tree::{Op, Room};

use crate::engine::applying::Frame;
use crate::engine::commit::{Job, Verdict};
use crate::engine::driver::over::{Over, no_tree, ordered, panicked};
use crate::engine::session::Session;
use crate::engine::session::counters::add;
use crate::engine::session::orders::Order;
use crate::engine::stores::Stores;
use crate::engine::trouble::Trouble;
use xfer_link::patience::is_silence;
use xfer_link::{LinkError, receive_body, receive_header, send};

/// How long applied ops wait for a commit at most.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How many frames may wait to be applied.
const FRAMES_WAITING: usize = 4;

/// How many bytes of frames may be under way: being read, waiting, and being applied.
const FRAME_BYTES_MAX: usize = 24 << 20;

// The largest one fits.
const _: () = assert!(Bounds::OPEN.message_max + Bounds::OPEN.payload_max <= FRAME_BYTES_MAX);

/// What comes up a log link, with its share of [`FRAME_BYTES_MAX`].
pub(crate) type Received = Result<(ToServer, Bytes, OwnedSemaphorePermit), LinkError>;

/// Passes frames on until the link ends, which is passed on too. The channel holds them back when
/// they come faster than they are applied.
pub(crate) async fn read_frames<R: AsyncRead + Unpin>(
    mut reader: R,
    frames: mpsc::Sender<Received>,
) {
    let room = Arc::new(Semaphore::new(FRAME_BYTES_MAX));
    loop {
        let received = read_frame(&mut reader, &room).await;
        let failed = received.is_err();
        if frames.send(received).await.is_err() || failed {
            return;
        }
    }
}

async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R, room: &Arc<Semaphore>) -> Received {
    let header = receive_header(reader, Bounds::OPEN).await?;
    // Within the bounds, and so far below what a number of permits may be.
    let bytes = (header.message_len + header.payload_len) as u32;
    let room = room.clone().acquire_many_owned(bytes).await.map_err(std::io::Error::other)?;
    let (message, payload) = receive_body(header, reader, Bounds::OPEN).await?;
    Ok((message, payload, room))
}

/// The channel between [`read_frames`] and the [`Driver`].
pub(crate) fn frames() -> (mpsc::Sender<Received>, mpsc::Receiver<Received>) {
    mpsc::channel(FRAMES_WAITING)
}

/// Writes messages until the last word is said or the link breaks; news only when there is nothing
/// else. Says something now and then when there is nothing to say, even while the driver is at work
/// on something long.
pub(crate) async fn write_messages<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut outgoing: mpsc::Receiver<ToClient>,
    mut news: mpsc::Receiver<ToClient>,
) -> Result<(), LinkError> {
    let heartbeat = Duration::from_millis(HEARTBEAT_MS);
    loop {
        let next = async {
            tokio::select! {
                biased;
                message = outgoing.recv() => message,
                Some(message) = news.recv() => Some(message),
            }
        };
        let message = match tokio::time::timeout(heartbeat, next).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(_) => ToClient::Pong,
        };
        send(&mut writer, &message, &[], Bounds::OPEN).await?;
        if let ToClient::Ended(_) = message {
            writer.shutdown().await?;
            return Ok(());
        }
    }
}

/// Applies ops and has them committed.
pub(crate) struct Driver {
    pub(crate) session: Arc<Session>,
    pub(crate) stores: Stores,
    pub(crate) committer: mpsc::Sender<Job>,
    pub(crate) commit: CommitState,
}

/// How far commits are.
pub(crate) struct CommitState {
    /// The last op that is durable.
    pub(crate) durable: Seq,
    /// The batch that is being committed, by its last op.
    in_flight: Option<(Seq, oneshot::Receiver<Verdict>)>,
    /// The last op that some program waits for.
    barrier: Seq,
    /// So much waits for the next batch that no more is taken in until that is on its way.
    large: bool,
    /// When the oldest op that is in no batch yet has waited long enough.
    due: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(
        session: Arc<Session>,
        stores: Stores,
        committer: mpsc::Sender<Job>,
    ) -> Driver {
        let durable = session.position.applied();
        let commit =
            CommitState { durable, in_flight: None, barrier: durable, large: false, due: None };
        Driver { session, stores, committer, commit }
    }

    /// Serves the link until something ends the session.
    pub(crate) async fn serve(&mut self, frames: &mut mpsc::Receiver<Received>) -> Over {
        let mut orders = self.session.seat.orders.subscribe();
        orders.mark_changed();
        loop {
            let served = tokio::select! {
                order = next_order(&mut orders) => self.obey(order),
                verdict = verdict_of(&mut self.commit.in_flight) => self.handle_verdict(verdict).await,
                () = when(self.commit.due), if self.commit.in_flight.is_none() => {
                    self.start_commit().await
                }
                () = when(self.session.seat.orders.deadline()) => ordered(&self.session).map_or(Ok(()), Err),
                received = frames.recv(), if !self.commit.large => {
                    self.handle_received(received).await
                }
            };
            if let Err(over) = served {
                return over;
            }
        }
    }

    /// Commits all that was applied.
    pub(crate) async fn finish(&mut self) -> Result<(), Over> {
        loop {
            if self.commit.in_flight.is_some() {
                let verdict = verdict_of(&mut self.commit.in_flight).await;
                self.handle_verdict(verdict).await?;
            } else if self.session.position.applied() > self.commit.durable {
                self.start_commit().await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Waits for the batch that is in a commit, if there is one: until then it is not known which
    /// contents are needed, and somebody else's session must not begin.
    pub(crate) async fn await_verdict(&mut self) {
        if self.commit.in_flight.is_some() {
            let verdict = verdict_of(&mut self.commit.in_flight).await;
            // The session is over for another reason already.
            let _ = self.handle_verdict(verdict).await;
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
            Order::Lost { why } => return Err(Over::LinkLost(why)),
            Order::End { reason } => return Err(Over::Ordered(reason)),
        }
        Ok(())
    }

    async fn handle_received(&mut self, received: Option<Received>) -> Result<(), Over> {
        let (message, payload, _room) = match received {
            Some(Ok(frame)) => frame,
            Some(Err(LinkError::Io(error))) if is_silence(&error) => return Err(Over::Silent),
            Some(Err(LinkError::Io(error))) => return Err(Over::LinkLost(error.to_string())),
            Some(Err(error @ (LinkError::Frame(_) | LinkError::Codec(_)))) => {
                return Err(Over::Protocol(error.to_string()));
            }
            None => return Err(Over::LinkLost("the link is closed".to_owned())),
        };
        add(&self.session.counters().frames, 1);
        match message {
            ToServer::Ops { first, ops } => self.handle_ops(first, ops, payload).await,
            ToServer::Barrier { upto } => {
                add(&self.session.counters().barriers, 1);
                self.commit.barrier = self.commit.barrier.max(upto);
                self.hasten();
                Ok(())
            }
            ToServer::Ping { limit } => {
                self.session.tell(ToClient::Pong);
                self.take_back(limit).await?;
                self.tell_durable().await
            }
            ToServer::Room { wanted } => self.grant_room(wanted).await,
            ToServer::MoreIds => self.grant_more().await,
            ToServer::Logout => Err(Over::LoggedOut),
        }
    }

    async fn handle_ops(&mut self, first: Seq, ops: Vec<Op>, payload: Bytes) -> Result<(), Over> {
        let applied = self.session.position.applied();
        let frame = Frame::new(applied, first, ops, payload)?;
        let large = frame.apply(&self.session).await?;
        self.commit.due.get_or_insert_with(|| Instant::now() + COMMIT_INTERVAL);
        self.commit.large = large;
        if large {
            self.commit.due = Some(Instant::now());
        }
        self.hasten();
        Ok(())
    }

    /// Makes the next commit due at once, if a program waits for an op that is in none yet.
    fn hasten(&mut self) {
        let taken = self.commit.in_flight.as_ref().map_or(self.commit.durable, |(seq, _)| *seq);
        if self.commit.barrier > taken && self.session.position.applied() > taken {
            self.commit.due = Some(Instant::now());
        }
    }

    async fn start_commit(&mut self) -> Result<(), Over> {
        self.commit.due = None;
        self.commit.large = false;
        let session = self.session.clone();
        let now = SystemTime::now().into();
        let taken = spawn_blocking(move || session.tree.with(|tree| tree.take_batch(now)));
        let Some(work) = taken.await.map_err(panicked)?.map_err(no_tree)? else { return Ok(()) };
        let (reply, verdict) = oneshot::channel();
        let seq = work.batch.applied;
        let sent = self.committer.send(Job { work, reply }).await;
        sent.map_err(|_| Over::Failed(Trouble::of_server("the committer is gone")))?;
        self.commit.in_flight = Some((seq, verdict));
        Ok(())
    }

    async fn handle_verdict(&mut self, (seq, verdict): (Seq, Verdict)) -> Result<(), Over> {
        let scarce = match verdict {
            Verdict::Durable { scarce } => scarce,
            Verdict::Fenced => {
                let session = self.session.clone();
                let withdrawn = spawn_blocking(move || session.tree.with(|tree| tree.withdraw()));
                withdrawn.await.map_err(panicked)?.map_err(no_tree)?;
                return Err(Over::Fenced);
            }
            Verdict::Failed(error) => return Err(Over::Failed(error)),
        };
        self.commit.durable = seq;
        self.session.position.set_durable(seq);
        add(&self.session.counters().commits, 1);
        // Whoever makes room hears of it with the word that what made it is durable; where there is
        // room enough, nobody waits for that.
        if scarce {
            self.settle(seq).await?;
        }
        let (disk, limit) = self.room(Some(Room::default())).await?.unwrap_or_default();
        self.session.tell(ToClient::Durable { seq, disk, limit });
        self.hasten();
        if !scarce && self.settle(seq).await? {
            self.tell_durable().await?;
        }
        Ok(())
    }

    /// Gives back what a commit made unreachable; says whether there was anything.
    async fn settle(&self, seq: Seq) -> Result<bool, Over> {
        let session = self.session.clone();
        let settled = spawn_blocking(move || session.tree.with(|tree| tree.settle(seq)));
        let settled = settled.await.map_err(panicked)?.map_err(no_tree)?;
        Ok(settled.unwrap_or_else(|error| {
            tracing::warn!(user = %self.session.user(), %error, "space is not given back");
            false
        }))
    }
}

async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    // The session, which holds the sender, outlives its driver.
    if orders.changed().await.is_err() {
        return std::future::pending().await;
    }
    orders.borrow_and_update().clone()
}

/// Waits for the commit that is in flight; for ever, if there is none.
async fn verdict_of(in_flight: &mut Option<(Seq, oneshot::Receiver<Verdict>)>) -> (Seq, Verdict) {
    let Some((seq, verdict)) = in_flight else { return std::future::pending().await };
    let (seq, verdict) = (*seq, verdict.await);
    *in_flight = None;
    (seq, verdict.unwrap_or(Verdict::Failed(Trouble::of_server("the committer failed"))))
}

async fn when(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
