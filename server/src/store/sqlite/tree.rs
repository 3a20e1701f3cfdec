//! Reading trees: nodes, entries, listings.

use rusqlite::{Connection, params};
use xfer_protocol::tree::Node;
use xfer_protocol::{Ino, Name};

use super::rows::{all, first, node_columns, number, read_name, read_node};
use crate::store::{AccountId, StoreError};

pub(super) fn node(
    connection: &Connection,
    account: AccountId,
    ino: Ino,
) -> Result<Option<Node>, StoreError> {
    let sql = concat!("SELECT ", node_columns!(), " FROM nodes n WHERE account = ? AND ino = ?");
    first(connection, sql, params![account.0.cast_signed(), ino.0.cast_signed()], |row| {
        read_node(row, 0)
    })
}

pub(super) fn entry(
    connection: &Connection,
    account: AccountId,
    parent: Ino,
    name: &Name,
) -> Result<Option<Ino>, StoreError> {
    let sql = "SELECT ino FROM entries WHERE account = ? AND parent = ? AND name = ?";
    let params = params![account.0.cast_signed(), parent.0.cast_signed(), name.as_bytes()];
    first(connection, sql, params, |row| Ok(Ino(number(row, 0)?)))
}

pub(super) fn page(
    connection: &Connection,
    account: AccountId,
    directory: Ino,
    after: Option<&Name>,
    count: usize,
) -> Result<Vec<(Name, Ino, Node)>, StoreError> {
    // The left join makes an entry without its node an error, where a plain one would hide it.
    let sql = concat!(
        "SELECT e.name, e.ino, ",
        node_columns!(),
        " FROM entries e LEFT JOIN nodes n ON n.account = e.account AND n.ino = e.ino
         WHERE e.account = ? AND e.parent = ? AND e.name > ? ORDER BY e.name LIMIT ?"
    );
    let params = params![
        account.0.cast_signed(),
        directory.0.cast_signed(),
        after.map_or(&b""[..], Name::as_bytes), // every name comes after the empty one
        i64::try_from(count).unwrap_or(i64::MAX),
    ];
    all(connection, sql, params, |row| {
        Ok((read_name(row, 0)?, Ino(number(row, 1)?), read_node(row, 2)?))
    })
}

pub(super) fn orphans(connection: &Connection, account: AccountId) -> Result<Vec<Ino>, StoreError> {
    let sql = "SELECT ino FROM nodes WHERE account = ? AND nlink = 0";
    all(connection, sql, [account.0.cast_signed()], |row| Ok(Ino(number(row, 0)?)))
}

/// How deep a path is followed: rows that are damaged may lead in a circle.
const DEPTH_MAX: usize = 4096;

pub(super) fn path(
    connection: &Connection,
    account: AccountId,
    ino: Ino,
) -> Result<Option<Vec<Name>>, StoreError> {
    let sql = "SELECT parent, name FROM entries WHERE account = ? AND ino = ? LIMIT 1";
    let mut names = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT && names.len() < DEPTH_MAX {
        let params = params![account.0.cast_signed(), at.0.cast_signed()];
        let above =
            first(connection, sql, params, |row| Ok((number(row, 0)?, read_name(row, 1)?)))?;
        let Some((parent, name)) = above else { return Ok(None) };
        names.push(name);
        at = Ino(parent);
    }
    names.reverse();
    Ok((at == Ino::ROOT).then_some(names))
}
