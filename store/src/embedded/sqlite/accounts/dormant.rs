//! Dormant sessions: they have lost the seat to another one, and their clients may take it again.
//! The nodes that are changed meanwhile are noted for them.
//!
//! A dormant session has a `base`: the last op of the account that it knows of. One list for all
//! dormant sessions of an account has the last op that changed each node; a session has missed those
//! above its base. Each batch raises `applied`, except the removal of orphans, for which no session
//! is dormant.
//!
//! When a session that missed something takes the seat again, the answer to its client may be lost.
//! So its row keeps the range of ops that it missed (`missed_from`, `missed_to`). The client has
//! heard of them if it shows the secret that came with the answer, or if more ops were applied: it
//! can't send any before. If it loses the seat before either, its base is still the former one, and
//! `missed_to` says how far it has come if it turns out to have heard.
//!
//! **Invariant:** a list that may be incomplete is not used: the sessions that it was for are
//! `outdated`.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, Transaction, params};
use xfer_protocol::{Epoch, IdRange, Ino, Seq, SessionId};

use super::super::rows::{all, change, encode, first, number, read_id, value};
use super::super::{SqliteStore, accounts};
use super::sessions::read_numbers;
use crate::granted;
use crate::{AccountId, Batch, CHANGES_MAX, Changed, DORMANT_MAX, Missed, StoreError};

impl SqliteStore {
    /// Makes the session of this epoch dormant: its client has given up the seat.
    ///
    /// # Errors
    /// If the database fails.
    pub fn yield_seat(&self, account: AccountId, epoch: Epoch) -> Result<(), StoreError> {
        self.write(|writer| {
            if !accounts::is_at(writer, account, epoch)? {
                return Ok(());
            }
            displace(writer, account)?;
            drop_surplus(writer, account)
        })
    }

    /// Forgets a session, if it is dormant.
    ///
    /// # Errors
    /// If the database fails.
    pub fn give_up(&self, account: AccountId, session: SessionId) -> Result<(), StoreError> {
        self.write(|writer| {
            let sql = "DELETE FROM sessions WHERE account = ? AND session = ? AND base IS NOT NULL";
            change(writer, sql, params![account.0.cast_signed(), session.0])?;
            drop_surplus(writer, account)
        })
    }

    /// Forgets all dormant sessions of an account, and returns their number.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_dormant(&self, account: AccountId) -> Result<usize, StoreError> {
        self.write(|writer| {
            let sql = "DELETE FROM sessions WHERE account = ? AND base IS NOT NULL";
            let count = change(writer, sql, [account.0.cast_signed()])?;
            drop_surplus(writer, account)?;
            Ok(count)
        })
    }
}

/// Makes the present session dormant, if there is one. [`drop_surplus`] must follow.
pub(super) fn displace(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<(), StoreError> {
    let sql = "SELECT granted, next_id, applied, missed_from, missed_to
               FROM sessions JOIN accounts ON id = account WHERE account = ? AND base IS NULL";
    let present = first(transaction, sql, [account.0.cast_signed()], |row| {
        let (granted, next_id) = read_numbers(row)?;
        let (from, to) = (read_id(row, 3)?, read_id(row, 4)?);
        Ok((granted::left(granted, next_id), number(row, 2)?, from, to))
    })?;
    let Some((granted, applied, from, to)) = present else { return Ok(()) };
    let unheard = from.filter(|_| to == Some(applied));
    let sql = "UPDATE sessions SET base = ?, outdated = outdated AND ?, granted = ?,
                   missed_from = NULL, missed_to = ?
               WHERE account = ? AND base IS NULL";
    let base = unheard.unwrap_or(applied).cast_signed();
    let to = unheard.map(|_| applied.cast_signed());
    let account = account.0.cast_signed();
    change(transaction, sql, params![base, unheard.is_some(), encode(&granted)?, to, account])?;
    Ok(())
}

/// Lets a dormant session take the seat. It keeps its numbers only if it has missed no op.
pub(super) fn wake(
    transaction: &Transaction<'_>,
    account: AccountId,
    session: SessionId,
) -> Result<(), StoreError> {
    displace(transaction, account)?;
    let id = account.0.cast_signed();
    let sql = "UPDATE accounts SET next_id = 0 WHERE id = ? RETURNING applied";
    let applied: i64 = value(transaction, sql, [id])?;
    let sql = "UPDATE sessions SET base = NULL, outdated = 0, missed_to = NULL
               WHERE account = ? AND session = ? AND base = ?";
    if change(transaction, sql, params![id, session.0, applied])? == 0 {
        let sql = "UPDATE sessions SET base = NULL, missed_from = base, missed_to = ?, granted = ?
                   WHERE account = ? AND session = ?";
        let none = encode(&Vec::<IdRange>::new())?;
        change(transaction, sql, params![applied, none, id, session.0])?;
    }
    drop_surplus(transaction, account)
}

/// What the present session missed, of which its client may not have heard.
pub(super) fn missed(
    connection: &Connection,
    account: AccountId,
) -> Result<Option<Missed>, StoreError> {
    let sql = "SELECT missed_from, outdated FROM sessions JOIN accounts ON id = account
               WHERE account = ? AND base IS NULL AND missed_to = applied";
    let read = |row: &Row<'_>| Ok((Seq(number(row, 0)?), row.get(1)?));
    let missed = first(connection, sql, [account.0.cast_signed()], read)?;
    let Some((base, is_outdated)) = missed else { return Ok(None) };
    if is_outdated {
        return Ok(Some(Missed { base, changed: Changed::All }));
    }
    let sql = "SELECT ino FROM changes WHERE account = ? AND at > ? ORDER BY ino";
    let params = [account.0.cast_signed(), base.0.cast_signed()];
    let nodes = all(connection, sql, params, |row| Ok(Ino(number(row, 0)?)))?;
    Ok(Some(Missed { base, changed: Changed::Nodes(nodes) }))
}

/// Notes that the client of a session, present or dormant, has heard of what it had missed when it
/// took the seat last.
pub(super) fn note_heard(
    transaction: &Transaction<'_>,
    account: AccountId,
    session: SessionId,
) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET base = iif(base IS NULL, NULL, missed_to),
                   missed_from = NULL, missed_to = NULL
               WHERE account = ? AND session = ? AND missed_to IS NOT NULL";
    if change(transaction, sql, params![account.0.cast_signed(), session.0])? == 0 {
        return Ok(());
    }
    forget_changes(transaction, account)
}

/// Notes the nodes that a batch changes, if a dormant session is to learn of them.
pub(in crate::embedded::sqlite) fn note_changes(
    transaction: &Transaction<'_>,
    batch: &Batch,
) -> Result<(), StoreError> {
    let account = batch.account.0.cast_signed();
    let sql = "SELECT EXISTS (SELECT 1 FROM sessions
                              WHERE account = ? AND base IS NOT NULL AND NOT outdated)";
    if !value(transaction, sql, [account])? {
        return Ok(());
    }
    let nodes = batch.nodes.iter().map(|(ino, _)| *ino);
    let changed: BTreeSet<Ino> =
        nodes.chain(batch.entries.iter().map(|(parent, ..)| *parent)).collect();
    let sql = "INSERT OR REPLACE INTO changes (account, ino, at) VALUES (?, ?, ?)";
    for ino in changed {
        let params = [account, ino.0.cast_signed(), batch.applied.0.cast_signed()];
        change(transaction, sql, params)?;
    }
    let sql = "SELECT count(*) FROM changes WHERE account = ?";
    let count: i64 = value(transaction, sql, [account])?;
    if count > CHANGES_MAX as i64 {
        change(transaction, "DELETE FROM changes WHERE account = ?", [account])?;
        change(transaction, "UPDATE sessions SET outdated = 1 WHERE account = ?", [account])?;
    }
    Ok(())
}

/// Forgets the oldest dormant sessions if there are too many, and changes that none has missed. To
/// be called after each change of an account's sessions.
pub(super) fn drop_surplus(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM sessions WHERE account = ?1 AND session IN (
                   SELECT session FROM sessions WHERE account = ?1 AND base IS NOT NULL
                   ORDER BY ifnull(missed_to, base) DESC, since_secs DESC, since_nanos DESC,
                       session DESC
                   LIMIT -1 OFFSET ?2)";
    change(transaction, sql, [account.0.cast_signed(), DORMANT_MAX as i64])?;
    forget_changes(transaction, account)
}

/// Forgets changes that no session has missed.
fn forget_changes(transaction: &Transaction<'_>, account: AccountId) -> Result<(), StoreError> {
    let sql = "DELETE FROM changes WHERE account = ?1 AND at <= ifnull((
                   SELECT min(ifnull(base, CASE WHEN missed_to = applied THEN missed_from END))
                   FROM sessions JOIN accounts ON id = account
                   WHERE account = ?1 AND NOT outdated), ?2)";
    change(transaction, sql, [account.0.cast_signed(), i64::MAX])?;
    Ok(())
}
