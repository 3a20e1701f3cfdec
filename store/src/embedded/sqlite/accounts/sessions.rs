//! The rows of sessions that their clients may resume, at most one for each account.
//!
//! A row is written in the transaction that raises the account's epoch, and goes with everything
//! that ends the session for good.

use rusqlite::{Connection, Row, Transaction, params};
use xfer_protocol::message::PublicKey;
use xfer_protocol::tree::Quota;
use xfer_protocol::{Epoch, IdRange, SessionId};

use super::super::rows::{all, change, decode, encode, first, number, read_time};
use super::super::{SqliteStore, accounts, numbers};
use crate::granted;
use crate::{Account, AccountId, Resumable, Resumed, Resumption, SecretHash, StoreError};

impl SqliteStore {
    /// Begins a client's session like [`SqliteStore::begin_session`], which the client may resume.
    ///
    /// # Errors
    /// If the database fails.
    pub fn begin_resumable(
        &self,
        account: AccountId,
        session: &Resumable,
    ) -> Result<Account, StoreError> {
        self.write(|writer| {
            let begun = accounts::begin_session(writer, account)?;
            put(writer, &begun, session)?;
            Ok(begun)
        })
    }

    /// The account's session that its client may resume.
    ///
    /// # Errors
    /// If the database fails.
    pub fn resumable(&self, account: AccountId) -> Result<Option<Resumable>, StoreError> {
        self.connections.read(|reader| find(reader, account))
    }

    /// Resumes a session, if it is the account's and the client has shown one of its secrets.
    ///
    /// # Errors
    /// If the database fails.
    pub fn resume(
        &self,
        account: AccountId,
        with: &Resumption,
    ) -> Result<Option<Resumed>, StoreError> {
        self.write(|writer| resume(writer, account, with))
    }

    /// Grants numbers like [`SqliteStore::grant_ids`]. The account's session keeps them when it is
    /// resumed.
    ///
    /// # Errors
    /// If the database fails.
    pub fn grant_ids_to(&self, account: AccountId, count: u64) -> Result<IdRange, StoreError> {
        let range = self.write(|writer| {
            let range = numbers::grant_ids(writer, count)?;
            note_granted(writer, account, range)?;
            Ok(range)
        })?;
        self.marked(self.mark.raise_durably(range.end));
        Ok(range)
    }

    /// The numbers that all sessions which can be resumed may use, sorted.
    ///
    /// # Errors
    /// If the database fails.
    pub fn granted(&self) -> Result<Vec<IdRange>, StoreError> {
        let sql = "SELECT granted, next_id FROM sessions JOIN accounts ON id = account";
        let of_each = self.connections.read(|reader| all(reader, sql, [], numbers_in))?;
        let left = of_each.into_iter().map(|(granted, next_id)| granted::left(granted, next_id));
        let mut granted: Vec<_> = left.flatten().collect();
        granted.sort_unstable_by_key(|range| range.first);
        Ok(granted)
    }

    /// Ends the session of this epoch for good: it can't be resumed any more.
    ///
    /// # Errors
    /// If the database fails.
    pub fn end_for_good(&self, account: AccountId, epoch: Epoch) -> Result<(), StoreError> {
        self.write(|writer| {
            if accounts::is_at(writer, account, epoch)? { forget(writer, account) } else { Ok(()) }
        })
    }
}

/// Forgets the account's session, if there is one.
pub(super) fn forget(transaction: &Transaction<'_>, account: AccountId) -> Result<(), StoreError> {
    change(transaction, "DELETE FROM sessions WHERE account = ?", [account.0.cast_signed()])?;
    Ok(())
}

fn put(
    transaction: &Transaction<'_>,
    account: &Account,
    session: &Resumable,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO sessions (
                   account, session, key, secret, shown, host, address, since_secs, since_nanos,
                   granted, attempt, quota_bytes, quota_nodes
               ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let params = params![
        account.id.0.cast_signed(),
        session.session.0,
        session.key.0,
        session.secret.0,
        session.shown.0,
        session.host,
        session.address,
        session.since.secs(),
        session.since.nanos(),
        encode(&Vec::<IdRange>::new())?,
        session.attempt.cast_signed(),
        account.quota.bytes.cast_signed(),
        account.quota.nodes.cast_signed(),
    ];
    change(transaction, sql, params)?;
    Ok(())
}

fn find(connection: &Connection, account: AccountId) -> Result<Option<Resumable>, StoreError> {
    let sql = "SELECT session, key, secret, shown, host, address, since_secs, since_nanos, attempt
               FROM sessions WHERE account = ?";
    first(connection, sql, [account.0.cast_signed()], read)
}

fn read(row: &Row<'_>) -> Result<Resumable, StoreError> {
    Ok(Resumable {
        session: SessionId(row.get(0)?),
        key: PublicKey(row.get(1)?),
        secret: SecretHash(row.get(2)?),
        shown: SecretHash(row.get(3)?),
        host: row.get(4)?,
        address: row.get(5)?,
        since: read_time(row, 6)?,
        attempt: number(row, 8)?,
    })
}

fn resume(
    transaction: &Transaction<'_>,
    account: AccountId,
    with: &Resumption,
) -> Result<Option<Resumed>, StoreError> {
    let known = find(transaction, account)?;
    if !known.is_some_and(|known| known.grants(with)) {
        return Ok(None);
    }
    let sql = "UPDATE sessions SET secret = ?, shown = ?, address = ?, attempt = ?
               WHERE account = ?";
    let Resumption { session: _, shown, next, address, attempt } = with;
    let attempt = attempt.cast_signed();
    let params = params![next.0, shown.0, address, attempt, account.0.cast_signed()];
    change(transaction, sql, params)?;
    let (granted, next_id) = numbers_of(transaction, account)?.unwrap_or_default();
    let granted = granted::left(granted, next_id);
    let quota = quota_of(transaction, account)?;
    let account = accounts::raise_epoch(transaction, account)?;
    let quota = quota.unwrap_or(account.quota);
    Ok(Some(Resumed { account, quota, granted, next_id }))
}

/// The highest quota that the account has had in its session.
fn quota_of(connection: &Connection, account: AccountId) -> Result<Option<Quota>, StoreError> {
    let sql = "SELECT quota_bytes, quota_nodes FROM sessions WHERE account = ?";
    let read = |row: &Row<'_>| Ok(Quota { bytes: number(row, 0)?, nodes: number(row, 1)? });
    first(connection, sql, [account.0.cast_signed()], read)
}

/// Notes a quota that was set, for the account's session.
pub(super) fn raise_quota(
    transaction: &Transaction<'_>,
    account: AccountId,
    quota: Quota,
) -> Result<(), StoreError> {
    let Some(held) = quota_of(transaction, account)? else { return Ok(()) };
    let (bytes, nodes) = (held.bytes.max(quota.bytes), held.nodes.max(quota.nodes));
    let sql = "UPDATE sessions SET quota_bytes = ?, quota_nodes = ? WHERE account = ?";
    let params = [bytes.cast_signed(), nodes.cast_signed(), account.0.cast_signed()];
    change(transaction, sql, params)?;
    Ok(())
}

fn note_granted(
    transaction: &Transaction<'_>,
    account: AccountId,
    range: IdRange,
) -> Result<(), StoreError> {
    let Some((granted, next_id)) = numbers_of(transaction, account)? else { return Ok(()) };
    let granted = granted::with(granted, next_id, range);
    let sql = "UPDATE sessions SET granted = ? WHERE account = ?";
    change(transaction, sql, params![encode(&granted)?, account.0.cast_signed()])?;
    Ok(())
}

/// The numbers granted to the account's session, and the end of those that are used up.
fn numbers_of(
    connection: &Connection,
    account: AccountId,
) -> Result<Option<(Vec<IdRange>, u64)>, StoreError> {
    let sql = "SELECT granted, next_id FROM sessions JOIN accounts ON id = account
               WHERE account = ?";
    first(connection, sql, [account.0.cast_signed()], numbers_in)
}

fn numbers_in(row: &Row<'_>) -> Result<(Vec<IdRange>, u64), StoreError> {
    let granted = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok((decode(granted)?, number(row, 1)?))
}
