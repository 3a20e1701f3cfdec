//! Reclaiming data that a session wrote but did not commit.
//!
//! A content is written in place before the commit that records the length of its file. So if a
//! session or a server ends before that commit, bytes remain in a content that stays. They belong
//! to no file and are charged to no account.
//!
//! A session that ends lists those contents. They are first noted in rows, so that they are found
//! even if the server dies in that moment. After that the session counts as *tidied*. If the server
//! was killed, its sessions are not tidied: then all contents that the account's nodes can write to
//! are checked when the next server starts and when the next session begins.
//!
//! **Invariant:** a content that can be written to is trimmed only by the session that begins on
//! its account, or while none can begin: a running session's uncommitted data must stay.

use std::time::{Duration, Instant};

use super::super::Parts;
use crate::embedded::sqlite::OwnContent;
use crate::{Account, AccountId, Left, StoreError};
use xfer_protocol::{ContentId, Epoch, Ino};

use super::garbage::remove_unreferenced;

/// The number of contents in one step before a session.
const STEP_COUNT: usize = 1_000;

/// The number of contents in one step while no session can begin.
const UNOWNED_STEP_COUNT: usize = 64;

/// Tidies for a session that has begun on the account and has not done anything yet.
pub(crate) fn tidy_before(parts: &Parts, account: &Account) -> Result<(), StoreError> {
    let noted = parts.rows.left_trims(account.id)?;
    let undone = trim_noted(parts, account.id, &noted)?;
    if !noted.is_empty() && undone.is_empty() {
        parts.rows.forget_left_trims(account.id)?;
    }
    if account.tidied.0 + 1 >= account.epoch.0 {
        return Ok(());
    }
    let (mut after, mut undone) = (None, Vec::new());
    loop {
        let some = parts.rows.own_contents(account.id, after, STEP_COUNT)?;
        undone.extend(trim(parts, &some));
        match some.last().filter(|_| some.len() == STEP_COUNT) {
            Some(last) => after = Some(last.ino),
            None => break,
        }
    }
    if undone.is_empty() { Ok(()) } else { parts.rows.note_left(account.id, &undone) }
}

/// Tidies after a session of this epoch, once no commit holds a batch of it any more.
pub(crate) fn tidy_after(
    parts: &Parts,
    account: AccountId,
    epoch: Epoch,
    left: Left,
) -> Result<(), StoreError> {
    let Left { created, written } = left;
    let noted =
        if written.is_empty() { Ok(()) } else { trim_written(parts, account, epoch, &written) };
    let removed = remove_created(parts, account, epoch, &created);
    noted?;
    parts.rows.note_tidied(account, epoch)?;
    removed
}

/// Removes contents that the session created and did not commit. If it goes on in a later epoch,
/// they stay, since it may have created them again; then the next start sets aside those that it
/// did not.
fn remove_created(
    parts: &Parts,
    account: AccountId,
    epoch: Epoch,
    created: &[ContentId],
) -> Result<(), StoreError> {
    for some in created.chunks(UNOWNED_STEP_COUNT) {
        parts.rows.unless_begun_since(account, epoch, &mut || {
            remove_unreferenced(parts, some.iter().copied())
        })?;
    }
    Ok(())
}

/// Writes the note first: once it is durable, no earlier commit that failed can still take effect,
/// so the rows are certain.
fn trim_written(
    parts: &Parts,
    account: AccountId,
    epoch: Epoch,
    written: &[(ContentId, Ino)],
) -> Result<(), StoreError> {
    parts.rows.note_left(account, written)?;
    let mut undone = Vec::new();
    let unowned = parts.rows.while_unowned(account, epoch, &mut || {
        undone = trim_noted(parts, account, written)?;
        Ok(())
    })?;
    // If a session began meanwhile, its own writes must not be trimmed here.
    if unowned && undone.is_empty() { parts.rows.forget_left_trims(account) } else { Ok(()) }
}

/// Tidies after sessions that a previous server did not end properly. `accounts` is a snapshot from
/// before this server let any session begin.
pub(super) fn tidy_after_crash(parts: &Parts, accounts: &[Account]) {
    for account in accounts.iter().filter(|account| account.tidied < account.epoch) {
        if let Err(error) = tidy_unowned(parts, account) {
            let user = &account.name;
            tracing::warn!(%user, %error, "what a session did not commit stays on the disk for now");
        }
    }
}

fn tidy_unowned(parts: &Parts, account: &Account) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let start = Instant::now();
        let (mut some, mut undone) = (Vec::new(), Vec::new());
        let unowned = parts.rows.while_unowned(account.id, account.epoch, &mut || {
            some = parts.rows.own_contents(account.id, after, UNOWNED_STEP_COUNT)?;
            undone = trim(parts, &some);
            Ok(())
        })?;
        // A session that began since has tidied before it started.
        if !unowned {
            return Ok(());
        }
        if !undone.is_empty() {
            parts.rows.note_left(account.id, &undone)?;
        }
        let Some(last) = some.last().filter(|_| some.len() == UNOWNED_STEP_COUNT) else { break };
        after = Some(last.ino);
        // Leaves the write lock to others for a while.
        std::thread::sleep(start.elapsed().max(Duration::from_millis(1)));
    }
    parts.rows.note_tidied(account.id, account.epoch)
}

/// Trims those of these contents that, according to the committed rows, belong to their node alone.
/// Returns those to be tried again.
fn trim_noted(
    parts: &Parts,
    account: AccountId,
    noted: &[(ContentId, Ino)],
) -> Result<Vec<(ContentId, Ino)>, StoreError> {
    let mut own = Vec::new();
    for (content, ino) in noted {
        let node = parts.rows.node(account, *ino)?;
        let data = node.as_ref().and_then(|node| node.file());
        if let Some(data) = data.filter(|data| data.content == Some(*content) && !data.sealed) {
            let reached = data.extents.data_in(data.size, 0..data.extents.end(data.size));
            own.push(OwnContent { ino: *ino, content: *content, reached });
        }
    }
    Ok(trim(parts, &own))
}

/// Reclaims the parts of these contents that their nodes don't have. Returns those to be tried
/// again.
fn trim(parts: &Parts, own: &[OwnContent]) -> Vec<(ContentId, Ino)> {
    let mut undone = Vec::new();
    for OwnContent { ino, content, reached } in own {
        match parts.files.keep(*content, reached) {
            Ok(()) => {}
            // Punching a hole can itself take space.
            Err(StoreError::Full) => undone.push((*content, *ino)),
            Err(error) => {
                tracing::error!(%error, "a part of a content that no file has stays on the disk");
            }
        }
    }
    undone
}
