//! The rows of wrong passwords: how many came from where, and how long each lockout lasts.

use rusqlite::{Connection, Row, Transaction, params};

use super::SqliteStore;
use super::rows::{all, change, first, read_time};
use crate::{ForgottenBefore, StoreError, WrongPasswords};

impl SqliteStore {
    /// The current wrong passwords of a pair.
    ///
    /// # Errors
    /// If the database fails.
    pub fn failures(
        &self,
        user: &str,
        address: &str,
    ) -> Result<Option<WrongPasswords>, StoreError> {
        self.connections.read(|reader| of_pair(reader, user, address))
    }

    /// All current wrong passwords, for the administrator.
    ///
    /// # Errors
    /// If the database fails.
    pub fn all_failures(&self) -> Result<Vec<WrongPasswords>, StoreError> {
        self.connections.read(|reader| list(reader))
    }

    /// Replaces the wrong passwords of some pairs; a count of 0 deletes them.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_failures(&self, failures: &[WrongPasswords]) -> Result<(), StoreError> {
        self.write(|writer| failures.iter().try_for_each(|one| set(writer, one)))
    }

    /// Deletes all old wrong passwords.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_failures(&self, before: ForgottenBefore) -> Result<(), StoreError> {
        self.write(|writer| forget(writer, before))
    }
}

macro_rules! columns {
    () => {
        "user, address, count, last_secs, last_nanos, blocked_secs, blocked_nanos"
    };
}

pub(super) fn of_pair(
    connection: &Connection,
    user: &str,
    address: &str,
) -> Result<Option<WrongPasswords>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM failures WHERE user = ? AND address = ?");
    first(connection, sql, [user, address], read)
}

pub(super) fn list(connection: &Connection) -> Result<Vec<WrongPasswords>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM failures ORDER BY user, address");
    all(connection, sql, [], read)
}

pub(super) fn set(
    transaction: &Transaction<'_>,
    failures: &WrongPasswords,
) -> Result<(), StoreError> {
    if failures.count == 0 {
        let sql = "DELETE FROM failures WHERE user = ? AND address = ?";
        change(transaction, sql, [&failures.user, &failures.address])?;
        return Ok(());
    }
    let sql =
        concat!("INSERT OR REPLACE INTO failures (", columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?)");
    let params = params![
        failures.user,
        failures.address,
        failures.count,
        failures.last.secs(),
        failures.last.nanos(),
        failures.blocked_until.secs(),
        failures.blocked_until.nanos(),
    ];
    change(transaction, sql, params)?;
    Ok(())
}

pub(super) fn forget(
    transaction: &Transaction<'_>,
    before: ForgottenBefore,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM failures
               WHERE max(last_secs, blocked_secs) < CASE user WHEN '' THEN ? ELSE ? END";
    change(transaction, sql, [before.sources.secs(), before.users.secs()])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<WrongPasswords, StoreError> {
    Ok(WrongPasswords {
        user: row.get(0)?,
        address: row.get(1)?,
        count: row.get(2)?,
        last: read_time(row, 3)?,
        blocked_until: read_time(row, 5)?,
    })
}
