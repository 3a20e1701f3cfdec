//! Checks every second that the store is still in its place, so that idle sessions, too, are told when
//! it is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use xfer_store::{FileStore, SqliteStore, StoreError, StoreLock};

/// The time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a store that must stay in their places while a server runs.
#[derive(Clone)]
pub struct Watched {
    /// The server's lock, and the store's directory.
    pub lock: &'static StoreLock,
    /// The database.
    pub meta: Arc<SqliteStore>,
    /// The contents.
    pub contents: Arc<FileStore>,
}

impl Watched {
    /// Makes sure that all parts are in their places.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if one is not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.lock.check()?;
        self.meta.check()?;
        self.contents.check()
    }

    /// Completes when a part is no longer in its place.
    pub async fn gone(self) -> StoreError {
        loop {
            let watched = self.clone();
            // If the disk hangs, so does this, as everything else does.
            if let Ok(Err(error)) = spawn_blocking(move || watched.check()).await {
                return error;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
