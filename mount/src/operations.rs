//! What programs have asked of a mount, counted by kind: how often, how long it took, and how often the
//! server had to be asked.
//!
//! The kernel answers much by itself, and that is not counted. A counter is an atomic that is added to, and
//! times fall into classes, so that counting takes neither a lock nor memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Kinds of operations, in the order in which they are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A name was looked up.
    Lookup,
    /// Attributes were asked for.
    Attributes,
    /// A directory was listed.
    List,
    /// A file or directory was opened.
    Open,
    /// Bytes of a file were read.
    Read,
    /// Bytes of a file were written.
    Write,
    /// Bytes were copied by copy_file_range(2).
    Copy,
    /// A file was created and opened.
    Create,
    /// A directory, a link or a special file was made.
    Make,
    /// A name was removed.
    Remove,
    /// A name was changed.
    Rename,
    /// Attributes were set, or extended ones, or space was allocated.
    Set,
    /// A program waited until its changes were durable.
    Sync,
    /// A descriptor was closed.
    Close,
    /// Anything else.
    Other,
}

/// All kinds, with their names for people and programs.
pub const KINDS: [(Kind, &str); 15] = [
    (Kind::Lookup, "lookup"),
    (Kind::Attributes, "attributes"),
    (Kind::List, "list"),
    (Kind::Open, "open"),
    (Kind::Read, "read"),
    (Kind::Write, "write"),
    (Kind::Copy, "copy"),
    (Kind::Create, "create"),
    (Kind::Make, "make"),
    (Kind::Remove, "remove"),
    (Kind::Rename, "rename"),
    (Kind::Set, "set"),
    (Kind::Sync, "sync"),
    (Kind::Close, "close"),
    (Kind::Other, "other"),
];

/// The counters of one mount.
#[derive(Debug, Default)]
pub struct Operations {
    kinds: [Counters; KINDS.len()],
}

impl Operations {
    /// The counters of one kind.
    pub fn of(&self, kind: Kind) -> &Counters {
        &self.kinds[kind as usize]
    }
}

/// Classes of times: four for each doubling, up to more than half an hour.
const CLASSES: usize = 4 * 41;

/// The counters of one kind of operation.
#[derive(Debug)]
pub struct Counters {
    waited: AtomicU64,
    times: [AtomicU64; CLASSES],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { waited: AtomicU64::new(0), times: [const { AtomicU64::new(0) }; CLASSES] }
    }
}

impl Counters {
    /// Notes that an operation was answered after this time.
    pub fn answered(&self, time: Duration) {
        self.times[class(time)].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an operation waits for something that only the server has.
    pub fn waits(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }

    /// How many operations have waited for what only the server had.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// How many operations were answered.
    pub fn count(&self) -> u64 {
        self.times.iter().map(|times| times.load(Ordering::Relaxed)).sum()
    }

    /// The time within which this share of the operations was answered: the end of its class, which is at
    /// most a quarter more. `None` if there was none.
    pub fn within(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = (count as f64 * share).ceil() as u64;
        let mut below = 0;
        let is_reached = |times: &AtomicU64| {
            below += times.load(Ordering::Relaxed);
            count > 0 && below >= rank
        };
        self.times.iter().position(is_reached).map(end)
    }
}

/// The class of a time. The shortest have one class.
fn class(time: Duration) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(4);
    let doublings = nanos.ilog2();
    let quarter = (nanos >> (doublings - 2)) & 3;
    (doublings as usize * 4 + quarter as usize).min(CLASSES - 1)
}

/// The time at which a class ends.
fn end(class: usize) -> Duration {
    let (doublings, quarter) = (class / 4, class % 4);
    Duration::from_nanos(((5 + quarter as u64) << doublings) >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_a_class_that_ends_at_most_a_quarter_after_it() {
        let mut nanos = 4_u64;
        while nanos < 1_000_000_000_000 {
            for time in [nanos, nanos + 1, nanos * 2 - 1].map(Duration::from_nanos) {
                let end = end(class(time));
                assert!(time < end && end <= time * 5 / 4 + Duration::from_nanos(1), "{time:?}");
            }
            nanos = nanos * 3 / 2;
        }
        assert_eq!(class(Duration::ZERO), class(Duration::from_nanos(4)));
        assert_eq!(class(Duration::MAX), CLASSES - 1);
    }

    #[test]
    fn half_and_nearly_all_of_the_operations_are_within_their_times() {
        let counters = Counters::default();
        assert_eq!((counters.count(), counters.within(0.5)), (0, None));
        (0..98).for_each(|_| counters.answered(Duration::from_micros(10)));
        (0..2).for_each(|_| counters.answered(Duration::from_millis(10)));
        assert_eq!(counters.count(), 100);
        let within = |share| counters.within(share).unwrap_or_default();
        assert!((10..13).contains(&within(0.5).as_micros()), "{:?}", within(0.5));
        assert!((10..13).contains(&within(0.99).as_millis()), "{:?}", within(0.99));
    }

    #[test]
    fn each_kind_has_its_place() {
        assert!(KINDS.iter().enumerate().all(|(place, (kind, _))| *kind as usize == place));
    }
}
