//! Commands wait for the store, a question at a time.

use crate::program::exit::{Exit, Failure};

/// A thread that may wait.
pub struct Waiter(tokio::runtime::Runtime);

impl Waiter {
    /// One for this command.
    ///
    /// # Errors
    /// If the system gives it nothing to wait with.
    pub fn new() -> Result<Waiter, Failure> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().map(Waiter).map_err(
            |error| {
                let line = format!("cannot start threads ({error}); check the limits");
                Failure::new(Exit::Other, line)
            },
        )
    }

    /// Waits for something.
    pub fn wait<T>(&self, for_it: impl Future<Output = T>) -> T {
        self.0.block_on(for_it)
    }
}
