//! Whether something waits for the server: a program, or changes that are not durable.
//!
//! Only then a dead link has to be noticed fast, so only then the link is tried every few seconds.
//! A client for which nothing waits lets its machine sleep.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use xfer_link::patience::Expectation;

use super::Client;

/// How often the link is tried at most though nothing waits.
const TRY_EVERY: Duration = Duration::from_secs(30);

/// What waits for the server.
#[derive(Default)]
pub(super) struct Waiting {
    /// Operations that have paused and are not answered yet.
    operations: AtomicUsize,
    /// Signalled when none does any more.
    none: Notify,
    /// Whether the last ping is not answered.
    pinged: AtomicBool,
    /// Whether the link is to be tried, though nothing waits.
    must_try_link: AtomicBool,
    /// When that was last so.
    tried: Mutex<Option<Instant>>,
    /// Whether the server is expected to send something over the log link.
    expectation: Expectation,
}

/// An operation that waits, until this is dropped.
pub(super) struct Waits(Arc<Client>);

impl Client {
    /// Notes that an operation waits.
    pub(super) fn note_waits(self: &Arc<Self>) -> Waits {
        if self.waiting.operations.fetch_add(1, Ordering::SeqCst) == 0 {
            self.expect();
            // The link is tried at once if it was quiet for long.
            self.outgoing.notify_one();
        }
        Waits(self.clone())
    }

    /// Whether operations wait.
    pub(super) fn has_waiting_operations(&self) -> bool {
        self.waiting.operations.load(Ordering::SeqCst) > 0
    }

    /// Waits until all operations that wait are answered.
    pub(super) async fn until_none_waits(&self) {
        loop {
            let mut none = pin!(self.waiting.none.notified());
            none.as_mut().enable();
            if !self.has_waiting_operations() {
                return;
            }
            none.await;
        }
    }

    /// Notes that a ping is sent.
    pub(super) fn note_ping(&self) {
        self.waiting.pinged.store(true, Ordering::SeqCst);
        self.expect();
    }

    /// Has the link tried at once, unless that was so lately: some networks announce something every
    /// few seconds.
    pub(super) fn try_link(&self) {
        let mut last = self.waiting.tried.lock();
        if last.is_none_or(|last| last.elapsed() >= TRY_EVERY) {
            *last = Some(Instant::now());
            self.waiting.must_try_link.store(true, Ordering::SeqCst);
            self.outgoing.notify_one();
        }
    }

    /// Whether the link is to be tried. It is told once.
    pub(super) fn must_try_link(&self) -> bool {
        self.waiting.must_try_link.swap(false, Ordering::SeqCst)
    }

    /// Notes that the server has sent something.
    pub(super) fn note_sign_of_life(&self) {
        self.waiting.pinged.store(false, Ordering::SeqCst);
        self.expect();
    }

    /// The expectation for a new link.
    pub(super) fn expectation(&self) -> Expectation {
        self.note_sign_of_life();
        self.waiting.expectation.clone()
    }

    /// Sets what is expected of the log link. To be called when changes begin or cease to wait, too.
    /// Returns whether something waits for the server.
    pub(super) fn expect(&self) -> bool {
        let waits = self.has_waiting_operations() || self.lock().pending().0 > 0;
        self.waiting.expectation.set(waits || self.waiting.pinged.load(Ordering::SeqCst));
        waits
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if self.0.waiting.operations.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.waiting.none.notify_waiters();
            self.0.expect();
        }
    }
}
