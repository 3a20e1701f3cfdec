//! The rows of devices' keys, and of invitations.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Transaction, params};
use xfer_protocol::Timestamp;
use xfer_protocol::limits::KEYS_MAX;
use xfer_protocol::message::{DeviceKey, PublicKey};

use super::rows::{all, change, columns_of, read_time, read_time_or_none, value};
use super::{SqliteStore, accounts};
use crate::{AccountId, CodeHash, Enrolment, Invitation, Revoked, StoreError};

impl SqliteStore {
    /// An account's keys, sorted by the time of their enrolment.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keys(&self, account: AccountId) -> Result<Vec<DeviceKey>, StoreError> {
        self.connections.read(|reader| list(reader, account))
    }

    /// How many keys each account has that are not refused at a time. Accounts that have none are left out.
    ///
    /// # Errors
    /// If the database fails.
    pub fn count_good_keys(&self, at: Timestamp) -> Result<BTreeMap<AccountId, usize>, StoreError> {
        let sql = "SELECT account, count(*) FROM device_keys
                   WHERE expires_secs IS NULL OR (expires_secs, expires_nanos) > (?, ?)
                   GROUP BY account";
        let params = params![at.secs(), at.nanos()];
        let counts = self.connections.read(|reader| {
            all(reader, sql, params, |row| {
                let (account, count): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok((AccountId(account.cast_unsigned()), count as usize))
            })
        })?;
        Ok(counts.into_iter().collect())
    }

    /// Adds a key, or replaces what is known of it.
    ///
    /// # Errors
    /// If the database fails, or the account is gone.
    pub fn enrol(&self, account: AccountId, key: &DeviceKey) -> Result<Enrolment, StoreError> {
        self.write(|writer| {
            accounts::must_live(writer, account)?;
            enrol(writer, account, key)
        })
    }

    /// Removes keys, with the sessions that were begun with them. Returns the number of keys.
    ///
    /// # Errors
    /// If the database fails.
    pub fn revoke(&self, account: AccountId, which: Revoked) -> Result<usize, StoreError> {
        self.write(|writer| {
            accounts::forget_sessions_by(writer, account, which)?;
            let id = account.0.cast_signed();
            // A machine whose key is revoked can't use its invitation once more.
            let sql = "DELETE FROM invitations WHERE account = ? AND used_by IS NOT NULL";
            change(writer, sql, [id])?;
            match which {
                Revoked::Key(key) => {
                    let sql = "DELETE FROM device_keys WHERE account = ? AND key = ?";
                    change(writer, sql, params![id, key.0])
                }
                Revoked::AllBut(kept) => {
                    let sql = "DELETE FROM device_keys WHERE account = ? AND key IS NOT ?";
                    change(writer, sql, params![id, kept.map(|key| key.0)])
                }
            }
        })
    }

    /// Sets the time from which on a key is refused. Returns whether there is such a key.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_expiry(
        &self,
        account: AccountId,
        key: PublicKey,
        at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE device_keys SET expires_secs = ?, expires_nanos = ?
                   WHERE account = ? AND key = ?";
        let (secs, nanos) = columns_of(at);
        let params = params![secs, nanos, account.0.cast_signed(), key.0];
        Ok(self.write(|writer| change(writer, sql, params))? > 0)
    }

    /// Makes the account's invitation, in place of an earlier one.
    ///
    /// # Errors
    /// If the database fails, or the account is gone.
    pub fn invite(&self, account: AccountId, invitation: Invitation) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO invitations (account, code, expires_secs, expires_nanos)
                   VALUES (?, ?, ?, ?)";
        let Invitation { code, expires } = invitation;
        self.write(|writer| {
            accounts::must_live(writer, account)?;
            let id = account.0.cast_signed();
            change(writer, sql, params![id, code.0, expires.secs(), expires.nanos()])?;
            Ok(())
        })
    }

    /// Uses the account's invitation, if this is its code, for a key and perhaps a password.
    ///
    /// # Errors
    /// If the database fails.
    pub fn redeem(
        &self,
        account: AccountId,
        code: CodeHash,
        key: &DeviceKey,
        password: Option<&str>,
    ) -> Result<Enrolment, StoreError> {
        self.write(|writer| {
            if !is_invited(writer, account, code, key)? {
                return Ok(Enrolment::NotInvited);
            }
            let enrolment = enrol(writer, account, key)?;
            // If there is no room for the key, its user may make some and come again.
            match (enrolment, password) {
                (Enrolment::Done, Some(hash)) => {
                    accounts::set_password(writer, account, hash)?;
                    let sql = "DELETE FROM invitations WHERE account = ?";
                    change(writer, sql, [account.0.cast_signed()])?;
                }
                (Enrolment::Done, None) => {
                    let sql = "UPDATE invitations SET used_by = ? WHERE account = ?";
                    change(writer, sql, params![key.key.0, account.0.cast_signed()])?;
                }
                (Enrolment::TooMany | Enrolment::NotInvited, _) => {}
            }
            Ok(enrolment)
        })
    }
}

fn list(connection: &Connection, account: AccountId) -> Result<Vec<DeviceKey>, StoreError> {
    let sql = "SELECT key, label, enrolled_secs, enrolled_nanos, used_secs, used_nanos,
                   expires_secs, expires_nanos
               FROM device_keys WHERE account = ? ORDER BY enrolled_secs, enrolled_nanos, key";
    all(connection, sql, [account.0.cast_signed()], read)
}

fn read(row: &Row<'_>) -> Result<DeviceKey, StoreError> {
    Ok(DeviceKey {
        key: PublicKey(row.get(0)?),
        label: row.get(1)?,
        enrolled: read_time(row, 2)?,
        used: read_time_or_none(row, 4)?,
        expires: read_time_or_none(row, 6)?,
    })
}

fn enrol(
    transaction: &Transaction<'_>,
    account: AccountId,
    key: &DeviceKey,
) -> Result<Enrolment, StoreError> {
    let id = account.0.cast_signed();
    let sql = "SELECT count(*) FROM device_keys WHERE account = ? AND key <> ?";
    let others: i64 = value(transaction, sql, params![id, key.key.0])?;
    if others >= KEYS_MAX as i64 {
        return Ok(Enrolment::TooMany);
    }
    let sql = "INSERT OR REPLACE INTO device_keys (
                   account, key, label, enrolled_secs, enrolled_nanos, used_secs, used_nanos,
                   expires_secs, expires_nanos
               ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let (enrolled, used, expires) = (key.enrolled, columns_of(key.used), columns_of(key.expires));
    let params = params![
        id,
        key.key.0,
        key.label,
        enrolled.secs(),
        enrolled.nanos(),
        used.0,
        used.1,
        expires.0,
        expires.1,
    ];
    change(transaction, sql, params)?;
    Ok(Enrolment::Done)
}

/// Whether this is the code of the account's invitation, which no other key has used and which has not
/// expired when the key is enrolled.
fn is_invited(
    connection: &Connection,
    account: AccountId,
    code: CodeHash,
    key: &DeviceKey,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM invitations WHERE account = ? AND code = ?
                   AND (used_by IS NULL OR used_by = ?)
                   AND (expires_secs, expires_nanos) > (?, ?))";
    let (id, now) = (account.0.cast_signed(), key.enrolled);
    value(connection, sql, params![id, code.0, key.key.0, now.secs(), now.nanos()])
}

/// Notes that a key was used to begin a session.
pub(super) fn note_use(
    transaction: &Transaction<'_>,
    account: AccountId,
    key: PublicKey,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE device_keys SET used_secs = ?, used_nanos = ? WHERE account = ? AND key = ?";
    let params = params![at.secs(), at.nanos(), account.0.cast_signed(), key.0];
    change(transaction, sql, params)?;
    Ok(())
}

/// Forgets the keys and the invitation of an account that is removed.
pub(super) fn forget_all(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<(), StoreError> {
    for sql in
        ["DELETE FROM device_keys WHERE account = ?", "DELETE FROM invitations WHERE account = ?"]
    {
        change(transaction, sql, [account.0.cast_signed()])?;
    }
    Ok(())
}
