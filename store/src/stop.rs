//! An order to stop, for calls that may take long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::StoreError;

/// An order to stop, which has been given or not. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Gives the order.
    pub fn order(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`StoreError::Stopped`] once the order has been given.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::Relaxed) { Err(StoreError::Stopped) } else { Ok(()) }
    }
}
