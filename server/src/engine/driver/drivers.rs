//! The drivers of all sessions. They are tasks of the engine, so they outlive links.

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::engine::driver::Driver;

/// The drivers' tasks. Dropping this aborts those that still run.
#[derive(Default)]
pub(crate) struct Drivers(Mutex<JoinSet<()>>);

impl Drivers {
    /// Runs a driver until its session is over.
    pub(crate) fn spawn(&self, driver: Driver) {
        let mut tasks = self.0.lock();
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a session's task failed");
            }
        }
        tasks.spawn(driver.run());
    }
}
