//! The wall clock, as the engine reads it.

use std::time::SystemTime;

use xfer_protocol::Timestamp;

/// A source of the time, so that tests and simulations can pass in their own.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> Timestamp;
}

/// This machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}
