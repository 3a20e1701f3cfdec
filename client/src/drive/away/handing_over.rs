//! Giving the seat up: to another client that asks for it, or because the server takes it away.
//!
//! The kernel is told to forget what it keeps while the session still runs, so that no request has to
//! wait for that. Only then the server is told. Once the seat was lost without that, the kernel is told
//! afterwards.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use xfer_protocol::limits::HANDOFF_MS;

use crate::core::Notice;
use crate::drive::Client;

/// How long a client goes on trying to hand its seat over. The other one asks again as long as a
/// program waits there.
const WANTED_MAX: Duration = Duration::from_millis(HANDOFF_MS);

/// The longest time that giving the seat up may take when the server takes it away.
const LEAVING_MAX: Duration = Duration::from_secs(8);

/// A seat that was left, as the kernel does not know yet.
struct Left {
    /// What the kernel may keep.
    answered: Vec<Notice>,
    /// Completes when no answer of before is on its way.
    all_given: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Client {
    /// Hands the seat over when another client asks for it, until the session is over.
    pub(in crate::drive) async fn tend_seat(self: Arc<Self>) {
        if !self.options.handoff {
            return;
        }
        while !self.lock().is_over() {
            self.wanted.notified().await;
            let end = Instant::now() + WANTED_MAX;
            let prepared = timeout_at(end, self.prepare()).await;
            self.lock().note_wanted(None);
            match prepared {
                Ok(Some(left)) => self.finish_leaving(left).await,
                Ok(None) | Err(_) => self.lock().stay(),
            }
        }
    }

    /// Gives the seat up because the server takes it away. Programs' changes are refused from then on.
    pub(in crate::drive) fn leave_soon(self: &Arc<Self>) {
        let client = self.clone();
        self.operations.spawn(async move {
            client.write_back().await;
            let end = Instant::now() + LEAVING_MAX;
            // If this does not succeed in time, the server ends the session.
            if let Ok(Some(left)) = timeout_at(end, client.leave(true)).await {
                client.finish_leaving(left).await;
            }
        });
    }

    /// Has the kernel forget what it keeps, after the seat was lost.
    pub(in crate::drive) async fn outdate_lost(&self) {
        let all_given = {
            let core = self.lock();
            if !core.has_lost_seat() {
                return;
            }
            self.answers.turn()
        };
        // Requests that wait are refused, so that none holds a lock that a notice needs.
        self.tick();
        all_given.await;
        self.outdate_all().await;
        self.lock().settle();
        self.tick();
    }

    /// Leaves the seat once no program needs it. `None` if the session is over.
    async fn prepare(self: &Arc<Self>) -> Option<Left> {
        loop {
            let rest = self.lock().tenure_left();
            sleep(rest).await;
            self.reached(|core| core.is_over() || core.can_hand_over()).await;
            self.send_unsent().await;
            if let Some(left) = self.leave(false).await {
                return Some(left);
            }
            if self.lock().is_over() || !self.lock().has_seat() {
                return None;
            }
        }
    }

    /// Leaves the seat, once the kernel keeps only what it was answered meanwhile. `None` if the client
    /// does not leave it: a program has begun to write, or it is left already.
    async fn leave(self: &Arc<Self>, forced: bool) -> Option<Left> {
        // A delivery that is being placed needs the kernel's locks.
        let no_arrival = self.placing.lock().await;
        let all_given = {
            let mut core = self.lock();
            if !core.begin_leaving(forced) {
                return None;
            }
            self.answers.turn()
        };
        drop(no_arrival);
        self.outgoing.notify_one();
        all_given.await;
        self.outdate_all().await;
        loop {
            if let Some(left) = self.try_leave() {
                return Some(left);
            }
            if !forced && !self.lock().can_hand_over() {
                self.lock().stay();
                return None;
            }
            self.outgoing.notify_one();
            self.reached(|core| core.pending().0 == 0 || !core.has_seat()).await;
            if !self.lock().has_seat() {
                return None;
            }
        }
    }

    /// Has the kernel forget the rest, and then tells the server. Must not be dropped before its end.
    async fn finish_leaving(&self, left: Left) {
        self.tick();
        left.all_given.await;
        self.outdate(left.answered).await;
        self.lock().settle();
        self.outgoing.notify_one();
    }

    fn try_leave(&self) -> Option<Left> {
        let mut core = self.lock();
        let answered = core.leave()?;
        Some(Left { answered, all_given: Box::pin(self.answers.turn()) })
    }

    /// Has the kernel look again at all names, and then forget what it keeps of nodes: so a node that
    /// it finds by a name meanwhile is among them.
    async fn outdate_all(&self) {
        let entries = self.lock().kept_entries();
        self.outdate(entries).await;
        let nodes = self.lock().kept_nodes();
        self.outdate(nodes).await;
    }

    async fn outdate(&self, notices: Vec<Notice>) {
        let Some(kernel) = self.kernel() else { return };
        let told = self.runtime.spawn_blocking(move || kernel.outdate(&notices));
        // A blocking thread can't be aborted. If it panicked, the mount is gone.
        let _ = told.await;
    }
}
