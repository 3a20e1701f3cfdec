//! A server's work besides sessions: at the start it checks that the database belongs to the
//! contents, and every hour it removes contents that were set aside long enough ago.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use xfer_store::{FileStore, MetaStore, SqliteStore, StoreError};

/// The interval between rounds.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What to do with a database that is older than the contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OlderDatabase {
    /// Refuse to start.
    Refuse,
    /// Use it, as the administrator asked.
    Accept,
}

/// Makes sure that the database belongs to the contents, and restores contents that were set aside
/// but that it refers to. Must run before any content is created or removed.
///
/// # Errors
/// [`StoreError::Older`] if the database is older and that is refused.
pub fn prepare(
    meta: &SqliteStore,
    contents: &FileStore,
    older: OlderDatabase,
) -> Result<(), StoreError> {
    match (meta.must_be_current(contents), older) {
        (Err(StoreError::Older { known, .. }), OlderDatabase::Accept) => {
            tracing::warn!("using a database that is older than the contents, as requested");
            meta.accept_as_current(contents, known)?;
        }
        (checked, OlderDatabase::Refuse | OlderDatabase::Accept) => checked?,
    }
    let brought_back = contents.bring_back(|content| meta.content_exists(content))?;
    if brought_back > 0 {
        tracing::info!(brought_back, "restored contents that had been set aside");
    }
    Ok(())
}

/// Removes contents that were set aside more than `keep_days` days ago: now, then every hour.
pub async fn forever(meta: Arc<SqliteStore>, contents: Arc<FileStore>, keep_days: u16) {
    loop {
        let (meta, contents) = (meta.clone(), contents.clone());
        let done = spawn_blocking(move || {
            // This makes a copy of the database taken now detectably older within the hour.
            meta.grant_ids(1)?;
            let last = OffsetDateTime::now_utc().date() - time::Duration::days(keep_days.into());
            contents.free_set_aside(last)
        });
        match done.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(days)) => tracing::info!(days, "removed contents that had been set aside"),
            Ok(Err(error)) => tracing::warn!(%error, "contents that were set aside stay for now"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
