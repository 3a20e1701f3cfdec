//! Reclaiming contents, and parts of contents, that are no longer reachable.
//!
//! **Invariant:** a content is removed only when no committed row refers to it and no session can
//! create it any more. Garbage is final, since only a row that refers to a content can pass the
//! reference on. A content unknown to the database is set aside instead: it may belong to another
//! database.
//!
//! **Invariant:** a part of a sealed content is reclaimed only when no committed row reaches it.
//! That is final, too: uncommitted changes got their parts from committed rows, and a sealed
//! content is never written to. An unsealed content is left to its node's session, and to
//! `leftovers`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use xfer_protocol::{ContentId, IdRange};

use super::super::Parts;
use crate::StoreError;

/// The number of contents in one step.
const STEP_COUNT: usize = 1_000;

/// The interval between checks for commits by other processes, which may leave garbage without any
/// signal.
const OTHERS_INTERVAL: Duration = Duration::from_secs(5);

/// Removes garbage whenever there may be some: after a signal, or after a commit by another
/// process. Runs until it is aborted.
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

/// `None` if the database can't tell; the next commit will report the reason.
async fn others_commits(parts: &Arc<Parts>) -> Option<u64> {
    let parts = parts.clone();
    spawn_blocking(move || parts.rows.others_commits()).await.ok()?.ok()
}

/// The contents that a sweep is for: those that an earlier run of the server may have created, and
/// that no session can create any more.
#[derive(Clone)]
pub(super) struct Earlier {
    /// The first number that this run may grant.
    pub(super) end: ContentId,
    /// The numbers with which sessions that can be resumed may create contents, sorted.
    pub(super) granted: Vec<IdRange>,
}

impl Earlier {
    fn has(&self, content: ContentId) -> bool {
        let at = self.granted.partition_point(|range| range.first <= content.0);
        let may_be_created = at > 0 && self.granted[at - 1].contains(content.0);
        content < self.end && !may_be_created
    }
}

/// Sets aside contents that an earlier run of the server left without a committed reference. They
/// are not removed, since the sweep can't be sure that the database is the one they belong to.
///
/// # Errors
/// [`StoreError::Older`] if the contents have higher numbers than the database knows; then none is
/// set aside.
pub(super) fn sweep(parts: &Parts, earlier: &Earlier) -> Result<(), StoreError> {
    let (mut found, mut known) = (Vec::new(), 0);
    parts.files.each(&mut |content| {
        known = known.max(content.0.saturating_add(1));
        if earlier.has(content) {
            found.push(content);
        }
    })?;
    // Read after the listing, so that it is above all contents that this run has created by then.
    let end = parts.rows.ids_end()?;
    if known > end {
        return Err(StoreError::Older { end, known });
    }
    let (mut count, mut bytes) = (0, 0);
    for content in found {
        if !parts.rows.content_is_known(content)?
            && let Some(size) = parts.files.set_aside(content)?
        {
            bytes += size;
            count += 1;
        }
    }
    if count > 0 {
        tracing::info!(count, bytes, "moved contents that no file has to contents/lost");
    }
    Ok(())
}

/// Removes those of `contents` that no committed row refers to.
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

/// Reclaims all unreachable space, first that of whole contents. A failure leaves its content for
/// the next round and does not stop the others.
///
/// # Errors
/// The first failure, once everything else is done.
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

/// Reclaims unreachable parts of sealed contents.
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

/// Returns whether the trim is finished and need not be tried again.
fn is_trimmed(parts: &Parts, content: ContentId) -> Result<bool, StoreError> {
    let Some(reached) = parts.rows.reached(content)? else { return Ok(true) };
    match parts.files.keep(content, &reached) {
        Ok(()) => Ok(true),
        // Punching a hole can itself take space.
        Err(StoreError::Full) => Ok(false),
        Err(error) => {
            tracing::error!(%error, "a part of a content that nothing reaches stays on the disk");
            Ok(true)
        }
    }
}
