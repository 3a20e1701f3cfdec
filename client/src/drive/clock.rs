//! The clocks from which the core's time is read.

use std::time::SystemTime;

use crate::core::Now;

/// Gives the time.
pub trait Clock: Send + Sync + 'static {
    /// The current time, by both clocks.
    fn now(&self) -> Now;
}

/// The clocks of this machine. Durations are measured by tokio's, so that a test with a paused
/// runtime measures nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let monotonic = tokio::time::Instant::now().into_std();
        Now { monotonic, wall: SystemTime::now().into() }
    }
}
