//! Wrong passwords: how many, from where, and until when they block.

use rusqlite::{Connection, Row, Transaction, params};

use super::rows::{all, change, first, read_time};
use crate::{Failures, ForgottenBefore, StoreError};

macro_rules! columns {
    () => {
        "user, address, count, last_secs, last_nanos, blocked_secs, blocked_nanos"
    };
}

pub(super) fn of_pair(
    connection: &Connection,
    user: &str,
    address: &str,
) -> Result<Option<Failures>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM failures WHERE user = ? AND address = ?");
    first(connection, sql, [user, address], read)
}

pub(super) fn list(connection: &Connection) -> Result<Vec<Failures>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM failures ORDER BY user, address");
    all(connection, sql, [], read)
}

pub(super) fn set(transaction: &Transaction<'_>, failures: &Failures) -> Result<(), StoreError> {
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

fn read(row: &Row<'_>) -> Result<Failures, StoreError> {
    Ok(Failures {
        user: row.get(0)?,
        address: row.get(1)?,
        count: row.get(2)?,
        last: read_time(row, 3)?,
        blocked_until: read_time(row, 5)?,
    })
}
