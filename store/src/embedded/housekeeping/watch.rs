//! Checks every second that the store is still in place, so that idle sessions, too, learn of its
//! loss.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::StoreError;
use crate::embedded::{FileStore, SqliteStore, StoreLock};

/// The interval between checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a store that must stay in place while a server runs.
#[derive(Clone)]
pub(crate) struct Watched {
    /// The server's lock, with the store's directory.
    pub(crate) lock: &'static StoreLock,
    /// The store's database.
    pub(crate) rows: Arc<SqliteStore>,
    /// The store's contents.
    pub(crate) files: Arc<FileStore>,
}

impl Watched {
    /// Checks that all parts are in place.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if one is missing or replaced.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.lock.check()?;
        self.rows.check()?;
        self.files.check()
    }

    /// Resolves when a part is no longer in place.
    pub(super) async fn gone(self) -> StoreError {
        loop {
            let watched = self.clone();
            // If the disk hangs, this hangs too, like everything else.
            if let Ok(Err(error)) = spawn_blocking(move || watched.check()).await {
                return error;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
