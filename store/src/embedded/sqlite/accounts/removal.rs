//! Removing accounts: hidden at once, then deleted step by step.
//!
//! A single transaction for a large account would block all other writers until it is done. So the
//! first transaction only raises the account's epoch, which fences its session, and takes its name
//! away. Small transactions then delete its rows; if they are interrupted, the next call of
//! `clear_removed` resumes them.
//!
//! **Invariant:** an account that is being removed has an impossible name, with a slash. It can't
//! be found, no session of it can begin, and no rows are added to it.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rusqlite::{Transaction, params};
use xfer_protocol::{ContentId, DeliveryId, Timestamp};

use super::super::contents::refer;
use super::super::deliveries::{self, Outcome};
use super::super::rows::{all, change, first, number};
use super::super::{SqliteStore, keys, trims};
use super::{living, must_exist, sessions};
use crate::{AccountId, StoreError};

impl SqliteStore {
    /// Removes an account: its session is fenced, and the account can no longer be found. Its data
    /// stays until [`SqliteStore::clear_removed`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn remove_account(&self, account: AccountId) -> Result<(), StoreError> {
        self.write(|writer| retire(writer, account))
    }

    /// Deletes the trees of removed accounts, and refuses the deliveries to them. This takes long,
    /// but each transaction is short, and an interrupted run is resumed.
    ///
    /// # Errors
    /// If the database fails.
    pub fn clear_removed(&self, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let start = Instant::now();
            if !self.write(|writer| clear_some(writer, now))? {
                return Ok(());
            }
            let pause = start.elapsed().clamp(*REMOVAL_PAUSE.start(), *REMOVAL_PAUSE.end());
            std::thread::sleep(pause);
        }
    }
}

/// How long a removal pauses for other writers after each transaction: as long as that took, within
/// these bounds. Other processes try to take the write lock only about every 100 ms.
const REMOVAL_PAUSE: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(1);

/// The most rows of one kind in a transaction.
pub(super) const ROWS_MAX: i64 = 1000;

/// Hides an account and fences its session. [`clear_some`] deletes its data.
pub(super) fn retire(transaction: &Transaction<'_>, account: AccountId) -> Result<(), StoreError> {
    let sql = concat!(
        "UPDATE accounts SET epoch = epoch + 1, name = CAST('/' || id AS BLOB)
         WHERE id = ? AND ",
        living!()
    );
    must_exist(change(transaction, sql, [account.0.cast_signed()])?)?;
    keys::forget_all(transaction, account)?;
    sessions::forget_all(transaction, account)
}

/// Deletes some rows of retired accounts, and in the end the accounts. Returns false if there were
/// none.
pub(in crate::embedded::sqlite) fn clear_some(
    transaction: &Transaction<'_>,
    time: Timestamp,
) -> Result<bool, StoreError> {
    let sql = concat!("SELECT id FROM accounts WHERE NOT ", living!(), " LIMIT 1");
    let account = first(transaction, sql, [], |row| Ok(AccountId(number(row, 0)?)))?;
    let Some(account) = account else { return Ok(false) };
    let is_left = refuse_waiting(transaction, account, time)?
        || forget_sent(transaction, account)?
        || remove_entries(transaction, account)?
        || remove_nodes(transaction, account)?;
    if !is_left {
        trims::forget_left(transaction, account)?;
        let sql = "DELETE FROM accounts WHERE id = ?";
        change(transaction, sql, [account.0.cast_signed()])?;
    }
    Ok(true)
}

/// Refuses deliveries that wait for the account; at least one in each step, whatever its size.
fn refuse_waiting(
    transaction: &Transaction<'_>,
    account: AccountId,
    time: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "SELECT id, items FROM deliveries WHERE to_account = ? ORDER BY arrival LIMIT ?";
    let waiting = all(transaction, sql, [account.0.cast_signed(), ROWS_MAX], |row| {
        Ok((DeliveryId(number(row, 0)?), row.get::<_, i64>(1)?))
    })?;
    let mut items_count = 0;
    for (id, items) in &waiting {
        let sql = "SELECT content FROM delivery_items
                   WHERE delivery = ? AND content IS NOT NULL";
        let contents = all(transaction, sql, [id.0.cast_signed()], |row| number(row, 0))?;
        contents.into_iter().try_for_each(|id| refer(transaction, ContentId(id), -1))?;
        deliveries::settle(transaction, account, *id, Outcome::Refused, time)?;
        items_count += items;
        if items_count >= ROWS_MAX {
            break;
        }
    }
    Ok(!waiting.is_empty())
}

/// Forgets the deliveries that the account sent. Those that still wait for others stay, without a
/// sender.
fn forget_sent(transaction: &Transaction<'_>, account: AccountId) -> Result<bool, StoreError> {
    let some = [account.0.cast_signed(), ROWS_MAX];
    let sql = "DELETE FROM deliveries WHERE arrival IN (
                   SELECT arrival FROM deliveries
                   WHERE from_account = ? AND to_account IS NULL LIMIT ?)";
    if change(transaction, sql, some)? > 0 {
        return Ok(true);
    }
    let sql = "UPDATE deliveries SET from_account = NULL WHERE arrival IN (
                   SELECT arrival FROM deliveries WHERE from_account = ? LIMIT ?)";
    Ok(change(transaction, sql, some)? > 0)
}

fn remove_entries(transaction: &Transaction<'_>, account: AccountId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM entries WHERE account = ?1 AND (parent, name) IN (
                   SELECT parent, name FROM entries WHERE account = ?1 LIMIT ?2)";
    Ok(change(transaction, sql, [account.0.cast_signed(), ROWS_MAX])? > 0)
}

fn remove_nodes(transaction: &Transaction<'_>, account: AccountId) -> Result<bool, StoreError> {
    let id = account.0.cast_signed();
    let sql = "SELECT ino, content FROM nodes WHERE account = ? ORDER BY ino LIMIT ?";
    let nodes = all(transaction, sql, [id, ROWS_MAX], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let Some((last, _)) = nodes.last() else { return Ok(false) };
    let sql = "DELETE FROM nodes WHERE account = ? AND ino <= ?";
    change(transaction, sql, params![id, last])?;
    let mut contents = nodes.iter().filter_map(|(_, content)| *content);
    contents.try_for_each(|content| refer(transaction, ContentId(content.cast_unsigned()), -1))?;
    Ok(true)
}
