//! The rows of accounts: their names, passwords, quotas and usage; [`sessions`] that can be resumed,
//! also [`dormant`] ones, and [`removal`].

mod sessions;
mod dormant;
pub(super) mod removal;

use rusqlite::{Connection, Row, Transaction, params};
use xfer_protocol::tree::{Quota, Usage};
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use super::rows::{
    all, change, columns_of, damaged, first, number, put_node, read_name, read_time_or_none, value,
    write_entry,
};
use super::{SqliteStore, claim};
use crate::{Account, AccountId, NewAccount, StoreError};

pub(super) use dormant::note_changes;
pub(super) use sessions::forget_begun_by as forget_sessions_by;

/// The condition for accounts that exist and were not removed (see [`removal`]).
macro_rules! living {
    () => {
        "substr(name, 1, 1) <> x'2f'"
    };
}
pub(super) use living;

impl SqliteStore {
    /// Creates an account, with a tree that has its root, its inbox and its outbox.
    ///
    /// # Errors
    /// If the database fails.
    pub fn create(&self, new: &NewAccount) -> Result<AccountId, StoreError> {
        self.write(|writer| create(writer, new))
    }

    /// Creates an account with a password, as [`SqliteStore::create`] does.
    ///
    /// # Errors
    /// If the database fails.
    pub fn create_account(
        &self,
        name: &Name,
        password: &str,
        quota: Quota,
        inbox: Quota,
        time: Timestamp,
    ) -> Result<AccountId, StoreError> {
        let (name, password) = (name.clone(), Some(password.to_owned()));
        self.create(&NewAccount { name, password, quota, inbox, time })
    }

    /// An account by its name.
    ///
    /// # Errors
    /// If the database fails.
    pub fn account(&self, name: &Name) -> Result<Option<Account>, StoreError> {
        self.connections.read(|reader| by_name(reader, name))
    }

    /// All accounts, sorted by name.
    ///
    /// # Errors
    /// If the database fails.
    pub fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.connections.read(|reader| list(reader))
    }

    /// Sets an account's password hash.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_password(&self, account: AccountId, password: &str) -> Result<(), StoreError> {
        self.write(|writer| {
            set_password(writer, account, password)?;
            // An invitation would replace it again.
            let sql = "DELETE FROM invitations WHERE account = ?";
            change(writer, sql, [account.0.cast_signed()])?;
            Ok(())
        })
    }

    /// Sets whether an account takes passwords.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_takes_passwords(&self, account: AccountId, takes: bool) -> Result<(), StoreError> {
        let sql = concat!("UPDATE accounts SET takes_passwords = ? WHERE id = ? AND ", living!());
        let params = params![takes, account.0.cast_signed()];
        self.write(|writer| must_exist(change(writer, sql, params)?))
    }

    /// Sets the time from which on an account is disabled.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_disabled_from(
        &self,
        account: AccountId,
        from: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let sql = concat!(
            "UPDATE accounts SET disabled_secs = ?, disabled_nanos = ? WHERE id = ? AND ",
            living!()
        );
        let (secs, nanos) = columns_of(from);
        let params = params![secs, nanos, account.0.cast_signed()];
        self.write(|writer| must_exist(change(writer, sql, params)?))
    }

    /// Sets the quota of an account's tree.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), StoreError> {
        self.write(|writer| set_quota(writer, account, quota))
    }

    /// Sets the quota of an account's inbox. Deliveries that already wait there stay.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_inbox(&self, account: AccountId, inbox: Quota) -> Result<(), StoreError> {
        self.write(|writer| set_inbox(writer, account, inbox))
    }

    /// Begins a session: raises the account's epoch by one, durably, and returns the account with
    /// that epoch. From now on batches of older epochs are refused, and the session before is
    /// dormant.
    ///
    /// # Errors
    /// If the database fails.
    pub fn begin_session(&self, account: AccountId) -> Result<Account, StoreError> {
        self.write(|writer| begin_session(writer, account))
    }

    /// Whether the account exists and no session began after that of this epoch.
    ///
    /// # Errors
    /// If the database fails.
    pub fn is_at(&self, account: AccountId, epoch: Epoch) -> Result<bool, StoreError> {
        self.connections.read(|reader| is_at(reader, account, epoch))
    }

    /// Whether a command works on this account beside the server, so that no session of it can
    /// begin. A session asks this once it has its seat.
    ///
    /// # Errors
    /// If the database fails.
    pub fn is_claimed(&self, account: AccountId) -> Result<bool, StoreError> {
        claim::is_claimed(&self.dir, account)
    }
}

/// The columns that [`read`] reads; those of a removed account have another name.
macro_rules! columns {
    () => {
        columns!("name")
    };
    ($name:literal) => {
        concat!(
            "id, ",
            $name,
            ", password, quota_bytes, quota_nodes, inbox_bytes, inbox_nodes,
            usage_bytes, usage_nodes, applied, epoch, tidied, waiting_bytes, waiting_items,
            takes_passwords, disabled_secs, disabled_nanos"
        )
    };
}
use columns;

pub(super) fn create(
    transaction: &Transaction<'_>,
    new: &NewAccount,
) -> Result<AccountId, StoreError> {
    let nodes = new.nodes();
    let sql = "INSERT INTO accounts (
                   name, password, quota_bytes, quota_nodes, inbox_bytes, inbox_nodes,
                   usage_bytes, usage_nodes, applied, epoch
               ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0) ON CONFLICT (name) DO NOTHING";
    let charged: u64 = nodes.iter().map(|(_, _, node)| node.charge()).sum();
    let params = params![
        new.name.as_bytes(),
        new.password.as_deref().unwrap_or_default(),
        new.quota.bytes.cast_signed(),
        new.quota.nodes.cast_signed(),
        new.inbox.bytes.cast_signed(),
        new.inbox.nodes.cast_signed(),
        charged.cast_signed(),
        nodes.len() as i64,
    ];
    if change(transaction, sql, params)? == 0 {
        return Err(StoreError::Exists(new.name.clone()));
    }
    let account = AccountId(transaction.last_insert_rowid().cast_unsigned());
    for (ino, name, node) in &nodes {
        put_node(transaction, account, *ino, node)?;
        if let Some(name) = name {
            let name = Name::new(name).map_err(|error| StoreError::Database(error.to_string()))?;
            write_entry(transaction, account, (Ino::ROOT, &name), Some(*ino))?;
        }
    }
    Ok(account)
}

pub(super) fn by_name(connection: &Connection, name: &Name) -> Result<Option<Account>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM accounts WHERE name = ?");
    let account = first(connection, sql, [name.as_bytes()], read)?;
    match account {
        Some(found) if found.name != *name => {
            Err(damaged(format!("the row of account {name} has another name")))
        }
        account => Ok(account),
    }
}

/// Compares the table with the index by which accounts are found.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let said: String =
        connection.query_row("PRAGMA integrity_check(accounts)", [], |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(damaged(format!("the accounts: {said}"))) }
}

/// Finds out why no account has the epoch of a session's batch: it was fenced, or its row is
/// damaged.
pub(super) fn fenced(
    connection: &Connection,
    account: AccountId,
    epoch: Epoch,
) -> Result<(), StoreError> {
    let sql = "SELECT epoch FROM accounts WHERE id = ?";
    let held = first(connection, sql, [account.0.cast_signed()], |row| number(row, 0))?;
    match held {
        // A deleted account has no row; numbers are never used again.
        None => check(connection),
        Some(held) if held > epoch.0 => Ok(()),
        Some(held) => Err(damaged(format!(
            "account {} is at epoch {held}, and its session began at {}",
            account.0, epoch.0
        ))),
    }
}

pub(super) fn list(connection: &Connection) -> Result<Vec<Account>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM accounts WHERE ", living!(), " ORDER BY name");
    all(connection, sql, [], read)
}

pub(super) fn set_password(
    transaction: &Transaction<'_>,
    account: AccountId,
    password: &str,
) -> Result<(), StoreError> {
    let sql = concat!("UPDATE accounts SET password = ? WHERE id = ? AND ", living!());
    must_exist(change(transaction, sql, params![password, account.0.cast_signed()])?)?;
    // Someone else who knew the old password may have begun one.
    sessions::forget_begun_by_password(transaction, account)
}

pub(super) fn set_quota(
    transaction: &Transaction<'_>,
    account: AccountId,
    quota: Quota,
) -> Result<(), StoreError> {
    let sql = concat!(
        "UPDATE accounts SET quota_bytes = ?, quota_nodes = ? WHERE id = ? AND ",
        living!()
    );
    let params = [quota.bytes.cast_signed(), quota.nodes.cast_signed(), account.0.cast_signed()];
    must_exist(change(transaction, sql, params)?)?;
    sessions::raise_quota(transaction, account, quota)
}

pub(super) fn set_inbox(
    transaction: &Transaction<'_>,
    account: AccountId,
    inbox: Quota,
) -> Result<(), StoreError> {
    let sql = concat!(
        "UPDATE accounts SET inbox_bytes = ?, inbox_nodes = ? WHERE id = ? AND ",
        living!()
    );
    let params = [inbox.bytes.cast_signed(), inbox.nodes.cast_signed(), account.0.cast_signed()];
    must_exist(change(transaction, sql, params)?)
}

pub(super) fn begin_session(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<Account, StoreError> {
    dormant::displace(transaction, account)?;
    dormant::drop_surplus(transaction, account)?;
    let sql = "UPDATE accounts SET next_id = 0 WHERE id = ?";
    change(transaction, sql, [account.0.cast_signed()])?;
    raise_epoch(transaction, account)
}

/// Raises the epoch, which fences all sessions before.
pub(super) fn raise_epoch(
    transaction: &Transaction<'_>,
    account: AccountId,
) -> Result<Account, StoreError> {
    let sql = concat!(
        "UPDATE accounts SET epoch = epoch + 1 WHERE id = ? AND ",
        living!(),
        " RETURNING ",
        columns!()
    );
    first(transaction, sql, [account.0.cast_signed()], read)?.ok_or_else(gone)
}

/// Whether the account exists and no session began after that of `epoch`.
pub(super) fn is_at(
    connection: &Connection,
    account: AccountId,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM accounts WHERE id = ? AND epoch = ?)";
    value(connection, sql, [account.0.cast_signed(), epoch.0.cast_signed()])
}

/// Whether a session of the account may have begun after that of `epoch`. A removal raises the epoch too,
/// and none begins after it.
pub(super) fn is_beyond(
    connection: &Connection,
    account: AccountId,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let sql = concat!(
        "SELECT EXISTS (SELECT 1 FROM accounts WHERE id = ? AND epoch > ? AND ",
        living!(),
        ")"
    );
    value(connection, sql, [account.0.cast_signed(), epoch.0.cast_signed()])
}

/// Notes that no session up to that of `epoch` left data behind, unless a later one began.
pub(super) fn note_all_tidied(
    transaction: &Transaction<'_>,
    account: AccountId,
    epoch: Epoch,
) -> Result<(), StoreError> {
    let sql = "UPDATE accounts SET tidied = epoch WHERE id = ? AND epoch = ?";
    change(transaction, sql, [account.0.cast_signed(), epoch.0.cast_signed()])?;
    Ok(())
}

/// Notes that the session of `epoch` left no data behind, if none before it did, and no later one
/// began. Returns whether that is so.
pub(super) fn note_session_tidied(
    transaction: &Transaction<'_>,
    account: AccountId,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let sql =
        "UPDATE accounts SET tidied = epoch WHERE id = ? AND epoch = ? AND tidied + 1 >= epoch";
    Ok(change(transaction, sql, [account.0.cast_signed(), epoch.0.cast_signed()])? > 0)
}

fn read(row: &Row<'_>) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId(number(row, 0)?),
        name: read_name(row, 1)?,
        password: Some(row.get(2)?).filter(|password: &String| !password.is_empty()),
        quota: Quota { bytes: number(row, 3)?, nodes: number(row, 4)? },
        inbox: Quota { bytes: number(row, 5)?, nodes: number(row, 6)? },
        usage: Usage { bytes: number(row, 7)?, nodes: number(row, 8)? },
        applied: Seq(number(row, 9)?),
        epoch: Epoch(number(row, 10)?),
        tidied: Epoch(number(row, 11)?),
        waiting: Usage { bytes: number(row, 12)?, nodes: number(row, 13)? },
        takes_passwords: row.get(14)?,
        disabled_from: read_time_or_none(row, 15)?,
    })
}

/// Fails if the account was removed.
pub(super) fn must_live(connection: &Connection, account: AccountId) -> Result<(), StoreError> {
    let sql = concat!("SELECT count(*) FROM accounts WHERE id = ? AND ", living!());
    let count: i64 = value(connection, sql, [account.0.cast_signed()])?;
    must_exist(usize::from(count > 0))
}

pub(super) fn must_exist(changed: usize) -> Result<(), StoreError> {
    if changed == 0 { Err(gone()) } else { Ok(()) }
}

fn gone() -> StoreError {
    StoreError::NoAccount
}
