//! Reading trees: nodes, entries, listings.

use rusqlite::{Connection, Row, params};
use xfer_protocol::tree::{Kind, Node, Xattrs};
use xfer_protocol::{Ino, Name};

use super::rows::{all, first, node_columns, number, read_name, read_node};
use crate::{AccountId, ListMax, Listing, StoreError};

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

// The left join makes an entry without its node an error, where a plain one would hide it.
const PAGE: &str = concat!(
    "SELECT e.name, e.ino, ",
    node_columns!(),
    " FROM entries e LEFT JOIN nodes n ON n.account = e.account AND n.ino = e.ino
     WHERE e.account = ? AND e.parent = ? AND e.name > ? ORDER BY e.name LIMIT ?"
);

pub(super) fn page(
    connection: &Connection,
    account: AccountId,
    directory: Ino,
    after: Option<&Name>,
    count: usize,
) -> Result<Vec<(Name, Ino, Node)>, StoreError> {
    let params = params![
        account.0.cast_signed(),
        directory.0.cast_signed(),
        after.map_or(&b""[..], Name::as_bytes), // every name comes after the empty one
        i64::try_from(count).unwrap_or(i64::MAX),
    ];
    all(connection, PAGE, params, read_entry)
}

pub(super) fn list(
    connection: &Connection,
    account: AccountId,
    directory: Ino,
    after: Option<&Name>,
    max: ListMax,
) -> Result<Listing, StoreError> {
    let mut statement = connection.prepare_cached(PAGE)?;
    let mut found = statement.query(params![
        account.0.cast_signed(),
        directory.0.cast_signed(),
        after.map_or(&b""[..], Name::as_bytes),
        i64::try_from(max.count).unwrap_or(i64::MAX).saturating_add(1),
    ])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        if rows.len() == max.count || bytes > max.bytes {
            return Ok(Listing { rows, last: false });
        }
        let (name, ino, mut node) = read_entry(row)?;
        node.xattrs = node.xattrs.listed();
        bytes += weight(&name, &node);
        rows.push((name, ino, node));
    }
    Ok(Listing { rows, last: true })
}

fn read_entry(row: &Row<'_>) -> Result<(Name, Ino, Node), StoreError> {
    Ok((read_name(row, 0)?, Ino(number(row, 1)?), read_node(row, 2)?))
}

/// What an entry with its node takes up in memory, in bytes, about.
fn weight(name: &Name, node: &Node) -> usize {
    let beside = match &node.kind {
        Kind::File(data) => data.extents.runs() * size_of::<(u64, u64)>(),
        Kind::Symlink { target } => target.len(),
        Kind::Directory { .. }
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharDevice { .. }
        | Kind::BlockDevice { .. } => 0,
    };
    let xattrs = match &node.xattrs {
        Xattrs::All(_) => node.xattrs.bytes() as usize,
        Xattrs::None | Xattrs::LeftOut { .. } => 0,
    };
    size_of::<Node>() + name.as_bytes().len() + beside + xattrs
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
