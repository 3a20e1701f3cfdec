//! Memory for answers on read links: a bound for all sessions together, and one for each.
//!
//! A session may hold a fraction of the memory that is still free, so some is left for others
//! however long a client leaves its answers unread. Before a question is answered, the session
//! takes as much memory as the answer can need at most. It gives the rest back once the answer is
//! encoded.
//!
//! **Invariant:** a session that holds no memory may always take some. So a session waits at most
//! until its own answers are read, or until others hold less.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The most bytes of answers held at a time, for all sessions together.
const BYTES_MAX: usize = 1 << 30;

/// The most bytes of answers that one session may hold.
const SESSION_BYTES_MAX: usize = 32 << 20;

/// The divisor that gives the fraction of the free memory that a session may hold.
const FREE_PART: usize = 16;

/// The memory for answers, shared by all sessions.
#[derive(Debug, Default)]
pub(crate) struct AnswerRoom {
    held: Mutex<usize>,
    freed: Notify,
}

/// A session's share of the memory.
#[derive(Debug)]
pub(crate) struct AnswerShare {
    room: Arc<AnswerRoom>,
    /// Changed only while the room is locked.
    held: AtomicUsize,
    /// Makes the session's questions take memory in order, so that large answers are not starved by
    /// small ones.
    turn: tokio::sync::Mutex<()>,
}

/// Memory that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    share: Arc<AnswerShare>,
    bytes: usize,
}

impl AnswerRoom {
    /// Makes a share for one more session.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<AnswerShare> {
        let (held, turn) = (AtomicUsize::new(0), tokio::sync::Mutex::default());
        Arc::new(AnswerShare { room: self.clone(), held, turn })
    }

    /// The memory that is held, in bytes.
    pub(crate) fn held(&self) -> usize {
        *self.lock()
    }

    /// A panic under the lock can't leave the number half changed.
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.held.lock()
    }
}

impl AnswerShare {
    /// Takes memory as soon as the session may have it.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize) -> Held {
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.room.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(held) = self.try_take(bytes) {
                return held;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut all = self.room.lock();
        let own = self.held.load(Ordering::Relaxed);
        let part = (BYTES_MAX.saturating_sub(*all) / FREE_PART).min(SESSION_BYTES_MAX);
        if own > 0 && own + bytes > part {
            return None;
        }
        *all += bytes;
        self.held.store(own + bytes, Ordering::Relaxed);
        Some(Held { share: self.clone(), bytes })
    }
}

impl Held {
    /// Keeps at most `bytes` and gives the rest back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.bytes -= less;
            *self.share.room.lock() -= less;
            self.share.held.fetch_sub(less, Ordering::Relaxed);
            self.share.room.freed.notify_waiters();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn fill(share: &Arc<AnswerShare>) -> Vec<Held> {
        std::iter::from_fn(|| share.try_take(MIB)).collect()
    }

    #[test]
    fn one_session_may_hold_what_is_said_and_many_together_too() {
        let room = Arc::new(AnswerRoom::default());
        let mut held = vec![fill(&room.share())];
        assert_eq!(held[0].len(), SESSION_BYTES_MAX / MIB);
        held.extend((1..400).map(|_| fill(&room.share())));
        assert!(held.iter().all(|own| !own.is_empty()), "there is some for everybody");
        let of_more: usize = held.iter().map(Vec::len).filter(|count| *count > 1).sum();
        assert!(of_more <= BYTES_MAX / MIB, "{of_more} MiB, beside one answer each");
        drop(held);
        assert_eq!(*room.lock(), 0);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_an_answer_turns_out_small_or_is_read() {
        let room = Arc::new(AnswerRoom::default());
        let share = room.share();
        let mut first = share.take(SESSION_BYTES_MAX).await;
        let waiting = |bytes| {
            let share = share.clone();
            tokio::spawn(async move { share.take(bytes).await })
        };
        let (second, third) = (waiting(MIB), waiting(SESSION_BYTES_MAX));
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        first.shrink(MIB);
        let second = second.await.ok();
        assert!(second.is_some() && !third.is_finished());
        drop((first, second));
        assert!(third.await.is_ok());
    }
}
