//! The time of an attempt or an event. It is passed in, since the core reads no clock.

use std::time::Instant;

use xfer_protocol::Timestamp;

/// A moment, on both of the machine's clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For measuring durations: it never goes backwards.
    pub monotonic: Instant,
    /// For the times of files. It is as right as this machine's clock, and may jump.
    pub wall: Timestamp,
}
