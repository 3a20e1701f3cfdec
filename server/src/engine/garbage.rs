//! Contents, and parts of contents, that nothing reaches any more, and how their bytes go.
//!
//! **Invariant:** a content is removed only when nothing committed refers to it and no session can
//! still make it: garbage is final, since only what refers to a content can refer to it anew.
//! What was never heard of is set aside instead: another database may know it.
//!
//! **Invariant:** a part of a sealed content is given back only when nothing committed reaches it. That
//! is final, too: what a session has not committed yet got its part from what is committed, and a
//! sealed content is never written to. A content that is not sealed is left to its node's session.

use std::sync::Arc;

use tokio::sync::Notify;
use xfer_protocol::ContentId;

use super::tree::Stores;
use crate::store::{AccountId, StoreError};

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

/// Sets aside contents that an earlier run of the server left without a committed reference: those
/// with numbers below `first`, which is the first number that this run may grant. They are not
/// removed, since this can't tell whether the database is the one that they belong to.
///
/// # Errors
/// [`StoreError::Older`] if it is not, by the numbers that there are; then nothing is set aside.
pub(super) fn sweep(stores: &Stores, first: u64) -> Result<(), StoreError> {
    let (mut found, mut known) = (Vec::new(), 0);
    stores.contents.each(&mut |content| {
        known = known.max(content.0.saturating_add(1));
        if content.0 < first {
            found.push(content);
        }
    })?;
    // Asked for after the listing: what this run has made by then is below it.
    let end = stores.meta.ids_end()?;
    if known > end {
        return Err(StoreError::Older { end, known });
    }
    let (mut count, mut bytes) = (0, 0);
    for content in found {
        if !stores.meta.content_exists(content)? {
            bytes += stores.contents.set_aside(content)?;
            count += 1;
        }
    }
    if count > 0 {
        tracing::info!(count, bytes, "moved contents that no file has to contents/lost");
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

/// Gives back all space that nothing reaches: first that of whole contents. What can't be given back
/// stays for the next time, and keeps nothing else.
///
/// # Errors
/// The first of them, after all else is done.
pub(super) fn collect(stores: &Stores) -> Result<(), StoreError> {
    let removed = remove_garbage(stores);
    let trimmed = trim(stores);
    removed.and(trimmed)
}

fn remove_garbage(stores: &Stores) -> Result<(), StoreError> {
    let (mut after, mut result) = (None, Ok(()));
    loop {
        let garbage = stores.meta.garbage(after, STEP_COUNT)?;
        let mut removed = Vec::new();
        for content in &garbage {
            match stores.contents.remove(*content) {
                Ok(()) => removed.push(*content),
                Err(error) => result = result.and(Err(error)),
            }
        }
        if !removed.is_empty() {
            stores.meta.forget_garbage(&removed)?;
        }
        match garbage.last().filter(|_| garbage.len() == STEP_COUNT) {
            Some(last) => after = Some(*last),
            None => return result,
        }
    }
}

/// Gives back the parts of sealed contents that nothing reaches.
fn trim(stores: &Stores) -> Result<(), StoreError> {
    let (mut after, mut result) = (0, Ok(()));
    loop {
        let trims = stores.meta.trims(after, STEP_COUNT)?;
        let mut done = Vec::new();
        for trim in &trims {
            after = trim.id;
            match is_trimmed(stores, trim.content) {
                Ok(true) => done.push(*trim),
                Ok(false) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        if !done.is_empty() {
            stores.meta.forget_trims(&done)?;
        }
        if trims.len() < STEP_COUNT {
            return result;
        }
    }
}

/// Says whether it is done with the content, and not to be tried again.
fn is_trimmed(stores: &Stores, content: ContentId) -> Result<bool, StoreError> {
    let Some(reached) = stores.meta.reached(content)? else { return Ok(true) };
    match stores.contents.keep(content, &reached) {
        Ok(()) => Ok(true),
        // To make a hole can take space itself.
        Err(StoreError::Full) => Ok(false),
        Err(error) => {
            tracing::error!(%error, "a part of a content that nothing reaches stays on the disk");
            Ok(true)
        }
    }
}

/// Gives back what an earlier session of the account dropped and did not come to give back.
pub(super) fn trim_left(stores: &Stores, account: AccountId) -> Result<(), StoreError> {
    let left = stores.meta.left_trims(account)?;
    for (content, ino) in &left {
        let node = stores.meta.node(account, *ino)?;
        let data = node.as_ref().and_then(|node| node.file());
        let Some(data) = data.filter(|data| data.content == Some(*content)) else { continue };
        if !data.sealed {
            let runs = data.extents.data_in(data.size, 0..data.extents.end(data.size));
            stores.contents.keep(*content, &runs)?;
        }
    }
    if !left.is_empty() {
        stores.meta.forget_left_trims(account)?;
    }
    Ok(())
}
