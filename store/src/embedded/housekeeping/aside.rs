//! At the start, checks that contents and database belong together. Later removes contents that
//! were set aside, after some days.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::Watched;
use crate::StoreError;
use crate::embedded::{FileStore, OlderDatabase, SqliteStore};

/// The interval between rounds.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Checks that the database belongs to the contents, and restores contents that were set aside but
/// are referred to. Must run before any content is created or removed.
///
/// # Errors
/// [`StoreError::Older`] if the database is older and the settings refuse that.
pub(crate) fn prepare(
    rows: &SqliteStore,
    files: &FileStore,
    older: OlderDatabase,
) -> Result<(), StoreError> {
    match (rows.must_be_current(files), older) {
        (Err(StoreError::Older { known, .. }), OlderDatabase::Accept) => {
            tracing::warn!("using a database that is older than the contents, as requested");
            rows.accept_as_current(files, known)?;
        }
        (checked, OlderDatabase::Refuse | OlderDatabase::Accept) => checked?,
    }
    let brought_back = files.bring_back(|content| rows.content_exists(content))?;
    if brought_back > 0 {
        tracing::info!(brought_back, "restored contents that had been set aside");
    }
    Ok(())
}

/// Removes contents that were set aside more than `keep_days` days ago: now, then every hour.
pub(super) async fn free_forever(store: Watched, keep_days: u16) {
    loop {
        let Watched { rows, files, .. } = store.clone();
        let done = spawn_blocking(move || {
            // The grant makes any copy of the database taken by now detectably older within the
            // hour.
            rows.grant_ids(1)?;
            let last = OffsetDateTime::now_utc().date() - time::Duration::days(keep_days.into());
            files.free_set_aside(last)
        });
        match done.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(days)) => tracing::info!(days, "removed contents that had been set aside"),
            Ok(Err(error)) => tracing::warn!(%error, "contents that were set aside stay for now"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
