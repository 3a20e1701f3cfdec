//! Reclaiming data that a session wrote but did not commit.
//!
//! A content is written in place before the commit that records the length of its file. So if a
//! session or a server ends before that commit, bytes remain in a content that stays. They belong
//! to no file and are charged to no account.
//!
//! A session that ends lists those contents. They are first noted in rows, so that they are found
//! even if the server dies in that moment. After that the session counts as *tidied*. If the server
//! was killed, its sessions are not tidied: then all contents that the account's nodes can write to
//! are looked through, once the account has no session.
//!
//! Nobody waits for that. Such bytes can't be read, whatever a later session writes around them: see
//! `xfer_protocol::tree::rules`. And the client that wrote them mostly comes back, and writes them again.
//!
//! **Invariant:** a content that can be written to is trimmed only by the session that begins on
//! its account, or while none can begin: a running session's uncommitted data must stay.

use std::time::{Duration, Instant};

use super::super::Parts;
use crate::embedded::sqlite::OwnContent;
use crate::{AccountId, Left, StoreError};
use xfer_protocol::{ContentId, Epoch, Ino};

use super::garbage::remove_unreferenced;

/// The number of contents in one step while no session can begin.
const STEP_COUNT: usize = 64;

/// An account whose sessions, up to the one of this epoch, are over, and may have left data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untidy {
    account: AccountId,
    epoch: Epoch,
}

/// Reclaims what is noted, for a session that has begun on the account and has not done anything yet.
pub(crate) fn trim_left(parts: &Parts, account: AccountId) -> Result<(), StoreError> {
    let noted = parts.rows.left_trims(account)?;
    let undone = trim_noted(parts, account, &noted)?;
    if !noted.is_empty() && undone.is_empty() {
        parts.rows.forget_left_trims(account)?;
    }
    Ok(())
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
    if !parts.rows.note_session_tidied(account, epoch)? {
        // A command has nobody who looks through; the server does so later.
        let _ = parts.untidy.send(Untidy { account, epoch });
    }
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
    for some in created.chunks(STEP_COUNT) {
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

/// The accounts whose last sessions a previous server did not end properly. To be called before any
/// session of this server begins.
pub(super) fn untidy(parts: &Parts) -> Result<Vec<Untidy>, StoreError> {
    let accounts = parts.rows.accounts()?.into_iter();
    let untidy = accounts.filter(|account| account.tidied < account.epoch);
    Ok(untidy.map(|account| Untidy { account: account.id, epoch: account.epoch }).collect())
}

/// Looks through all contents of an account, unless another session begins.
pub(super) fn tidy_unowned(parts: &Parts, untidy: Untidy) {
    if let Err(error) = look_through(parts, untidy) {
        let account = untidy.account;
        tracing::warn!(?account, %error, "what a session did not commit stays on the disk for now");
    }
}

fn look_through(parts: &Parts, untidy: Untidy) -> Result<(), StoreError> {
    let Untidy { account, epoch } = untidy;
    let mut after = None;
    loop {
        let start = Instant::now();
        let (mut some, mut undone) = (Vec::new(), Vec::new());
        let unowned = parts.rows.while_unowned(account, epoch, &mut || {
            some = parts.rows.own_contents(account, after, STEP_COUNT)?;
            undone = trim(parts, &some);
            Ok(())
        })?;
        // The end of the next session of a client has the account looked through.
        if !unowned {
            return Ok(());
        }
        if !undone.is_empty() {
            parts.rows.note_left(account, &undone)?;
        }
        let Some(last) = some.last().filter(|_| some.len() == STEP_COUNT) else { break };
        after = Some(last.ino);
        // Leaves the write lock to others for a while.
        std::thread::sleep(start.elapsed().max(Duration::from_millis(1)));
    }
    parts.rows.note_all_tidied(account, epoch)
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
