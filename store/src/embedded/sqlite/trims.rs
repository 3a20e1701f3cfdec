//! Contents that stay, but may have parts that are no longer reachable.
//!
//! **Invariant:** a change that takes a part of a content from a node or a delivery notes the
//! content in the same transaction, in `trims` if it is sealed, otherwise in `own_trims`. The note
//! stays until the space is reclaimed or the content is garbage.

use std::ops::Range;

use rusqlite::{Connection, Transaction, params};
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{Extents, Item, ItemKind, Runs};
use xfer_protocol::{ContentId, Epoch, Ino};

use super::rows::{all, change, decode, first, number, read_blob, value};
use super::{SqliteStore, accounts, numbers};
use crate::{AccountId, StoreError, Trims};

/// A sealed content that may have parts that are no longer reachable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    /// The trim's number: a new one each time that a part of the content is dropped.
    pub id: u64,
    /// The content to be trimmed.
    pub content: ContentId,
}

/// A content of one node alone, which can write to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnContent {
    /// The node that has the content.
    pub ino: Ino,
    /// The content's number.
    pub content: ContentId,
    /// The node's parts of the content, as ranges of bytes in order.
    pub reached: Vec<Range<u64>>,
}

impl SqliteStore {
    /// Sealed contents with dropped parts, in the order of their trim numbers: at most `count`,
    /// after the number `after`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn trims(&self, after: u64, count: usize) -> Result<Vec<Trim>, StoreError> {
        self.connections.read(|reader| list(reader, after, count))
    }

    /// The parts of a sealed content that committed rows reach, in whole blocks, in order; `None`
    /// unless all references to it are found and none of their owners can write to it.
    ///
    /// The result never grows, because a new owner of a sealed content gets its part from an
    /// earlier one.
    ///
    /// # Errors
    /// If the database fails.
    pub fn reached(&self, content: ContentId) -> Result<Option<Vec<Range<u64>>>, StoreError> {
        self.connections.read(|reader| reached(reader, content))
    }

    /// Forgets finished trims. Notes made since then stay.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_trims(&self, trims: &[Trim]) -> Result<(), StoreError> {
        self.write(|writer| forget(writer, trims))
    }

    /// Contents with parts that an earlier session of this account dropped and may not have
    /// reclaimed, each with its node.
    ///
    /// # Errors
    /// If the database fails.
    pub fn left_trims(&self, account: AccountId) -> Result<Vec<(ContentId, Ino)>, StoreError> {
        self.connections.read(|reader| left(reader, account))
    }

    /// Forgets these notes, once all are done.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_left_trims(&self, account: AccountId) -> Result<(), StoreError> {
        self.write(|writer| forget_left(writer, account))
    }

    /// Notes contents of this account that a session wrote to and did not commit, for
    /// [`SqliteStore::left_trims`]; those without a reference are left out. Once this is durable,
    /// no earlier commit that failed can still become durable.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_left(
        &self,
        account: AccountId,
        left: &[(ContentId, Ino)],
    ) -> Result<(), StoreError> {
        // Raising the counter makes this a write even if there is nothing to note.
        self.write(|writer| {
            numbers::count(writer)?;
            note_own(writer, account, left)
        })
    }

    /// The contents that belong to nodes of this account alone, in the order of their nodes: at
    /// most `count`, after the node `after`.
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

    /// Notes that no session of the account up to that of this epoch left data that is not noted, unless a
    /// later session began.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_all_tidied(&self, account: AccountId, epoch: Epoch) -> Result<(), StoreError> {
        self.write(|writer| accounts::note_all_tidied(writer, account, epoch))
    }

    /// Notes that the account's session of this epoch left no data that is not noted, if no earlier one
    /// did, and no later one began. Returns whether that is so.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_session_tidied(
        &self,
        account: AccountId,
        epoch: Epoch,
    ) -> Result<bool, StoreError> {
        self.write(|writer| accounts::note_session_tidied(writer, account, epoch))
    }

    /// Does `work` while no session of any account can begin; it must be short and must not write
    /// rows. Returns false, without doing it, if a session began after that of this epoch or the
    /// account is claimed.
    ///
    /// # Errors
    /// If the database fails.
    pub fn while_unowned(
        &self,
        account: AccountId,
        epoch: Epoch,
        work: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let unowned = |writer: &Transaction<'_>| {
            Ok(accounts::is_at(writer, account, epoch)? && !self.is_claimed(account)?)
        };
        self.while_none_begins(unowned, work)
    }
}

impl SqliteStore {
    /// Does `work` like [`SqliteStore::while_unowned`], but also while the account is claimed or
    /// once it was removed. Returns false, without doing it, if a session began after that of this
    /// epoch.
    ///
    /// # Errors
    /// If the database fails.
    pub fn unless_begun_since(
        &self,
        account: AccountId,
        epoch: Epoch,
        work: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        self.while_none_begins(|writer| Ok(!accounts::is_beyond(writer, account, epoch)?), work)
    }

    /// Does `work` if the rows allow it, while no session can begin. Returns whether they did.
    fn while_none_begins(
        &self,
        allows: impl Fn(&Transaction<'_>) -> Result<bool, StoreError>,
        work: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        // A session begins with a write, which this transaction's lock delays, even in another
        // process.
        self.write(|writer| {
            let allowed = allows(writer)?;
            if allowed {
                work()?;
            }
            Ok(allowed)
        })
    }
}

/// Notes the parts that a batch dropped, and forgets the trims that it says are done.
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

/// Notes contents of one node alone that may take more space on the disk than the node has of them.
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

/// Notes that a row dropped a part of a sealed content, if the content still exists.
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

/// Forgets all trims of a content that is garbage now.
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

/// The union of the parts that nodes and deliveries reach of a content, if all references to it are
/// found and all nodes have it sealed.
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
    // Copies nearly always have equal parts.
    let sql = "SELECT DISTINCT size, extents FROM nodes WHERE content = ? AND sealed";
    let mut parts: Vec<(u64, Extents)> = all(connection, sql, [id], |row| {
        Ok((number(row, 0)?, read_blob(row, 1)?.unwrap_or_default()))
    })?;
    parts.extend(items.into_iter().filter_map(|item| match item.kind {
        ItemKind::File { size, extents, .. } => Some((size, extents)),
        ItemKind::Directory | ItemKind::Symlink { .. } | ItemKind::Link { .. } => None,
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

/// The contents that nodes of an account can write to, with the node's part of each.
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
