//! Whether something waits for the server: a program, the client's own work, or changes that are not
//! durable.
//!
//! Only then a dead link has to be noticed fast, so only then the link is tried every few seconds.
//! A client for which nothing waits lets its machine sleep. A link that is down is dialled without a
//! pause, and the seat asked for, only while a program waits.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use xfer_link::patience::Expectation;

use super::{Client, Origin};

/// How often the link is tried at most though nothing waits.
const TRY_EVERY: Duration = Duration::from_secs(30);

/// What waits for the server.
#[derive(Default)]
pub(super) struct Waiting {
    /// Programs' operations that have paused and are not answered yet.
    programs: AtomicUsize,
    /// The client's own.
    own: AtomicUsize,
    /// Signalled when there are none any more of either.
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
pub(super) struct Waits {
    client: Arc<Client>,
    origin: Origin,
}

impl Waiting {
    fn of(&self, origin: Origin) -> &AtomicUsize {
        match origin {
            Origin::Program => &self.programs,
            Origin::Housekeeping => &self.own,
        }
    }

    fn has_operations(&self) -> bool {
        [&self.programs, &self.own].iter().any(|count| count.load(Ordering::SeqCst) > 0)
    }
}

impl Client {
    /// Notes that an operation waits. If a program waits for a link that is down, the server is dialled
    /// at once.
    pub(super) fn note_waits(self: &Arc<Self>, origin: Origin) -> Waits {
        if self.waiting.of(origin).fetch_add(1, Ordering::SeqCst) == 0 {
            self.expect();
            // The link is tried at once if it was quiet for long.
            self.outgoing.notify_one();
            if origin == Origin::Program && !self.is_up.get() {
                self.attention.call();
            }
        }
        Waits { client: self.clone(), origin }
    }

    /// Whether programs wait.
    pub(super) fn has_waiting_programs(&self) -> bool {
        self.waiting.programs.load(Ordering::SeqCst) > 0
    }

    /// Waits until all operations that wait are answered. The client's own may wait in the kernel, too.
    pub(super) async fn until_none_waits(&self) {
        loop {
            let mut none = pin!(self.waiting.none.notified());
            none.as_mut().enable();
            if !self.waiting.has_operations() {
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
        let waits = self.waiting.has_operations() || self.lock().pending().0 > 0;
        self.waiting.expectation.set(waits || self.waiting.pinged.load(Ordering::SeqCst));
        waits
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let Waits { client, origin } = self;
        if client.waiting.of(*origin).fetch_sub(1, Ordering::SeqCst) == 1 {
            client.waiting.none.notify_waiters();
            client.expect();
        }
    }
}
