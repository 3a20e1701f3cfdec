//! The time of an attempt or an event, as it is passed in: the core reads no clock.

use std::time::Instant;

use xfer_protocol::Timestamp;

/// A moment, on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For measuring: never goes backwards.
    pub monotonic: Instant,
    /// For the times of files: whatever this machine's clock shows.
    pub wall: Timestamp,
}
