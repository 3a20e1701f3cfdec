//! Removing accounts, restoring them, and deleting them step by step.
//!
//! A removal takes the account's name away and raises its epoch, which fences its session. Nothing
//! else of it changes, so a restored account is what it was: it has only lost its keys, its invitation
//! and its sessions.
//!
//! An account is deleted at once, or some days after its removal. A single transaction for a large
//! account would block all other writers until it is done. So small transactions delete its rows; if
//! they are interrupted, the next call of `clear_deleted` resumes them.
//!
//! **Invariant:** an account that was removed has an impossible name, with a slash. It can't be found,
//! no session of it can begin, and no rows are added to it. One that is to be deleted has no
//! `removed_name`, and none that is being deleted ever gets one again.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rusqlite::{Row, Transaction, params};
use xfer_protocol::{ContentId, DeliveryId, Name, Timestamp};

use super::super::contents::refer;
use super::super::deliveries::{self, Outcome};
use super::super::rows::{all, change, first, number, read_time, value};
use super::super::{SqliteStore, keys, trims};
use super::{by_name, columns, living, must_exist, sessions};
use crate::waists::accounts::days_later;
use crate::{AccountId, Removed, StoreError};

impl SqliteStore {
    /// Removes an account, and keeps its data.
    ///
    /// # Errors
    /// If the database fails.
    pub fn remove_account(&self, account: AccountId, at: Timestamp) -> Result<(), StoreError> {
        let sql = concat!(
            "UPDATE accounts SET epoch = epoch + 1, name = CAST('/' || id AS BLOB),
                 removed_name = name, removed_secs = ?, removed_nanos = ?
             WHERE id = ? AND ",
            living!()
        );
        let params = params![at.secs(), at.nanos(), account.0.cast_signed()];
        self.write(|writer| {
            must_exist(change(writer, sql, params)?)?;
            keys::forget_all(writer, account)?;
            sessions::forget_all(writer, account)
        })
    }

    /// The accounts that were removed and are kept, the last one first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn removed_accounts(&self) -> Result<Vec<Removed>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!("removed_name"),
            ", removed_secs, removed_nanos, keep_days FROM accounts, removal
             WHERE removed_name IS NOT NULL ORDER BY removed_secs DESC, removed_nanos DESC, id DESC"
        );
        self.connections.read(|reader| all(reader, sql, [], read_removed))
    }

    /// Brings back an account that was removed and is kept.
    ///
    /// # Errors
    /// If the database fails, it is not kept, or another account has the name.
    pub fn restore_account(&self, account: AccountId, name: &Name) -> Result<(), StoreError> {
        self.write(|writer| {
            must_exist(forget_removal(writer, account)?)?;
            if by_name(writer, name)?.is_some() {
                return Err(StoreError::Exists(name.clone()));
            }
            let sql = "UPDATE accounts SET name = ? WHERE id = ?";
            change(writer, sql, params![name.as_bytes(), account.0.cast_signed()])?;
            Ok(())
        })
    }

    /// Gives up an account that was removed and is kept. Its data stays until
    /// [`SqliteStore::clear_deleted`].
    ///
    /// # Errors
    /// If the database fails, or it is not kept.
    pub fn give_up_account(&self, account: AccountId) -> Result<(), StoreError> {
        self.write(|writer| must_exist(forget_removal(writer, account)?))
    }

    /// Deletes the trees of accounts that were given up, and of removed ones whose days are over, and
    /// refuses the deliveries to them. This takes long, but each transaction is short, and an
    /// interrupted run is resumed. Returns whether there were any.
    ///
    /// # Errors
    /// If the database fails.
    pub fn clear_deleted(&self, now: Timestamp) -> Result<bool, StoreError> {
        // The server asks each minute. It is to keep no writer waiting for nothing.
        if !self.connections.read(|reader| is_any_due(reader, now))? {
            return Ok(false);
        }
        self.write(|writer| give_up_due(writer, now))?;
        loop {
            let start = Instant::now();
            if !self.write(|writer| clear_some(writer, now))? {
                return Ok(true);
            }
            let pause = start.elapsed().clamp(*REMOVAL_PAUSE.start(), *REMOVAL_PAUSE.end());
            std::thread::sleep(pause);
        }
    }

    /// For how many days removed accounts are kept.
    ///
    /// # Errors
    /// If the database fails.
    pub fn days_kept(&self) -> Result<u16, StoreError> {
        self.connections.read(|reader| value(reader, "SELECT keep_days FROM removal", []))
    }

    /// Sets for how many days removed accounts are kept.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_removed(&self, days: u16) -> Result<(), StoreError> {
        self.write(|writer| change(writer, "UPDATE removal SET keep_days = ?", [days]).map(drop))
    }
}

/// How long a deletion pauses for other writers after each transaction: as long as that took, within
/// these bounds. Other processes try to take the write lock only about every 100 ms.
const REMOVAL_PAUSE: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(1);

/// The most rows of one kind in a transaction.
pub(super) const ROWS_MAX: i64 = 1000;

/// Forgets that an account was removed and is kept. It is still hidden: it is to be deleted, unless it
/// gets a name. Returns 0 if it is not kept.
fn forget_removal(transaction: &Transaction<'_>, account: AccountId) -> Result<usize, StoreError> {
    let sql = "UPDATE accounts SET removed_name = NULL, removed_secs = NULL, removed_nanos = NULL
               WHERE id = ? AND removed_name IS NOT NULL";
    change(transaction, sql, [account.0.cast_signed()])
}

fn read_removed(row: &Row<'_>) -> Result<Removed, StoreError> {
    let (at, days) = (read_time(row, 17)?, row.get(19)?);
    Ok(Removed { account: super::read(row)?, at, until: days_later(at, days) })
}

/// Whether an account is to be deleted now.
fn is_any_due(transaction: &Transaction<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let sql = concat!(
        "SELECT EXISTS (SELECT 1 FROM accounts WHERE NOT ",
        living!(),
        " AND (removed_name IS NULL OR (removed_secs, removed_nanos) <= (?, ?)))"
    );
    let last = last_due(transaction, now)?;
    value(transaction, sql, params![last.secs(), last.nanos()])
}

/// Gives up the removed accounts whose days are over.
fn give_up_due(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE accounts SET removed_name = NULL, removed_secs = NULL, removed_nanos = NULL
               WHERE removed_name IS NOT NULL AND (removed_secs, removed_nanos) <= (?, ?)";
    let last = last_due(transaction, now)?;
    let count = change(transaction, sql, params![last.secs(), last.nanos()])?;
    if count > 0 {
        tracing::info!(count, "deleting removed accounts whose days are over");
    }
    Ok(())
}

/// The days of accounts that were removed at this time or before are over.
fn last_due(transaction: &Transaction<'_>, now: Timestamp) -> Result<Timestamp, StoreError> {
    let days: i64 = value(transaction, "SELECT keep_days FROM removal", [])?;
    Ok(days_later(now, -days))
}

/// Deletes some rows of accounts that are to be deleted, and in the end the accounts. Returns false if
/// there were none.
pub(in crate::embedded::sqlite) fn clear_some(
    transaction: &Transaction<'_>,
    time: Timestamp,
) -> Result<bool, StoreError> {
    let sql = concat!(
        "SELECT id FROM accounts WHERE removed_name IS NULL AND NOT ",
        living!(),
        " LIMIT 1"
    );
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
