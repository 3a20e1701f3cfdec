//! What the engine does for its own sake, beside everything else, for as long as the store is open.
//!
//! Before anything is used, `aside` makes sure that the database belongs to the contents. After that,
//! `garbage` removes what nothing reaches, `leftovers` gives back what sessions wrote and did not commit,
//! and `watch` looks whether the store is still there.

mod watch;
mod aside;
mod garbage;
mod leftovers;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::{JoinSet, spawn_blocking};
use xfer_protocol::ContentId;

use super::Parts;
use crate::{Account, StoreError};

pub(super) use aside::prepare;
pub(super) use garbage::collect;
pub(super) use leftovers::{tidy_after, tidy_before};
pub(super) use watch::Watched;

/// Begins all of it. Asks the store something before it returns: no session has begun by then, and none
/// was granted numbers, so that what it writes is not taken for what an earlier run left.
pub(super) fn start(parts: &Arc<Parts>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(garbage::collect_forever(parts.clone()));
    match parts.rows.accounts() {
        Ok(accounts) => drop(tasks.spawn(tidy(parts.clone(), accounts))),
        Err(error) => tracing::warn!(%error, "what earlier sessions left stays for now"),
    }
    match parts.rows.grant_ids(1) {
        Ok(range) => drop(tasks.spawn(sweep(parts.clone(), ContentId(range.first)))),
        Err(error) => tracing::warn!(%error, "an earlier run's contents are not swept"),
    }
    tasks.spawn(clear_removed(parts.clone()));
    if let Some((watched, keep_days)) = parts.watched.clone() {
        tasks.spawn(aside::free_forever(watched.clone(), keep_days));
        let parts = parts.clone();
        tasks.spawn(async move { parts.fail(watched.gone().await) });
    }
    tasks
}

async fn tidy(parts: Arc<Parts>, accounts: Vec<Account>) {
    // A panic has its own line, and ends nothing else.
    let _ = spawn_blocking(move || leftovers::tidy_after_crash(&parts, &accounts)).await;
}

/// Sets aside what an earlier run left.
async fn sweep(parts: Arc<Parts>, first: ContentId) {
    let swept = parts.clone();
    match spawn_blocking(move || garbage::sweep(&swept, first)).await {
        Ok(Err(error @ StoreError::Older { .. })) => parts.fail(error),
        Ok(Err(error)) => {
            tracing::warn!(%error, "contents that were never committed stay for now");
        }
        Ok(Ok(())) | Err(_) => {}
    }
}

/// Resumes removals of accounts that were interrupted. If this is, the next start does.
async fn clear_removed(parts: Arc<Parts>) {
    let cleared = spawn_blocking(move || parts.rows.clear_removed(SystemTime::now().into())).await;
    if let Ok(Err(error)) = cleared {
        tracing::error!(%error, "what removed accounts had stays for now");
    }
}
