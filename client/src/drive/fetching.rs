//! Fetching bytes that attempts wait for; reserving room in inboxes, and asking about deliveries.
//!
//! The core decides which bytes to fetch. Here they are asked for and passed to the core.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::sleep;
use xfer_link::watch;
use xfer_protocol::message::{Answer, Ask};
use xfer_protocol::{DeliveryId, Errno, Ino, Seq};

use super::Client;
use super::loading::{Finish, outcome};
use crate::core::{Core, FetchOrder, Reservation, Unexpected};

impl Client {
    /// Starts a fetch of bytes.
    pub(super) fn begin_fetch(self: &Arc<Self>, ino: Ino, order: FetchOrder) {
        let (done, under_way) = watch::channel(None);
        self.fetches.lock().insert(order.id, under_way);
        let client = self.clone();
        self.operations.spawn(async move {
            let result = client.fetch(ino, &order).await;
            Finish { map: &client.fetches, key: order.id, done }.with(result);
        });
    }

    /// Waits until these fetches are done. One that is not found is done already.
    pub(super) async fn fetched(&self, waits: Vec<u64>) -> Result<(), Errno> {
        for id in waits {
            let under_way = self.fetches.lock().get(&id).cloned();
            if let Some(under_way) = under_way {
                outcome(under_way).await?;
            }
        }
        Ok(())
    }

    /// Fetches bytes. It asks once the op `order.after`, which gave the file this content, is
    /// durable. The content may exist before it has all these bytes, so a question that came too
    /// early is repeated.
    async fn fetch(self: &Arc<Self>, ino: Ino, order: &FetchOrder) -> Result<(), Errno> {
        let mut after = order.after;
        loop {
            let answer = self.ask_bytes(ino, order, after).await;
            let mut core = self.lock();
            if core.tenure() != order.tenure {
                // Others have changed the tree meanwhile. The attempt, when it is made again, finds out
                // what it needs now.
                return Ok(());
            }
            let is_stale = matches!(answer, Err(Errno::ESTALE));
            let has_data = core.has_data(ino, order);
            let changed = core.changed(ino);
            if is_stale && has_data && changed > after {
                after = changed;
                continue;
            }
            core.fill_data(order, answer.as_ref().ok());
            return match answer {
                Ok(_) => Ok(()),
                // This client changed the file's data meanwhile. The attempt, when it is made
                // again, asks for the new data.
                Err(Errno::ESTALE) if !has_data => Ok(()),
                Err(Errno::ESTALE) => {
                    core.note_error("the server does not know what a file has".to_owned());
                    Err(Errno::EIO)
                }
                // Another client has the seat. The attempt waits for that.
                Err(Errno::EBUSY) => Ok(()),
                Err(errno) => Err(errno),
            };
        }
    }

    async fn ask_bytes(
        self: &Arc<Self>,
        ino: Ino,
        order: &FetchOrder,
        after: Seq,
    ) -> Result<Bytes, Errno> {
        // Without a deadline: the question may wait as long as the log takes.
        let tenure = order.tenure;
        let sync = move |core: &mut Core| match core.tenure() == tenure {
            true => core.reach(core.position_at(after)),
            false => Err(Errno::ESTALE.into()),
        };
        tokio::select! {
            biased;
            synced = self.tend(sync) => synced?,
            () = self.stuck_too_long() => return Err(Errno::ETIMEDOUT),
        }
        let (offset, len) = (order.range.start, order.range.end - order.range.start);
        let ask = Ask::Read { ino, content: order.content, offset, len: len as u32 };
        match self.ask(after, ask).await? {
            (Answer::Data, data) if data.len() as u64 <= len => Ok(data),
            _ => Err(self.unexpected(Unexpected("bytes"))),
        }
    }

    /// Completes when an operation has waited for as long as it may since the server's disk was seen to
    /// be full.
    async fn stuck_too_long(&self) {
        let Some(wait) = self.options.wait else { return pending().await };
        self.reached(Core::is_stuck).await;
        sleep(wait).await;
    }

    /// Reserves room in another user's inbox. A task does it, so that a grant is noted even if the
    /// program that needed it was interrupted.
    pub(super) async fn reserve(self: &Arc<Self>, reservation: Reservation) -> Result<(), Errno> {
        let client = self.clone();
        let (done, reserved) = oneshot::channel();
        self.operations.spawn(async move {
            // This fails if the program was interrupted.
            let _ = done.send(client.ask_room(reservation).await);
        });
        reserved.await.unwrap_or(Err(Errno::EIO))
    }

    async fn ask_room(self: &Arc<Self>, reservation: Reservation) -> Result<(), Errno> {
        let Reservation { ino, ref to, bytes, items } = reservation;
        let ask = Ask::Reserve { to: to.clone(), ino, bytes, items };
        match self.ask(Seq::default(), ask).await {
            Ok((Answer::Reserved, _)) => {
                self.lock().grant_room(&reservation);
                Ok(())
            }
            Ok(_) => Err(self.unexpected(Unexpected("room in an inbox"))),
            Err(errno) => {
                self.lock().refuse_room(ino, errno);
                self.tick();
                Err(errno)
            }
        }
    }

    /// Asks for the state of a delivery.
    pub(super) async fn ask_state(self: &Arc<Self>, id: DeliveryId) -> Result<(), Errno> {
        match self.ask(Seq::default(), Ask::State(id)).await? {
            (Answer::State(state), _) => {
                self.lock().learn_state(id, state);
                Ok(())
            }
            _ => Err(self.unexpected(Unexpected("the state of a delivery"))),
        }
    }
}
