//! References to contents, and garbage.
//!
//! **Invariant:** a content is in `contents` (with the number of nodes and deliveries that refer to
//! it), or in `garbage`, or in neither; never in both. Garbage is never referred to again: its
//! bytes may be removed at any moment.

use rusqlite::{Connection, Transaction};
use xfer_protocol::ContentId;

use super::SqliteStore;
use super::rows::{all, change, first, number, value};
use super::trims;
use crate::StoreError;

impl SqliteStore {
    /// Whether any committed row refers to a content.
    ///
    /// # Errors
    /// If the database fails.
    pub fn content_exists(&self, content: ContentId) -> Result<bool, StoreError> {
        self.connections.read(|reader| exists(reader, content))
    }

    /// Whether a content is known: a committed row refers to it, or one did, and its bytes are to be
    /// removed.
    ///
    /// # Errors
    /// If the database fails.
    pub fn content_is_known(&self, content: ContentId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM garbage WHERE content = ?)";
        self.connections.read(|reader| {
            Ok(exists(reader, content)? || value(reader, sql, [content.0.cast_signed()])?)
        })
    }

    /// The first content that must be as long as its data: see
    /// [`crate::embedded::FileStore::whole_from`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn whole_from(&self) -> Result<ContentId, StoreError> {
        self.connections.read(|reader| whole_from(reader))
    }

    /// Garbage in order of numbers: at most `max` contents, after `after`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn garbage(
        &self,
        after: Option<ContentId>,
        count: usize,
    ) -> Result<Vec<ContentId>, StoreError> {
        self.connections.read(|reader| garbage(reader, after, count))
    }

    /// Forgets garbage whose bytes are removed.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_garbage(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        self.write(|writer| forget_garbage(writer, contents))
    }
}

/// Adds `by` to the number of references to a content.
///
/// A content that was created and dropped without ever being committed has the change 0, and
/// becomes garbage.
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
                return Err(wrong("is garbage and cannot be referred to"));
            }
            change(transaction, "INSERT INTO contents (id, refs) VALUES (?, ?)", [id, refs])?;
            Ok(())
        }
        (Some(_), refs) => {
            change(transaction, "UPDATE contents SET refs = ? WHERE id = ?", [refs, id])?;
            // A content with several references is sealed.
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
