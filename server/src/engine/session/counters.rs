//! Counts of the work of a session and of the whole engine, for the administrator and for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::engine::durable::latency::Latency;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts that only grow.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The values of [`Counters`] at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads the present values.
            pub fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl std::ops::AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Frames received on log links.
    frames,
    /// Ops applied.
    ops,
    /// Batches that became durable.
    commits,
    /// Barriers received.
    barriers,
    /// Questions answered on read links.
    reads,
    /// Questions for a single node or entry.
    looks,
    /// Questions for pages of directories.
    listings,
    /// Questions for bytes of a content.
    fetches,
    /// Bytes of data received with ops.
    bytes_in,
    /// Bytes of data answered on read links.
    bytes_out,
    /// Bytes written into contents: of data received, and copied on the server.
    bytes_written,
}

/// So many counters may be open before those of earlier sessions are added up.
const OPEN_FEW: usize = 64;

/// The counts of all sessions since the engine's start, from the counters of each.
///
/// **Invariant:** the total never falls, and a count that a task makes after its session's end is part of
/// it: the counters of a session are added up for good only when nobody else has them any more.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Tallied>);

#[derive(Default)]
struct Tallied {
    /// Counters that may still grow.
    open: Vec<Arc<Counters>>,
    /// How many there were when the others were last added up.
    left_open: usize,
    /// The sum of all others.
    closed: Counts,
}

impl Tally {
    /// Counters for one more session.
    pub(crate) fn open(&self) -> Arc<Counters> {
        let mut tallied = self.0.lock();
        // So that a session costs the same however many there are.
        if tallied.open.len() >= 2 * tallied.left_open + OPEN_FEW {
            tallied.close();
        }
        let counters = Arc::new(Counters::default());
        tallied.open.push(counters.clone());
        counters
    }

    /// The sum of all counters.
    pub(crate) fn total(&self) -> Counts {
        let mut tallied = self.0.lock();
        tallied.close();
        let mut total = tallied.closed;
        tallied.open.iter().for_each(|counters| total += counters.counts());
        total
    }
}

impl Tallied {
    /// Adds up those that nobody else has any more.
    fn close(&mut self) {
        for counters in std::mem::take(&mut self.open) {
            match Arc::try_unwrap(counters) {
                Ok(last) => self.closed += last.counts(),
                Err(counters) => self.open.push(counters),
            }
        }
        self.left_open = self.open.len();
    }
}

/// Counts of the committer's work for all sessions together.
#[derive(Default)]
pub(crate) struct Commits {
    /// Batches in all transactions.
    pub(crate) batches: AtomicU64,
    /// How long the store takes for a transaction, with the batches of all sessions that waited, and for
    /// the contents before it.
    pub(crate) transaction: Latency,
    /// How long batches take that become durable: from when they are due.
    pub(crate) batch: Latency,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_has_each_count_once_also_one_that_is_made_after_its_sessions_end() {
        let tally = Tally::default();
        let ops = || tally.total().ops;
        let (first, second) = (tally.open(), tally.open());
        add(&first.ops, 5);
        add(&second.ops, 7);
        assert_eq!(ops(), 12);
        // The session is over, and a task of it is not.
        let task = first.clone();
        drop(first);
        assert_eq!(ops(), 12);
        add(&task.ops, 1);
        drop(task);
        assert_eq!(ops(), 13);
        (0..10_000).for_each(|_| add(&tally.open().ops, 1));
        assert!(tally.0.lock().open.len() < 2 * OPEN_FEW);
        assert_eq!(ops(), 10_013);
    }
}
