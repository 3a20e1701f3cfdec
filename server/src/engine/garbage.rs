//! Contents that nothing refers to any more, and how their bytes go.
//!
//! **Invariant:** a content is removed only when nothing committed refers to it and no session can
//! still make it: garbage is final, since only what refers to a content can refer to it anew.

use std::sync::Arc;

use tokio::sync::Notify;
use xfer_protocol::ContentId;

use super::tree::Stores;
use crate::store::StoreError;

/// How many contents are looked at in one go.
const STEP_COUNT: usize = 1_000;

/// Removes garbage whenever it is told that there may be some, for as long as it is let.
pub(super) async fn collect_forever(stores: Stores, wake: Arc<Notify>) {
    loop {
        let stores = stores.clone();
        let done = tokio::task::spawn_blocking(move || collect(&stores)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, "garbage stays for now");
        }
        wake.notified().await;
    }
}

/// Removes contents that an earlier run of the server left without a committed reference: those
/// with numbers below `first`, which is the first number that this run may grant.
pub(super) fn sweep(stores: &Stores, first: u64) -> Result<(), StoreError> {
    let mut found = Vec::new();
    stores.contents.each(&mut |content| {
        if content.0 < first {
            found.push(content);
        }
    })?;
    let swept = remove_unreferenced(stores, found)?;
    if swept > 0 {
        tracing::info!(swept, "removed contents that were never committed");
    }
    Ok(())
}

/// Removes those of `contents` that nothing committed refers to, and says how many.
pub(super) fn remove_unreferenced(
    stores: &Stores,
    contents: impl IntoIterator<Item = ContentId>,
) -> Result<usize, StoreError> {
    let mut count = 0;
    for content in contents {
        if !stores.meta.content_exists(content)? {
            stores.contents.remove(content)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Removes all garbage that there is.
pub(super) fn collect(stores: &Stores) -> Result<(), StoreError> {
    loop {
        let garbage = stores.meta.garbage(STEP_COUNT)?;
        for content in &garbage {
            stores.contents.remove(*content)?;
        }
        if !garbage.is_empty() {
            stores.meta.forget_garbage(&garbage)?;
        }
        if garbage.len() < STEP_COUNT {
            return Ok(());
        }
    }
}
