//! Numbers for nodes, contents and deliveries: one counter for all accounts.
//!
//! Each transaction that changes rows raises the counter too, so that it also tells older copies of the
//! database apart.

use rusqlite::{Connection, Transaction, params};
use xfer_protocol::IdRange;

use super::SqliteStore;
use super::rows::{change, value};
use crate::StoreError;

impl SqliteStore {
    /// Grants numbers that were never granted before. The grant is durable when this returns.
    ///
    /// # Errors
    /// If the database fails.
    pub fn grant_ids(&self, count: u64) -> Result<IdRange, StoreError> {
        let range = self.write(|writer| grant_ids(writer, count))?;
        self.marked(self.mark.raise_durably(range.end));
        Ok(range)
    }

    /// The next number to be granted. Each change of rows raises it, too.
    ///
    /// # Errors
    /// If the database fails.
    pub fn ids_end(&self) -> Result<u64, StoreError> {
        self.connections.read(|reader| ids_end(reader))
    }
}

pub(super) fn grant_ids(transaction: &Transaction<'_>, count: u64) -> Result<IdRange, StoreError> {
    let used_up = || StoreError::Database("all numbers are used up".into());
    let first: i64 = value(transaction, "SELECT next FROM ids", [])?;
    let end = i64::try_from(count).ok().and_then(|count| first.checked_add(count));
    let end = end.ok_or_else(used_up)?;
    change(transaction, "UPDATE ids SET next = ?", params![end])?;
    Ok(IdRange { first: first.cast_unsigned(), end: end.cast_unsigned() })
}

/// Raises the counter by one, and returns its value.
pub(super) fn count(transaction: &Transaction<'_>) -> Result<u64, StoreError> {
    let next: i64 = value(transaction, "UPDATE ids SET next = next + 1 RETURNING next", [])?;
    Ok(next.cast_unsigned())
}

/// Raises the counter to at least `end`, so that no lower number is granted.
pub(super) fn skip_ids(transaction: &Transaction<'_>, end: u64) -> Result<(), StoreError> {
    let sql = "UPDATE ids SET next = max(next, ?)";
    change(transaction, sql, [end.cast_signed()])?;
    Ok(())
}

pub(super) fn ids_end(connection: &Connection) -> Result<u64, StoreError> {
    let next: i64 = value(connection, "SELECT next FROM ids", [])?;
    Ok(next.cast_unsigned())
}
