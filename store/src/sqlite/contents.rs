//! Which contents are referred to, which are garbage; and the counter of all numbers.
//!
//! **Invariant:** a content is in `contents` (with how many nodes and deliveries refer to it), or in
//! `garbage`, or neither has heard of it; never in both. Garbage is never referred to again: its
//! bytes may go at any moment.

use rusqlite::{Connection, Transaction, params};
use xfer_protocol::{ContentId, IdRange};

use super::rows::{all, change, first, number, value};
use super::trims;
use crate::StoreError;

/// Counts references to a content: `by` more.
///
/// A content that came and went without ever being committed is told of by 0, and is garbage.
pub(super) fn refer(
    transaction: &Transaction<'_>,
    content: ContentId,
    by: i64,
) -> Result<(), StoreError> {
    let id = content.0.cast_signed();
    let sql = "SELECT refs FROM contents WHERE id = ?";
    let before = first(transaction, sql, [id], |row| Ok(row.get::<_, i64>(0)?))?;
    let wrong = |what: &str| StoreError::Database(format!("content {content} {what}"));
    let after = before
        .unwrap_or(0)
        .checked_add(by)
        .filter(|after| *after >= 0)
        .ok_or_else(|| wrong("would have less than no references"))?;
    match (before, after) {
        (None, 0) => discard(transaction, content),
        (Some(_), 0) => {
            change(transaction, "DELETE FROM contents WHERE id = ?", [id])?;
            discard(transaction, content)
        }
        (None, refs) => {
            if is_garbage(transaction, content)? {
                return Err(wrong("is garbage and can't be referred to"));
            }
            change(transaction, "INSERT INTO contents (id, refs) VALUES (?, ?)", [id, refs])?;
            Ok(())
        }
        (Some(_), refs) => {
            change(transaction, "UPDATE contents SET refs = ? WHERE id = ?", [refs, id])?;
            // What had it beside others had it sealed.
            if by < 0 { trims::note_shared(transaction, content) } else { Ok(()) }
        }
    }
}

fn discard(transaction: &Transaction<'_>, content: ContentId) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO garbage (content) VALUES (?)";
    change(transaction, sql, [content.0.cast_signed()])?;
    trims::forget_content(transaction, content)
}

fn is_garbage(connection: &Connection, content: ContentId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM garbage WHERE content = ?)";
    value(connection, sql, [content.0.cast_signed()])
}

pub(super) fn exists(connection: &Connection, content: ContentId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM contents WHERE id = ?)";
    value(connection, sql, [content.0.cast_signed()])
}

pub(super) fn whole_from(connection: &Connection) -> Result<ContentId, StoreError> {
    let first: i64 = value(connection, "SELECT whole_from FROM content_lengths", [])?;
    Ok(ContentId(first.cast_unsigned()))
}

pub(super) fn garbage(
    connection: &Connection,
    after: Option<ContentId>,
    count: usize,
) -> Result<Vec<ContentId>, StoreError> {
    let sql = "SELECT content FROM garbage WHERE content > ? ORDER BY content LIMIT ?";
    let after = after.map_or(-1, |after| after.0.cast_signed());
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    all(connection, sql, [after, count], |row| Ok(ContentId(number(row, 0)?)))
}

pub(super) fn forget_garbage(
    transaction: &Transaction<'_>,
    contents: &[ContentId],
) -> Result<(), StoreError> {
    for content in contents {
        let sql = "DELETE FROM garbage WHERE content = ?";
        change(transaction, sql, [content.0.cast_signed()])?;
    }
    Ok(())
}

pub(super) fn grant_ids(transaction: &Transaction<'_>, count: u64) -> Result<IdRange, StoreError> {
    let used_up = || StoreError::Database("all numbers are used up".into());
    let first: i64 = value(transaction, "SELECT next FROM ids", [])?;
    let end = i64::try_from(count).ok().and_then(|count| first.checked_add(count));
    let end = end.ok_or_else(used_up)?;
    change(transaction, "UPDATE ids SET next = ?", params![end])?;
    Ok(IdRange { first: first.cast_unsigned(), end: end.cast_unsigned() })
}

/// Counts on by one, and says how far that is.
pub(super) fn count(transaction: &Transaction<'_>) -> Result<u64, StoreError> {
    let next: i64 = value(transaction, "UPDATE ids SET next = next + 1 RETURNING next", [])?;
    Ok(next.cast_unsigned())
}

/// Grants no number below `end` any more.
pub(super) fn skip_ids(transaction: &Transaction<'_>, end: u64) -> Result<(), StoreError> {
    let sql = "UPDATE ids SET next = max(next, ?)";
    change(transaction, sql, [end.cast_signed()])?;
    Ok(())
}

pub(super) fn ids_end(connection: &Connection) -> Result<u64, StoreError> {
    let next: i64 = value(connection, "SELECT next FROM ids", [])?;
    Ok(next.cast_unsigned())
}
