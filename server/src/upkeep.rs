//! What a server sees to besides its sessions: that its database belongs to its contents, and that
//! what was set aside goes in time.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use crate::store::{FileStore, MetaStore, SqliteStore, StoreError};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What is to become of a database that is older than the contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OlderDatabase {
    /// It is refused.
    Refuse,
    /// An administrator says that it is to be used all the same.
    Accept,
}

/// Makes sure that the database belongs to the contents, and brings back those that it refers to.
/// To be done before anything is made or removed.
///
/// # Errors
/// [`StoreError::Older`] if it does not belong to them and that is refused.
pub fn prepare(
    meta: &SqliteStore,
    contents: &FileStore,
    older: OlderDatabase,
) -> Result<(), StoreError> {
    match (meta.must_be_current(contents), older) {
        (Err(StoreError::Older { known, .. }), OlderDatabase::Accept) => {
            tracing::warn!("an older database is used, as was asked for");
            meta.accept_as_current(contents, known)?;
        }
        (checked, OlderDatabase::Refuse | OlderDatabase::Accept) => checked?,
    }
    let brought_back = contents.bring_back(|content| meta.content_exists(content))?;
    if brought_back > 0 {
        tracing::info!(brought_back, "contents that had been set aside are referred to again");
    }
    Ok(())
}

/// Removes what was set aside `keep_days` days ago, now and each hour.
pub async fn forever(meta: Arc<SqliteStore>, contents: Arc<FileStore>, keep_days: u16) {
    loop {
        let (meta, contents) = (meta.clone(), contents.clone());
        let done = spawn_blocking(move || {
            // So that a database that is copied now is known to be older an hour later.
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
