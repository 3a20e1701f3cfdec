//! Giving the seat up: to another client that asks for it, or because the server takes it away.
//!
//! The kernel is told to forget what it keeps while the session still runs, so that no request has to
//! wait for that. Only then the server is told. If the seat is lost without that, the kernel is told
//! afterwards. A request that waits for the seat may then hold a lock that a notice needs: if the kernel
//! does not take the notices in soon, the requests that wait are refused until it has.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use xfer_protocol::limits::HANDOFF_MS;

use crate::core::Notice;
use crate::drive::Client;

/// How long a client goes on trying to hand its seat over. The other one asks again as long as a
/// program waits there.
const WANTED_MAX: Duration = Duration::from_millis(HANDOFF_MS);

/// How often a client looks whether programs still hold locks.
const LOCKS_LOOKED_AT_EVERY: Duration = Duration::from_millis(100);

/// The longest time that giving the seat up may take when the server takes it away.
const LEAVING_MAX: Duration = Duration::from_secs(8);

/// The longest time that the kernel may take for the last answers. It takes longer if a request waits
/// that needs the seat, and holds the lock of a page that a notice is about.
const LAST_MAX: Duration = Duration::from_secs(2);

/// The longest time for which requests wait while the kernel is told after the seat was lost.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Completes when no answer of before is on its way.
type Given = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A seat that was left, as the kernel does not know yet.
struct Left {
    /// What the kernel may keep.
    answered: Vec<Notice>,
    all_given: Given,
    /// Nobody else leaves the seat meanwhile, or comes back to it.
    _alone: OwnedMutexGuard<()>,
}

impl Client {
    /// Hands the seat over when another client asks for it, until the session is over.
    pub(in crate::drive) async fn tend_seat(self: Arc<Self>) {
        if !self.options.handoff {
            return;
        }
        while !self.lock().is_over() {
            self.wanted.notified().await;
            if !self.lock().is_wanted() {
                continue;
            }
            let end = Instant::now() + WANTED_MAX;
            let prepared = timeout_at(end, self.prepare()).await;
            self.lock().note_wanted(None);
            match prepared {
                Ok(Some(left)) => self.finish_leaving(left).await,
                Ok(None) | Err(_) => self.stay(),
            }
        }
    }

    /// Gives the seat up because the server takes it away. Programs' changes are made one at a time from then on.
    pub(in crate::drive) fn leave_soon(self: &Arc<Self>) {
        let client = self.clone();
        self.operations.spawn(async move {
            let end = Instant::now() + LEAVING_MAX;
            let leaving = async {
                client.write_back().await;
                client.leave(true).await
            };
            // If this does not succeed in time, the server ends the session.
            if let Ok(Some(left)) = timeout_at(end, leaving).await {
                client.finish_leaving(left).await;
            }
        });
    }

    /// Completes when the client does not have the seat.
    pub(in crate::drive) async fn without_seat(&self) {
        self.reached(|core| !core.has_seat()).await;
    }

    /// Completes when the seat is lost, and the kernel may still keep what is out of date.
    pub(in crate::drive) async fn seat_lost(&self) {
        self.reached(|core| core.has_lost_seat()).await;
    }

    /// Has the kernel forget what it keeps, after the seat was lost.
    pub(in crate::drive) async fn outdate_lost(&self) {
        if !self.lock().is_in_doubt() {
            return;
        }
        // Requests that wait for anything else wait for the seat now.
        self.tick();
        let told = self.tell_of_loss();
        tokio::pin!(told);
        while timeout(STUCK_AFTER, &mut told).await.is_err() {
            self.refuse_requests();
        }
    }

    /// Tells the kernel that the seat was lost, once nobody is giving it up.
    async fn tell_of_loss(&self) {
        // A seat that is being left is left in order after this, or kept, or lost.
        let _alone = self.leaving.clone().lock_owned().await;
        let all_given = {
            let core = self.lock();
            if !core.has_lost_seat() {
                return;
            }
            self.answers.turn()
        };
        all_given.await;
        self.outdate_all().await;
        self.lock().settle();
        self.tick();
    }

    /// Refuses the requests that wait, so that the kernel can go on, if the seat is lost.
    fn refuse_requests(&self) {
        self.lock().refuse_requests();
        self.tick();
    }

    /// Notes that another client has, or had, the seat, and has the kernel forget what it keeps.
    pub(in crate::drive) async fn lose_seat(&self) {
        self.outdate_lost().await;
        self.lock().lose_seat();
        self.outdate_lost().await;
    }

    /// Leaves the seat once no program needs it. `None` if the client does not leave it.
    async fn prepare(self: &Arc<Self>) -> Option<Left> {
        loop {
            let rest = self.lock().tenure_left();
            sleep(rest).await;
            self.reached(|core| core.can_hand_over() || !core.may_be_kept()).await;
            if !self.lock().can_hand_over() {
                return None;
            }
            if self.holds_locks() {
                sleep(LOCKS_LOOKED_AT_EVERY).await;
                continue;
            }
            self.send_unsent().await;
            if let Some(left) = self.leave(false).await {
                return Some(left);
            }
            if !self.lock().may_be_kept() {
                return None;
            }
        }
    }

    /// Leaves the seat, once the kernel keeps only what it was answered meanwhile. `None` if the client
    /// does not leave it: a program has begun to write or taken a lock, or it is left or lost already.
    async fn leave(self: &Arc<Self>, forced: bool) -> Option<Left> {
        let alone = self.leaving.clone().lock_owned().await;
        let all_given = {
            // A delivery that is being placed needs the kernel's locks.
            let _no_arrival = self.placing.lock().await;
            let mut core = self.lock();
            if !core.begin_leaving(forced) {
                return None;
            }
            self.answers.turn()
        };
        self.outgoing.notify_one();
        all_given.await;
        self.outdate_all().await;
        loop {
            // Not once the seat is left: a request that waits for it may hold the lock of a page.
            let answered = self.lock().take_answered();
            let is_quiet = answered.is_empty();
            self.outdate(answered).await;
            if !forced && self.holds_locks() {
                self.stay();
                return None;
            }
            if is_quiet && let Some((answered, all_given)) = self.try_leave() {
                return Some(Left { answered, all_given, _alone: alone });
            }
            let is_leaving = self.lock().is_leaving();
            if !is_leaving || !forced && !self.lock().can_hand_over() {
                self.stay();
                return None;
            }
            if forced {
                self.lock().hold_changes(true);
            }
            self.outgoing.notify_one();
            self.reached(|core| core.pending().0 == 0 || !core.is_leaving()).await;
            if self.lock().is_quiet()
                && let Some((answered, all_given)) = self.try_leave()
            {
                return Some(Left { answered, all_given, _alone: alone });
            }
            // The kernel is told of the last answers only while no change holds a lock.
            self.lock().hold_changes(false);
            self.tick();
            tokio::task::yield_now().await;
        }
    }

    /// Has the kernel forget the rest, and then tells the server. If the kernel takes too long, the
    /// client keeps the seat. Must not be dropped before its end.
    async fn finish_leaving(&self, left: Left) {
        self.tick();
        left.all_given.await;
        let told = self.outdate(left.answered);
        tokio::pin!(told);
        match timeout(LAST_MAX, &mut told).await {
            Ok(()) => {
                self.lock().settle();
                self.outgoing.notify_one();
            }
            Err(_) => {
                // The request that waits goes on or is refused, and then the kernel goes on.
                self.stay();
                self.refuse_requests();
                told.await;
            }
        }
    }

    /// Whether a program holds a lock that would have to exclude those on another machine.
    fn holds_locks(&self) -> bool {
        self.kernel().is_some_and(|kernel| kernel.holds_locks())
    }

    /// Keeps the seat after all.
    fn stay(&self) {
        self.lock().stay();
        self.tick();
    }

    fn try_leave(&self) -> Option<(Vec<Notice>, Given)> {
        let mut core = self.lock();
        let answered = core.leave()?;
        Some((answered, Box::pin(self.answers.turn())))
    }

    /// Has the kernel look again at all names, and then forget what it keeps of nodes: so a node that
    /// it finds by a name meanwhile is among them.
    async fn outdate_all(&self) {
        for _ in 0..2 {
            // Twice, since a program may not have taken in an answer from before: a name that is looked
            // at again holds no lock.
            let entries = self.lock().kept_entries();
            self.outdate(entries).await;
        }
        let nodes = self.lock().kept_nodes();
        self.outdate(nodes).await;
    }

    /// Tells the kernel, once it has taken in what it was told before.
    async fn outdate(&self, notices: Vec<Notice>) {
        let Some(kernel) = self.kernel() else { return };
        let alone = self.outdating.clone().lock_owned().await;
        let told = self.runtime.spawn_blocking(move || {
            // Kept to the end, even if nobody waits for it any more.
            let _alone = alone;
            kernel.outdate(&notices);
        });
        // A blocking thread can't be aborted. If it panicked, the mount is gone.
        let _ = told.await;
    }
}
