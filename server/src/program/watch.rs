//! Checks every second that the store is still in place, so that idle sessions, too, are told when it
//! is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use xfer_store::{FileStore, SqliteStore, StoreError, StoreLock};

/// The interval between checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a store that must stay in place while a server runs.
#[derive(Clone)]
pub struct Watched {
    /// The server's lock, with the store's directory.
    pub lock: &'static StoreLock,
    /// The store's database.
    pub meta: Arc<SqliteStore>,
    /// The store's contents.
    pub contents: Arc<FileStore>,
}

impl Watched {
    /// Checks that all parts are in place.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if one is missing or replaced.
    pub fn check(&self) -> Result<(), StoreError> {
        self.lock.check()?;
        self.meta.check()?;
        self.contents.check()
    }

    /// Resolves when a part is no longer in place.
    pub async fn gone(self) -> StoreError {
        loop {
            let watched = self.clone();
            // If the disk hangs, this hangs too, as everything else does.
            if let Ok(Err(error)) = spawn_blocking(move || watched.check()).await {
                return error;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
