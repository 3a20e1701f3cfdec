//! The engine's background work, for as long as the store is open.
//!
//! Before the store is used, `aside` checks that the database belongs to the contents. After that,
//! `garbage` removes unreachable contents, `leftovers` reclaims data that sessions did not commit,
//! and `watch` checks that the store is still in place. `measuring` says how much space it takes.
//! Removed accounts are deleted when their days are over.

mod watch;
mod aside;
mod garbage;
mod leftovers;
mod measuring;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinSet, spawn_blocking};
use xfer_protocol::ContentId;

use super::Parts;
use crate::StoreError;

pub(super) use aside::prepare;
use garbage::Earlier;
pub(super) use garbage::collect;
pub(super) use leftovers::{Untidy, tidy_after, trim_left};
pub(super) use measuring::{Measured, size};
pub(super) use watch::Watched;

/// How often accounts are looked for whose days are over.
const DELETION_EVERY: Duration = Duration::from_secs(60);

/// Starts all of it. Queries the store before it returns: at that point no session has begun and no
/// numbers were granted, so the work of this run can't be mistaken for what an earlier one left.
pub(super) fn start(parts: &Arc<Parts>, later: UnboundedReceiver<Untidy>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(garbage::collect_forever(parts.clone()));
    let untidy = leftovers::untidy(parts).unwrap_or_else(|error| {
        tracing::warn!(%error, "what earlier sessions left stays for now");
        Vec::new()
    });
    tasks.spawn(tidy(parts.clone(), untidy, later));
    match earlier(parts) {
        Ok(earlier) => drop(tasks.spawn(sweep(parts.clone(), earlier))),
        Err(error) => tracing::warn!(%error, "an earlier run's contents are not swept"),
    }
    tasks.spawn(clear_deleted(parts.clone()));
    if let Some((watched, keep_days)) = parts.watched.clone() {
        tasks.spawn(aside::free_forever(watched.clone(), keep_days));
        let parts = parts.clone();
        tasks.spawn(async move { parts.fail(watched.gone().await) });
    }
    tasks
}

/// The contents of earlier runs.
fn earlier(parts: &Parts) -> Result<Earlier, StoreError> {
    let end = ContentId(parts.rows.grant_ids(1)?.first);
    Ok(Earlier { end, granted: parts.rows.granted()? })
}

/// Looks through untidy accounts, and those that become so later. Runs until it is aborted.
async fn tidy(parts: Arc<Parts>, untidy: Vec<Untidy>, mut later: UnboundedReceiver<Untidy>) {
    for untidy in untidy {
        tidy_one(&parts, untidy).await;
    }
    while let Some(untidy) = later.recv().await {
        tidy_one(&parts, untidy).await;
    }
}

async fn tidy_one(parts: &Arc<Parts>, untidy: Untidy) {
    let parts = parts.clone();
    // A panic is logged separately and stops no other work.
    let _ = spawn_blocking(move || leftovers::tidy_unowned(&parts, untidy)).await;
}

/// Sets aside unreferenced contents of an earlier run.
async fn sweep(parts: Arc<Parts>, earlier: Earlier) {
    let swept = parts.clone();
    match spawn_blocking(move || garbage::sweep(&swept, &earlier)).await {
        Ok(Err(error @ StoreError::Older { .. })) => parts.fail(error),
        Ok(Err(error)) => {
            tracing::warn!(%error, "contents that were never committed stay for now");
        }
        Ok(Ok(())) | Err(_) => {}
    }
}

/// Deletes the accounts that are to be deleted: at the start those of an interrupted deletion, and
/// removed ones as their days are over. If this is interrupted, the next look resumes it. Runs until it
/// is aborted.
async fn clear_deleted(parts: Arc<Parts>) {
    let mut looks = tokio::time::interval(DELETION_EVERY);
    loop {
        looks.tick().await;
        let cleared = parts.clone();
        let now = SystemTime::now().into();
        match spawn_blocking(move || cleared.rows.clear_deleted(now)).await {
            // Their contents are garbage.
            Ok(Ok(true)) => parts.wake.notify_one(),
            Ok(Err(error)) => tracing::error!(%error, "what deleted accounts had stays for now"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}
