//! Watches that the store is still in its place while nothing is written to it: whoever asks nothing
//! of a store that is gone is told all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::store::{FileStore, SqliteStore, StoreError, StoreLock};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// All that must stay in its place while a server runs.
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
    /// Makes sure that all of it is.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if something is not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.lock.check()?;
        self.meta.check()?;
        self.contents.check()
    }

    /// Completes when something is not in its place any more.
    pub async fn gone(self) -> StoreError {
        loop {
            let watched = self.clone();
            // One that does not answer hangs in the disk, as does everything else then.
            if let Ok(Err(error)) = spawn_blocking(move || watched.check()).await {
                return error;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
