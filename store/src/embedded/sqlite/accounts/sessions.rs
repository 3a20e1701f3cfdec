//! The rows of sessions that their clients may resume: an account's present one, and those that are
//! [`dormant`].
//!
//! A row is written in the transaction that raises the account's epoch, and goes with everything
//! that ends the session for good.
//!
//! **Invariant:** at most one row of an account has no `base`: that of the present session.

use rusqlite::{Connection, Row, Transaction, params};
use xfer_protocol::message::PublicKey;
use xfer_protocol::tree::Quota;
use xfer_protocol::{Epoch, IdRange, SessionId};

use super::super::rows::{all, change, decode, encode, first, number, read_time};
use super::super::{SqliteStore, accounts, keys, numbers};
use crate::granted;
use crate::{Account, AccountId, Resumable, Resumed, Resumption, Revoked, SecretHash, StoreError};

use super::dormant;

/// The columns that [`read`] reads.
macro_rules! columns {
    () => {
        "session, key, secret, shown, host, address, since_secs, since_nanos, attempt, device"
    };
}

impl SqliteStore {
    /// Begins a client's session like [`SqliteStore::begin_session`], which the client may resume.
    /// The session that it replaces is forgotten.
    ///
    /// # Errors
    /// If the database fails.
    pub fn begin_resumable(
        &self,
        account: AccountId,
        session: &Resumable,
        replaces: Option<SessionId>,
    ) -> Result<Account, StoreError> {
        self.write(|writer| {
            // Names are random. If one comes twice all the same, the later session has it.
            for name in replaces.into_iter().chain([session.session]) {
                remove(writer, account, name)?;
            }
            let begun = accounts::begin_session(writer, account)?;
            put(writer, &begun, session)?;
            Ok(begun)
        })
    }

    /// The account's present session, if its client may resume it.
    ///
    /// # Errors
    /// If the database fails.
    pub fn resumable(&self, account: AccountId) -> Result<Option<Resumable>, StoreError> {
        let sql =
            concat!("SELECT ", columns!(), " FROM sessions WHERE account = ? AND base IS NULL");
        self.connections.read(|reader| first(reader, sql, [account.0.cast_signed()], read))
    }

    /// The present sessions of all accounts that their clients may resume, sorted by account.
    ///
    /// # Errors
    /// If the database fails.
    pub fn present_sessions(&self) -> Result<Vec<(AccountId, Resumable)>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            ", account FROM sessions WHERE base IS NULL ORDER BY account"
        );
        let of_account = |row: &Row<'_>| Ok((AccountId(number(row, 10)?), read(row)?));
        self.connections.read(|reader| all(reader, sql, [], of_account))
    }

    /// The account's session with this name, present or dormant.
    ///
    /// # Errors
    /// If the database fails.
    pub fn session_of(
        &self,
        account: AccountId,
        session: SessionId,
    ) -> Result<Option<Resumable>, StoreError> {
        let found = self.connections.read(|reader| find(reader, account, session))?;
        Ok(found.map(|(known, _)| known))
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

    /// Grants numbers like [`SqliteStore::grant_ids`]. The account's present session keeps them when
    /// it is resumed.
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

    /// The numbers that all sessions which can be resumed may use, sorted. Dormant ones that have
    /// missed an op are told to use none of theirs.
    ///
    /// # Errors
    /// If the database fails.
    pub fn granted(&self) -> Result<Vec<IdRange>, StoreError> {
        let sql = "SELECT granted, iif(base IS NULL, next_id, 0)
                   FROM sessions JOIN accounts ON id = account
                   WHERE base IS NULL OR base = applied";
        let of_each = self.connections.read(|reader| all(reader, sql, [], read_numbers))?;
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
            if !accounts::is_at(writer, account, epoch)? {
                return Ok(());
            }
            let sql = "DELETE FROM sessions WHERE account = ? AND base IS NULL";
            change(writer, sql, [account.0.cast_signed()])?;
            dormant::drop_surplus(writer, account)
        })
    }
}

/// Forgets all of the account's sessions.
pub(super) fn forget_all(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<(), StoreError> {
    change(transaction, "DELETE FROM sessions WHERE account = ?", [account.0.cast_signed()])?;
    dormant::drop_surplus(transaction, account)
}

/// Forgets those of the account's sessions that a password began.
pub(super) fn forget_begun_by_password(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM sessions WHERE account = ? AND device IS NULL";
    change(transaction, sql, [account.0.cast_signed()])?;
    dormant::drop_surplus(transaction, account)
}

/// Forgets those of the account's sessions that these devices began.
pub(in crate::embedded::sqlite) fn forget_begun_by(
    transaction: &Transaction<'_>,
    account: AccountId,
    devices: Revoked,
) -> Result<(), StoreError> {
    let id = account.0.cast_signed();
    match devices {
        Revoked::Key(device) => {
            let sql = "DELETE FROM sessions WHERE account = ? AND device = ?";
            change(transaction, sql, params![id, device.0])?;
        }
        Revoked::AllBut(kept) => {
            let sql = "DELETE FROM sessions
                       WHERE account = ? AND device IS NOT NULL AND device IS NOT ?";
            change(transaction, sql, params![id, kept.map(|device| device.0)])?;
        }
    }
    dormant::drop_surplus(transaction, account)
}

fn remove(
    transaction: &Transaction<'_>,
    account: AccountId,
    session: SessionId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM sessions WHERE account = ? AND session = ?";
    change(transaction, sql, params![account.0.cast_signed(), session.0])?;
    Ok(())
}

fn put(
    transaction: &Transaction<'_>,
    account: &Account,
    session: &Resumable,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO sessions (
                   account, session, key, secret, shown, host, address, since_secs, since_nanos,
                   granted, attempt, quota_bytes, quota_nodes, device
               ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
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
        session.device.map(|device| device.0),
    ];
    change(transaction, sql, params)?;
    match session.device {
        Some(device) => keys::note_use(transaction, account.id, device, session.since),
        None => Ok(()),
    }
}

/// A session with this name, and whether it is dormant.
fn find(
    connection: &Connection,
    account: AccountId,
    session: SessionId,
) -> Result<Option<(Resumable, bool)>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        ", base IS NOT NULL FROM sessions WHERE account = ? AND session = ?"
    );
    let params = params![account.0.cast_signed(), session.0];
    first(connection, sql, params, |row| Ok((read(row)?, row.get(10)?)))
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
        device: row.get::<_, Option<_>>(9)?.map(PublicKey),
    })
}

fn resume(
    transaction: &Transaction<'_>,
    account: AccountId,
    with: &Resumption,
) -> Result<Option<Resumed>, StoreError> {
    let known = find(transaction, account, with.session)?;
    let Some((known, is_dormant)) = known.filter(|(known, _)| known.grants(with)) else {
        return Ok(None);
    };
    // It was given that secret with the last answer.
    if with.shown == known.secret {
        dormant::note_heard(transaction, account, with.session)?;
    }
    if is_dormant {
        dormant::wake(transaction, account, with.session)?;
    }
    let missed = dormant::missed(transaction, account)?;
    note_resumption(transaction, account, with)?;
    let (granted, next_id) = numbers_of(transaction, account)?.unwrap_or_default();
    let granted = granted::left(granted, next_id);
    let quota = quota_of(transaction, account)?;
    let account = accounts::raise_epoch(transaction, account)?;
    let quota = quota.unwrap_or(account.quota);
    Ok(Some(Resumed { account, quota, granted, next_id, missed }))
}

fn note_resumption(
    transaction: &Transaction<'_>,
    account: AccountId,
    with: &Resumption,
) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET secret = ?, shown = ?, address = ?, attempt = ?
               WHERE account = ? AND base IS NULL";
    let Resumption { session: _, shown, next, address, attempt } = with;
    let attempt = attempt.cast_signed();
    let params = params![next.0, shown.0, address, attempt, account.0.cast_signed()];
    change(transaction, sql, params)?;
    Ok(())
}

/// The highest quota that the account has had since its present session began.
fn quota_of(connection: &Connection, account: AccountId) -> Result<Option<Quota>, StoreError> {
    let sql = "SELECT quota_bytes, quota_nodes FROM sessions WHERE account = ? AND base IS NULL";
    let read = |row: &Row<'_>| Ok(Quota { bytes: number(row, 0)?, nodes: number(row, 1)? });
    first(connection, sql, [account.0.cast_signed()], read)
}

/// Notes a quota that was set, for all of the account's sessions.
pub(super) fn raise_quota(
    transaction: &Transaction<'_>,
    account: AccountId,
    quota: Quota,
) -> Result<(), StoreError> {
    let sql = "SELECT session, quota_bytes, quota_nodes FROM sessions WHERE account = ?";
    let all = all(transaction, sql, [account.0.cast_signed()], |row| {
        let quota = Quota { bytes: number(row, 1)?, nodes: number(row, 2)? };
        Ok((SessionId(row.get(0)?), quota))
    })?;
    // The numbers are unsigned, which SQL would compare as signed ones.
    for (session, held) in all {
        let (bytes, nodes) = (held.bytes.max(quota.bytes), held.nodes.max(quota.nodes));
        let sql = "UPDATE sessions SET quota_bytes = ?, quota_nodes = ?
                   WHERE account = ? AND session = ?";
        let id = account.0.cast_signed();
        change(transaction, sql, params![bytes.cast_signed(), nodes.cast_signed(), id, session.0])?;
    }
    Ok(())
}

fn note_granted(
    transaction: &Transaction<'_>,
    account: AccountId,
    range: IdRange,
) -> Result<(), StoreError> {
    let Some((granted, next_id)) = numbers_of(transaction, account)? else { return Ok(()) };
    let granted = granted::with(granted, next_id, range);
    let sql = "UPDATE sessions SET granted = ? WHERE account = ? AND base IS NULL";
    change(transaction, sql, params![encode(&granted)?, account.0.cast_signed()])?;
    Ok(())
}

/// The numbers granted to the account's present session, and the end of those that are used up.
fn numbers_of(
    connection: &Connection,
    account: AccountId,
) -> Result<Option<(Vec<IdRange>, u64)>, StoreError> {
    let sql = "SELECT granted, next_id FROM sessions JOIN accounts ON id = account
               WHERE account = ? AND base IS NULL";
    first(connection, sql, [account.0.cast_signed()], read_numbers)
}

/// Reads granted numbers, and the end of those that are used up, from the first two columns.
pub(super) fn read_numbers(row: &Row<'_>) -> Result<(Vec<IdRange>, u64), StoreError> {
    let granted = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok((decode(granted)?, number(row, 1)?))
}
