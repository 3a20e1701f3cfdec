//! A session's position in its log: the last op applied, and the last op that is durable.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use xfer_link::watch;
use xfer_protocol::{Epoch, Seq};

/// The position. Only the driver moves it; other tasks read it and wait for it.
pub(crate) struct Position {
    epoch: OnceLock<Epoch>,
    applied: watch::Sender<Seq>,
    durable: AtomicU64,
}

impl Position {
    /// The position of a session that has not begun.
    pub(crate) fn new() -> Position {
        Position {
            epoch: OnceLock::new(),
            applied: watch::Sender::new(Seq::default()),
            durable: AtomicU64::new(0),
        }
    }

    /// Begins at the last op that the tree's earlier sessions made durable. To be called once.
    pub(crate) fn begin(&self, epoch: Epoch, applied: Seq) {
        self.epoch.get_or_init(|| epoch);
        self.applied.send_replace(applied);
        self.set_durable(applied);
    }

    /// The epoch, once the session has begun.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch.get().copied()
    }

    /// The last op applied.
    pub(crate) fn applied(&self) -> Seq {
        self.applied.get()
    }

    /// Subscribes to the last op applied.
    pub(crate) fn follow_applied(&self) -> watch::Receiver<Seq> {
        self.applied.subscribe()
    }

    /// Sets the last op applied.
    pub(crate) fn set_applied(&self, seq: Seq) {
        self.applied.send_if_modified(|applied| std::mem::replace(applied, seq) != seq);
    }

    /// The last op that is durable.
    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Relaxed))
    }

    /// Sets the last op that is durable.
    pub(crate) fn set_durable(&self, seq: Seq) {
        self.durable.store(seq.0, Ordering::Relaxed);
    }
}
