//! Contents that stay, of which something may be reached by nothing any more.
//!
//! **Invariant:** whatever takes a part of a content from a node or a delivery notes the content in the
//! same transaction, in `trims` if it is sealed, else in `own_trims`. A note goes when the space was
//! given back, or with the content.

use std::ops::Range;

use rusqlite::{Connection, Transaction, params};
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{Extents, Item, ItemKind, Runs};
use xfer_protocol::{ContentId, Epoch, Ino};

use super::rows::{all, change, decode, first, number, read_blob, value};
use super::{SqliteStore, accounts, numbers};
use crate::{AccountId, StoreError, Trims};

/// A sealed content of which something may be reached by nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    /// Its number among trims: a new one each time that something of the content is dropped.
    pub id: u64,
    /// The content.
    pub content: ContentId,
}

/// A content that one node alone has, which can write to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnContent {
    /// The node.
    pub ino: Ino,
    /// The content.
    pub content: ContentId,
    /// What the node has of it, in bytes, in order.
    pub reached: Vec<Range<u64>>,
}

impl SqliteStore {
    /// Sealed contents of which something was dropped, at most `count`, those noted after the trim
    /// number `after`, in order.
    ///
    /// # Errors
    /// If the database fails.
    pub fn trims(&self, after: u64, count: usize) -> Result<Vec<Trim>, StoreError> {
        self.connections.read(|reader| list(reader, after, count))
    }

    /// What is reached of a sealed content by anything committed, in whole blocks, in order; `None` if
    /// it is not only reached by what can't write to it.
    ///
    /// It never grows: what reaches a part of a sealed content got it from what reached it before.
    ///
    /// # Errors
    /// If the database fails.
    pub fn reached(&self, content: ContentId) -> Result<Option<Vec<Range<u64>>>, StoreError> {
        self.connections.read(|reader| reached(reader, content))
    }

    /// Forgets trims that are done. What was noted since stays.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_trims(&self, trims: &[Trim]) -> Result<(), StoreError> {
        self.connections.write(|writer| forget(writer, trims))
    }

    /// Contents of which an earlier session of this account dropped something, and may have ended
    /// before it gave that back; with the node that has each.
    ///
    /// # Errors
    /// If the database fails.
    pub fn left_trims(&self, account: AccountId) -> Result<Vec<(ContentId, Ino)>, StoreError> {
        self.connections.read(|reader| left(reader, account))
    }

    /// Forgets those, which are done.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_left_trims(&self, account: AccountId) -> Result<(), StoreError> {
        self.connections.write(|writer| forget_left(writer, account))
    }

    /// Notes contents of this account that a session wrote to and did not commit, for
    /// [`SqliteStore::left_trims`]; those that nothing refers to are left out. Once this is done, nothing
    /// of a commit that failed before can become durable any more.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_left(
        &self,
        account: AccountId,
        left: &[(ContentId, Ino)],
    ) -> Result<(), StoreError> {
        // The counter makes it a write even if nothing is noted.
        self.write(|writer| {
            numbers::count(writer)?;
            note_own(writer, account, left)
        })
    }

    /// The contents that nodes of this account alone have, at most `count`, those of nodes after
    /// `after`, in order of nodes.
    ///
    /// # Errors
    /// If the database fails.
    pub fn own_contents(
        &self,
        account: AccountId,
        after: Option<Ino>,
        count: usize,
    ) -> Result<Vec<OwnContent>, StoreError> {
        self.connections.read(|reader| own(reader, account, after, count))
    }

    /// Notes that the account's session of this epoch left nothing that is not noted, unless a later one
    /// began.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_tidied(&self, account: AccountId, epoch: Epoch) -> Result<(), StoreError> {
        self.write(|writer| accounts::note_tidied(writer, account, epoch))
    }

    /// Does `work` while no session of this account, nor of any other, can begin; it must be short and
    /// must not write rows. Not if a session began after that of this epoch, or the account is claimed:
    /// says whether it was done.
    ///
    /// # Errors
    /// If the database fails.
    pub fn while_unowned(
        &self,
        account: AccountId,
        epoch: Epoch,
        work: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        // A session begins with a write, in whichever process: this one's lock keeps it waiting.
        self.write(|writer| {
            let unowned = accounts::is_at(writer, account, epoch)? && !self.is_claimed(account)?;
            if unowned {
                work()?;
            }
            Ok(unowned)
        })
    }
}

/// Notes what a batch dropped, and forgets what it says is done.
pub(super) fn note(
    transaction: &Transaction<'_>,
    account: AccountId,
    trims: &Trims,
) -> Result<(), StoreError> {
    for content in &trims.done {
        forget_own(transaction, *content)?;
    }
    for content in &trims.shared {
        note_shared(transaction, *content)?;
    }
    note_own(transaction, account, &trims.own)
}

/// Notes contents that one node alone has, and that may have more on the disk than it has of them.
pub(super) fn note_own(
    transaction: &Transaction<'_>,
    account: AccountId,
    own: &[(ContentId, Ino)],
) -> Result<(), StoreError> {
    for (content, ino) in own {
        let sql = "INSERT OR REPLACE INTO own_trims (content, account, ino)
                   SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM contents WHERE id = ?1)
                       AND EXISTS (SELECT 1 FROM accounts WHERE id = ?2)";
        let params = [content.0, account.0, ino.0].map(u64::cast_signed);
        change(transaction, sql, params)?;
    }
    Ok(())
}

/// Notes that something has less of a sealed content, if the content is still there.
pub(super) fn note_shared(
    transaction: &Transaction<'_>,
    content: ContentId,
) -> Result<(), StoreError> {
    forget_own(transaction, content)?;
    let sql = "INSERT OR REPLACE INTO trims (content)
               SELECT ?1 WHERE EXISTS (SELECT 1 FROM contents WHERE id = ?1)";
    change(transaction, sql, [content.0.cast_signed()])?;
    Ok(())
}

/// Forgets all about a content that is garbage now.
pub(super) fn forget_content(
    transaction: &Transaction<'_>,
    content: ContentId,
) -> Result<(), StoreError> {
    forget_own(transaction, content)?;
    change(transaction, "DELETE FROM trims WHERE content = ?", [content.0.cast_signed()])?;
    Ok(())
}

fn forget_own(transaction: &Transaction<'_>, content: ContentId) -> Result<(), StoreError> {
    change(transaction, "DELETE FROM own_trims WHERE content = ?", [content.0.cast_signed()])?;
    Ok(())
}

pub(super) fn list(
    connection: &Connection,
    after: u64,
    count: usize,
) -> Result<Vec<Trim>, StoreError> {
    let sql = "SELECT id, content FROM trims WHERE id > ? ORDER BY id LIMIT ?";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    all(connection, sql, [after.cast_signed(), count], |row| {
        Ok(Trim { id: number(row, 0)?, content: ContentId(number(row, 1)?) })
    })
}

pub(super) fn forget(transaction: &Transaction<'_>, trims: &[Trim]) -> Result<(), StoreError> {
    for trim in trims {
        change(transaction, "DELETE FROM trims WHERE id = ?", [trim.id.cast_signed()])?;
    }
    Ok(())
}

/// The union of what all that refers to the content reaches of it, if all of them are found, and all
/// have it sealed.
pub(super) fn reached(
    connection: &Connection,
    content: ContentId,
) -> Result<Option<Vec<Range<u64>>>, StoreError> {
    let id = content.0.cast_signed();
    let sql = "SELECT refs FROM contents WHERE id = ?";
    let refs = first(connection, sql, [id], |row| number(row, 0))?;
    let sql = "SELECT count(*) FROM nodes WHERE content = ? AND sealed";
    let nodes: i64 = value(connection, sql, [id])?;
    let sql = "SELECT item FROM delivery_items WHERE content = ?";
    let items: Vec<Item> = all(connection, sql, [id], |row| {
        decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
    })?;
    if refs != Some(nodes.cast_unsigned() + items.len() as u64) {
        return Ok(None);
    }
    // Copies have the same as each other, nearly always.
    let sql = "SELECT DISTINCT size, extents FROM nodes WHERE content = ? AND sealed";
    let mut parts: Vec<(u64, Extents)> = all(connection, sql, [id], |row| {
        Ok((number(row, 0)?, read_blob(row, 1)?.unwrap_or_default()))
    })?;
    parts.extend(items.into_iter().filter_map(|item| match item.kind {
        ItemKind::File { size, extents, .. } => Some((size, extents)),
        ItemKind::Directory | ItemKind::Symlink { .. } => None,
    }));
    parts.sort_by_key(|(size, _)| *size);
    parts.dedup();
    let mut union = Runs::default();
    for (size, extents) in &parts {
        for run in extents.data_in(*size, 0..extents.end(*size)) {
            union.insert(run.start / BLOCK_BYTES..run.end.div_ceil(BLOCK_BYTES));
        }
    }
    Ok(Some(union.iter().map(|run| run.start * BLOCK_BYTES..run.end * BLOCK_BYTES).collect()))
}

/// The contents that nodes of an account can write to, with what each has of its content.
pub(super) fn own(
    connection: &Connection,
    account: AccountId,
    after: Option<Ino>,
    count: usize,
) -> Result<Vec<OwnContent>, StoreError> {
    let sql = "SELECT ino, content, size, extents FROM nodes
               WHERE account = ? AND ino > ? AND content IS NOT NULL AND NOT sealed
               ORDER BY ino LIMIT ?";
    let after = after.map_or(-1, |after| after.0.cast_signed());
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    all(connection, sql, [account.0.cast_signed(), after, count], |row| {
        let (size, extents): (u64, Extents) =
            (number(row, 2)?, read_blob(row, 3)?.unwrap_or_default());
        let reached = extents.data_in(size, 0..extents.end(size));
        Ok(OwnContent { ino: Ino(number(row, 0)?), content: ContentId(number(row, 1)?), reached })
    })
}

pub(super) fn left(
    connection: &Connection,
    account: AccountId,
) -> Result<Vec<(ContentId, Ino)>, StoreError> {
    let sql = "SELECT content, ino FROM own_trims WHERE account = ?";
    all(connection, sql, [account.0.cast_signed()], |row| {
        Ok((ContentId(number(row, 0)?), Ino(number(row, 1)?)))
    })
}

pub(super) fn forget_left(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM own_trims WHERE account = ?";
    change(transaction, sql, params![account.0.cast_signed()])?;
    Ok(())
}
