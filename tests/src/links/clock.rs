//! A clock that goes with tokio's, so that a paused runtime moves it.

use tokio::time::Instant;
use xfer_client::core::Now;
use xfer_protocol::Timestamp;

/// When it starts, in seconds since 1970.
const START_S: i64 = 1_700_000_000;

/// The clock of a simulation, for clients and server alike.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    start: Instant,
}

impl VirtualClock {
    /// A clock that starts now. Must be called within a tokio runtime.
    pub fn start() -> VirtualClock {
        VirtualClock { start: Instant::now() }
    }

    fn wall(&self) -> Timestamp {
        let since = self.start.elapsed();
        Timestamp::new(START_S + since.as_secs() as i64, since.subsec_nanos()).unwrap()
    }
}

impl xfer_client::drive::Clock for VirtualClock {
    fn now(&self) -> Now {
        Now { monotonic: Instant::now().into_std(), wall: self.wall() }
    }
}

impl xfer_server::engine::Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.wall()
    }
}
