//! The clocks that the core's time is read from.

use std::time::SystemTime;

use crate::core::Now;

/// Says what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Now;
}

/// The clocks of this machine. The one for measuring is tokio's, so that a paused runtime measures
/// nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let monotonic = tokio::time::Instant::now().into_std();
        Now { monotonic, wall: SystemTime::now().into() }
    }
}
