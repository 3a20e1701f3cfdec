//! Counts of the work of a session and of the whole engine, for the administrator and for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

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
}

/// Counts of the committer's work for all sessions together.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// Transactions, each with the batches of all sessions that waited.
    pub(crate) transactions: AtomicU64,
    /// Batches in all transactions.
    pub(crate) batches: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
