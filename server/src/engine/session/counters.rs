//! Counts of what a session, or the whole engine, did: for the admin to see, and for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts that only grow.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// What [`Counters`] held at some moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The counts as they are now.
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
    /// Of those, the ones for a single node or entry.
    looks,
    /// Of those, the ones for pages of directories.
    listings,
    /// Of those, the ones for data.
    fetches,
    /// Bytes of data received with ops.
    bytes_in,
    /// Bytes of data answered on read links.
    bytes_out,
}

/// Counts of what the committer did for all sessions together.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// Transactions, each with the batches of all who waited for it.
    pub(crate) transactions: AtomicU64,
    /// Batches in them.
    pub(crate) batches: AtomicU64,
}

/// Adds to a count.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
