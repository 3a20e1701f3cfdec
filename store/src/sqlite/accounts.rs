//! Accounts: who there is, and what each may and does take up.

use rusqlite::{Connection, Row, Transaction, params};
use xfer_protocol::tree::{Kind, Node, Quota, Usage};
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use super::commit::write_entry;
use super::rows::{all, change, damaged, first, number, put_node, read_name, value};
use crate::{Account, AccountId, StoreError};

macro_rules! columns {
    () => {
        "id, name, password, quota_bytes, quota_nodes, inbox_bytes, inbox_nodes,
         usage_bytes, usage_nodes, applied, epoch, tidied"
    };
}

/// The condition for accounts that are there, and not about to be removed (see
/// [`removal`](super::removal)).
macro_rules! living {
    () => {
        "substr(name, 1, 1) <> x'2f'"
    };
}
pub(super) use living;

/// What an account is made with.
pub(super) struct NewAccount<'a> {
    pub(super) name: &'a Name,
    pub(super) password: &'a str,
    pub(super) quota: Quota,
    pub(super) inbox: Quota,
    pub(super) time: Timestamp,
}

pub(super) fn create(
    transaction: &Transaction<'_>,
    new: &NewAccount<'_>,
) -> Result<AccountId, StoreError> {
    let nodes = fixtures(new.time);
    let sql = "INSERT INTO accounts (
                   name, password, quota_bytes, quota_nodes, inbox_bytes, inbox_nodes,
                   usage_bytes, usage_nodes, applied, epoch
               ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0) ON CONFLICT (name) DO NOTHING";
    let charged: u64 = nodes.iter().map(|(_, _, node)| node.charge()).sum();
    let params = params![
        new.name.as_bytes(),
        new.password,
        new.quota.bytes.cast_signed(),
        new.quota.nodes.cast_signed(),
        new.inbox.bytes.cast_signed(),
        new.inbox.nodes.cast_signed(),
        charged.cast_signed(),
        nodes.len() as i64,
    ];
    if change(transaction, sql, params)? == 0 {
        return Err(StoreError::Refused(format!("there is an account {} already", new.name)));
    }
    let account = AccountId(transaction.last_insert_rowid().cast_unsigned());
    for (ino, name, node) in &nodes {
        put_node(transaction, account, *ino, node)?;
        if let Some(name) = name {
            let name = Name::new(name).map_err(|error| StoreError::Refused(error.to_string()))?;
            write_entry(transaction, account, (Ino::ROOT, &name), Some(*ino))?;
        }
    }
    Ok(account)
}

/// The nodes that every tree begins with, and their names in the root.
fn fixtures(time: Timestamp) -> [(Ino, Option<&'static [u8]>, Node); 3] {
    let names: [&'static [u8]; 2] = [b"inbox", b"outbox"];
    let kind = |names: &[&[u8]]| Kind::Directory {
        parent: Ino::ROOT,
        entries: names.len() as u64,
        name_bytes: names.iter().map(|name| name.len() as u64).sum(),
    };
    let directory = |mode, nlink, entries: &[&[u8]]| Node {
        kind: kind(entries),
        mode,
        uid: 0,
        gid: 0,
        nlink,
        atime: time,
        mtime: time,
        ctime: time,
        xattrs: Default::default(),
        sent: None,
    };
    [
        (Ino::ROOT, None, directory(0o755, 4, &names)),
        (Ino::INBOX, Some(names[0]), directory(0o700, 2, &[])),
        (Ino::OUTBOX, Some(names[1]), directory(0o700, 2, &[])),
    ]
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

/// Compares the table with the index that accounts are found by.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let said: String =
        connection.query_row("PRAGMA integrity_check(accounts)", [], |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(damaged(format!("the accounts: {said}"))) }
}

/// Why a session's batch finds no account of its epoch: it was fenced, or its row is damaged.
pub(super) fn fenced(
    connection: &Connection,
    account: AccountId,
    epoch: Epoch,
) -> Result<(), StoreError> {
    let sql = "SELECT epoch FROM accounts WHERE id = ?";
    let held = first(connection, sql, [account.0.cast_signed()], |row| number(row, 0))?;
    match held {
        // One that was removed has no row; numbers are never used again.
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
    must_exist(change(transaction, sql, params![password, account.0.cast_signed()])?)
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
    must_exist(change(transaction, sql, params)?)
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
    let sql = concat!(
        "UPDATE accounts SET epoch = epoch + 1 WHERE id = ? AND ",
        living!(),
        " RETURNING ",
        columns!()
    );
    first(transaction, sql, [account.0.cast_signed()], read)?.ok_or_else(gone)
}

/// Whether the account is there, and no session began after that of `epoch`.
pub(super) fn is_at(
    connection: &Connection,
    account: AccountId,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM accounts WHERE id = ? AND epoch = ?)";
    value(connection, sql, [account.0.cast_signed(), epoch.0.cast_signed()])
}

/// Notes that the session of `epoch` left nothing, unless a later one began.
pub(super) fn note_tidied(
    transaction: &Transaction<'_>,
    account: AccountId,
    epoch: Epoch,
) -> Result<(), StoreError> {
    let sql = "UPDATE accounts SET tidied = epoch WHERE id = ? AND epoch = ?";
    change(transaction, sql, [account.0.cast_signed(), epoch.0.cast_signed()])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId(number(row, 0)?),
        name: read_name(row, 1)?,
        password: row.get(2)?,
        quota: Quota { bytes: number(row, 3)?, nodes: number(row, 4)? },
        inbox: Quota { bytes: number(row, 5)?, nodes: number(row, 6)? },
        usage: Usage { bytes: number(row, 7)?, nodes: number(row, 8)? },
        applied: Seq(number(row, 9)?),
        epoch: Epoch(number(row, 10)?),
        tidied: Epoch(number(row, 11)?),
    })
}

pub(super) fn must_exist(changed: usize) -> Result<(), StoreError> {
    if changed == 0 { Err(gone()) } else { Ok(()) }
}

fn gone() -> StoreError {
    StoreError::Refused("there is no such account (any more)".into())
}
