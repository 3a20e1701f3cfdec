//! Contents, and parts of contents, that nothing reaches any more, and how their bytes go.
//!
//! **Invariant:** a content is removed only when nothing committed refers to it and no session can
//! still make it: garbage is final, since only what refers to a content can refer to it anew.
//! What was never heard of is set aside instead: another database may know it.
//!
//! **Invariant:** a part of a sealed content is given back only when nothing committed reaches it. That
//! is final, too: what a session has not committed yet got its part from what is committed, and a
//! sealed content is never written to. A content that is not sealed is left to its node's session, and
//! to `leftovers`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use xfer_protocol::ContentId;

use super::super::Parts;
use crate::StoreError;

/// How many contents are looked at in one go.
const STEP_COUNT: usize = 1_000;

/// How often it is asked whether another process has committed something: it may have left garbage, and
/// tells nobody.
const OTHERS_INTERVAL: Duration = Duration::from_secs(5);

/// Removes garbage whenever there may be some: when it is told so, or another process has committed
/// something. For as long as it is let.
pub(super) async fn collect_forever(parts: Arc<Parts>) {
    let mut seen = others_commits(&parts).await;
    loop {
        let collected = parts.clone();
        if let Ok(Err(error)) = spawn_blocking(move || collect(&collected)).await {
            tracing::warn!(%error, "garbage stays for now");
        }
        while timeout(OTHERS_INTERVAL, parts.wake.notified()).await.is_err() {
            let now = others_commits(&parts).await;
            if std::mem::replace(&mut seen, now) != now {
                break;
            }
        }
    }
}

/// None if that can't be told: whoever commits next learns why.
async fn others_commits(parts: &Arc<Parts>) -> Option<u64> {
    let parts = parts.clone();
    spawn_blocking(move || parts.rows.others_commits()).await.ok()?.ok()
}

/// Sets aside contents that an earlier run of the server left without a committed reference: those
/// with numbers below `first`, which is the first number that this run may grant. They are not
/// removed, since this can't tell whether the database is the one that they belong to.
///
/// # Errors
/// [`StoreError::Older`] if it is not, by the numbers that there are; then nothing is set aside.
pub(super) fn sweep(parts: &Parts, first: ContentId) -> Result<(), StoreError> {
    let (mut found, mut known) = (Vec::new(), 0);
    parts.files.each(&mut |content| {
        known = known.max(content.0.saturating_add(1));
        if content < first {
            found.push(content);
        }
    })?;
    // Asked for after the listing: what this run has made by then is below it.
    let end = parts.rows.ids_end()?;
    if known > end {
        return Err(StoreError::Older { end, known });
    }
    let (mut count, mut bytes) = (0, 0);
    for content in found {
        if !parts.rows.content_exists(content)? {
            bytes += parts.files.set_aside(content)?;
            count += 1;
        }
    }
    if count > 0 {
        tracing::info!(count, bytes, "moved contents that no file has to contents/lost");
    }
    Ok(())
}

/// Removes those of `contents` that nothing committed refers to.
pub(super) fn remove_unreferenced(
    parts: &Parts,
    contents: impl IntoIterator<Item = ContentId>,
) -> Result<(), StoreError> {
    for content in contents {
        if !parts.rows.content_exists(content)? {
            parts.files.remove(content)?;
        }
    }
    Ok(())
}

/// Gives back all space that nothing reaches: first that of whole contents. What can't be given back
/// stays for the next time, and keeps nothing else.
///
/// # Errors
/// The first of them, after all else is done.
pub(crate) fn collect(parts: &Parts) -> Result<(), StoreError> {
    let removed = remove_garbage(parts);
    let trimmed = trim(parts);
    removed.and(trimmed)
}

fn remove_garbage(parts: &Parts) -> Result<(), StoreError> {
    let (mut after, mut result) = (None, Ok(()));
    loop {
        let garbage = parts.rows.garbage(after, STEP_COUNT)?;
        let mut removed = Vec::new();
        for content in &garbage {
            match parts.files.remove(*content) {
                Ok(()) => removed.push(*content),
                Err(error) => result = result.and(Err(error)),
            }
        }
        if !removed.is_empty() {
            parts.rows.forget_garbage(&removed)?;
        }
        match garbage.last().filter(|_| garbage.len() == STEP_COUNT) {
            Some(last) => after = Some(*last),
            None => return result,
        }
    }
}

/// Gives back the parts of sealed contents that nothing reaches.
fn trim(parts: &Parts) -> Result<(), StoreError> {
    let (mut after, mut result) = (0, Ok(()));
    loop {
        let trims = parts.rows.trims(after, STEP_COUNT)?;
        let mut done = Vec::new();
        for trim in &trims {
            after = trim.id;
            match is_trimmed(parts, trim.content) {
                Ok(true) => done.push(*trim),
                Ok(false) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        if !done.is_empty() {
            parts.rows.forget_trims(&done)?;
        }
        if trims.len() < STEP_COUNT {
            return result;
        }
    }
}

/// Says whether it is done with the content, and not to be tried again.
fn is_trimmed(parts: &Parts, content: ContentId) -> Result<bool, StoreError> {
    let Some(reached) = parts.rows.reached(content)? else { return Ok(true) };
    match parts.files.keep(content, &reached) {
        Ok(()) => Ok(true),
        // To make a hole can take space itself.
        Err(StoreError::Full) => Ok(false),
        Err(error) => {
            tracing::error!(%error, "a part of a content that nothing reaches stays on the disk");
            Ok(true)
        }
    }
}
