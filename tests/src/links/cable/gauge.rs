//! Counts what links carry, and says after which byte they end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A direction of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// The kinds of links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkKind {
    /// Carries ops and acknowledgements.
    Log,
    /// Carries questions and answers.
    Read,
}

/// A direction of all links of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane {
    /// The kind of the links.
    pub kind: LinkKind,
    /// The direction.
    pub way: Way,
}

/// That direction of the log link.
impl From<Way> for Lane {
    fn from(way: Way) -> Lane {
        Lane { kind: LinkKind::Log, way }
    }
}

/// How links end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// They are closed at both ends.
    Closed,
    /// They carry nothing any more, and no end is told.
    Silent,
}

/// The bytes that links of a kind have carried in one direction, and those after which they end.
#[derive(Default)]
pub(super) struct Gauge {
    carried: AtomicU64,
    /// How many more it carries, and one more; 0 for any number.
    left: AtomicU64,
    /// Whether the links then fall silent; else they are closed.
    falls_silent: AtomicBool,
}

impl Gauge {
    /// Has the links end once they have carried so many more bytes.
    pub(super) fn end_after(&self, bytes: u64, cut: Cut) {
        self.falls_silent.store(cut == Cut::Silent, Ordering::SeqCst);
        self.left.store(bytes + 1, Ordering::SeqCst);
    }

    /// Has them end no more.
    pub(super) fn end_never(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    /// Counts bytes that are about to be carried. Returns how many of them are; the links end if those
    /// are not all.
    pub(super) fn pass(&self, bytes: usize) -> usize {
        let take = |left: u64| match left {
            0 => None,
            left => Some(1 + (left - 1).saturating_sub(bytes as u64)),
        };
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let passed = before.map_or(bytes, |before| bytes.min((before - 1) as usize));
        if passed < bytes {
            self.left.store(0, Ordering::SeqCst);
        }
        self.carried.fetch_add(passed as u64, Ordering::SeqCst);
        passed
    }

    /// How the links end.
    pub(super) fn cut(&self) -> Cut {
        match self.falls_silent.load(Ordering::SeqCst) {
            true => Cut::Silent,
            false => Cut::Closed,
        }
    }

    /// Whether they have ended since that was asked for last.
    pub(super) fn has_ended(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// The bytes that were carried.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }
}
