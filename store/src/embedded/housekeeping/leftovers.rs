//! What a session wrote and did not commit, and how it leaves the disk.
//!
//! A content is written in place before the commit that says how long its file is. So a session, or a
//! server, that ends before that commit leaves bytes in a content that stays: they belong to no file,
//! and nobody is charged for them.
//!
//! A session that ends says which contents those are. They are noted in rows first, so that they are
//! found though the server ends just then. After that the session counts as *tidied*. One whose server
//! was killed is not: then all contents that its account's nodes can write to are looked at, when
//! the next server starts and when the next session begins.
//!
//! **Invariant:** a content that can be written to is trimmed only by who begins a session of its account,
//! or while none can begin: what a session has not committed yet must stay.

use std::time::{Duration, Instant};

use super::super::Parts;
use crate::embedded::sqlite::OwnContent;
use crate::{Account, AccountId, Left, StoreError};
use xfer_protocol::{ContentId, Epoch, Ino};

use super::garbage::remove_unreferenced;

/// How many contents are looked at in one go before a session.
const STEP_COUNT: usize = 1_000;

/// How many while no session can begin.
const UNOWNED_STEP_COUNT: usize = 64;

/// Tidies before a session of an account that has begun and did nothing yet.
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

/// Tidies after a session of this epoch, of which nothing is in a commit any more.
pub(crate) fn tidy_after(
    parts: &Parts,
    account: AccountId,
    epoch: Epoch,
    left: Left,
) -> Result<(), StoreError> {
    let Left { created, written } = left;
    let noted =
        if written.is_empty() { Ok(()) } else { trim_written(parts, account, epoch, &written) };
    let removed = remove_unreferenced(parts, created);
    noted?;
    parts.rows.note_tidied(account, epoch)?;
    removed
}

/// Rows say from when on what was committed is sure, even after a commit that failed.
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
    // What a session that began meanwhile wrote is not its predecessor's to trim.
    if unowned && undone.is_empty() { parts.rows.forget_left_trims(account) } else { Ok(()) }
}

/// Tidies after sessions that a server before this one did not bring to their end. The accounts are as
/// they were before this one let any session begin.
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
        // Who began a session tidied before it.
        if !unowned {
            return Ok(());
        }
        if !undone.is_empty() {
            parts.rows.note_left(account.id, &undone)?;
        }
        let Some(last) = some.last().filter(|_| some.len() == UNOWNED_STEP_COUNT) else { break };
        after = Some(last.ino);
        // Others want to write rows, too.
        std::thread::sleep(start.elapsed().max(Duration::from_millis(1)));
    }
    parts.rows.note_tidied(account.id, account.epoch)
}

/// Trims those of these contents that are committed as what their nodes alone have; says which must be
/// tried again.
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

/// Gives back what the nodes don't have of these contents; says which must be tried again.
fn trim(parts: &Parts, own: &[OwnContent]) -> Vec<(ContentId, Ino)> {
    let mut undone = Vec::new();
    for OwnContent { ino, content, reached } in own {
        match parts.files.keep(*content, reached) {
            Ok(()) => {}
            // To make a hole can take space itself.
            Err(StoreError::Full) => undone.push((*content, *ino)),
            Err(error) => {
                tracing::error!(%error, "a part of a content that no file has stays on the disk");
            }
        }
    }
    undone
}
