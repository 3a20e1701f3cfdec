//! Conversion of values to columns and back.
//!
//! Unsigned numbers are stored as the signed ones with the same bits. The database's content is not
//! trusted: a row that makes no sense is an error, never a panic.

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, Params, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use xfer_protocol::tree::{Extents, FileData, Kind, Node, SpecialKind, Xattrs};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name, Timestamp, codec};

use crate::{AccountId, StoreError};

/// The columns that [`read_node`] reads, of a table called `n`.
macro_rules! node_columns {
    () => {
        "n.kind, n.mode, n.uid, n.gid, n.nlink, n.atime_secs, n.atime_nanos, n.mtime_secs,
         n.mtime_nanos, n.ctime_secs, n.ctime_nanos, n.sent, n.xattrs,
         n.size, n.content, n.sealed, n.extents, n.parent, n.entries, n.target, n.rdev,
         n.name_bytes"
    };
}
pub(super) use node_columns;

const PUT_NODE: &str = "
    INSERT OR REPLACE INTO nodes (
        account, ino, kind, mode, uid, gid, nlink, atime_secs, atime_nanos, mtime_secs,
        mtime_nanos, ctime_secs, ctime_nanos, sent, xattrs,
        size, content, sealed, extents, parent, entries, target, rdev, name_bytes
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// The numbers of [`Kind`]s. They are on disk: never change one.
mod kind {
    pub(super) const FILE: i64 = 1;
    pub(super) const DIRECTORY: i64 = 2;
    pub(super) const SYMLINK: i64 = 3;
    pub(super) const FIFO: i64 = 4;
    pub(super) const SOCKET: i64 = 5;
    pub(super) const CHAR_DEVICE: i64 = 6;
    pub(super) const BLOCK_DEVICE: i64 = 7;
}

/// The columns that only some kinds of nodes have.
#[derive(Default)]
struct KindColumns<'a> {
    kind: i64,
    size: Option<i64>,
    content: Option<i64>,
    sealed: Option<bool>,
    extents: Option<Vec<u8>>,
    parent: Option<i64>,
    entries: Option<i64>,
    target: Option<&'a [u8]>,
    rdev: Option<u32>,
    name_bytes: Option<i64>,
}

/// Inserts a node, or replaces it.
pub(super) fn put_node(
    connection: &Connection,
    account: AccountId,
    ino: Ino,
    node: &Node,
) -> Result<(), StoreError> {
    let own = kind_columns(&node.kind)?;
    let xattrs = match &node.xattrs {
        Xattrs::None => None,
        Xattrs::All(map) => Some(encode(map)?),
        Xattrs::LeftOut { .. } => {
            return Err(StoreError::Database(format!("node {ino} lacks its attributes")));
        }
    };
    connection.prepare_cached(PUT_NODE)?.execute(params![
        account.0.cast_signed(),
        ino.0.cast_signed(),
        own.kind,
        node.mode,
        node.uid,
        node.gid,
        node.nlink,
        node.atime.secs(),
        node.atime.nanos(),
        node.mtime.secs(),
        node.mtime.nanos(),
        node.ctime.secs(),
        node.ctime.nanos(),
        node.sent.map(|id| id.0.cast_signed()),
        xattrs,
        own.size,
        own.content,
        own.sealed,
        own.extents,
        own.parent,
        own.entries,
        own.target,
        own.rdev,
        own.name_bytes,
    ])?;
    Ok(())
}

fn kind_columns(kind: &Kind) -> Result<KindColumns<'_>, StoreError> {
    let none = KindColumns::default();
    Ok(match kind {
        Kind::File(data) => KindColumns {
            kind: kind::FILE,
            size: Some(data.size.cast_signed()),
            content: data.content.map(|id| id.0.cast_signed()),
            sealed: Some(data.sealed),
            extents: match &data.extents {
                Extents::Dense => None,
                Extents::Mapped(_) => Some(encode(&data.extents)?),
            },
            ..none
        },
        Kind::Directory { parent, entries, name_bytes } => KindColumns {
            kind: kind::DIRECTORY,
            parent: Some(parent.0.cast_signed()),
            entries: Some(entries.cast_signed()),
            name_bytes: Some(name_bytes.cast_signed()),
            ..none
        },
        Kind::Symlink { target } => {
            KindColumns { kind: kind::SYMLINK, target: Some(target), ..none }
        }
        Kind::Special(SpecialKind::Fifo) => KindColumns { kind: kind::FIFO, ..none },
        Kind::Special(SpecialKind::Socket) => KindColumns { kind: kind::SOCKET, ..none },
        Kind::Special(SpecialKind::CharDevice { rdev }) => {
            KindColumns { kind: kind::CHAR_DEVICE, rdev: Some(*rdev), ..none }
        }
        Kind::Special(SpecialKind::BlockDevice { rdev }) => {
            KindColumns { kind: kind::BLOCK_DEVICE, rdev: Some(*rdev), ..none }
        }
    })
}

/// Reads the columns of `node_columns!`; `first` is the index of the first one.
pub(super) fn read_node(row: &Row<'_>, first: usize) -> Result<Node, StoreError> {
    Ok(Node {
        kind: read_kind(row, row.get(first)?, first + 13)?,
        mode: row.get(first + 1)?,
        uid: row.get(first + 2)?,
        gid: row.get(first + 3)?,
        nlink: row.get(first + 4)?,
        atime: read_time(row, first + 5)?,
        mtime: read_time(row, first + 7)?,
        ctime: read_time(row, first + 9)?,
        sent: read_id(row, first + 11)?.map(DeliveryId),
        xattrs: read_blob(row, first + 12)?.map_or(Xattrs::None, Xattrs::All),
    })
}

fn read_kind(row: &Row<'_>, kind: i64, first: usize) -> Result<Kind, StoreError> {
    let rdev = || row.get(first + 7);
    Ok(match kind {
        kind::FILE => Kind::File(FileData {
            size: number(row, first)?,
            content: read_id(row, first + 1)?.map(ContentId),
            sealed: row.get(first + 2)?,
            extents: read_blob(row, first + 3)?.unwrap_or_default(),
        }),
        kind::DIRECTORY => Kind::Directory {
            parent: Ino(number(row, first + 4)?),
            entries: number(row, first + 5)?,
            name_bytes: number(row, first + 8)?,
        },
        kind::SYMLINK => Kind::Symlink { target: row.get::<_, Vec<u8>>(first + 6)?.into() },
        kind::FIFO => Kind::Special(SpecialKind::Fifo),
        kind::SOCKET => Kind::Special(SpecialKind::Socket),
        kind::CHAR_DEVICE => Kind::Special(SpecialKind::CharDevice { rdev: rdev()? }),
        kind::BLOCK_DEVICE => Kind::Special(SpecialKind::BlockDevice { rdev: rdev()? }),
        unknown => return Err(damaged(format!("a node of kind {unknown}"))),
    })
}

/// An unsigned number.
pub(super) fn number(row: &Row<'_>, place: usize) -> Result<u64, StoreError> {
    Ok(row.get::<_, i64>(place)?.cast_unsigned())
}

/// An unsigned number that may be missing.
pub(super) fn read_id(row: &Row<'_>, place: usize) -> Result<Option<u64>, StoreError> {
    Ok(row.get::<_, Option<i64>>(place)?.map(i64::cast_unsigned))
}

/// Reads a time from two columns.
pub(super) fn read_time(row: &Row<'_>, first: usize) -> Result<Timestamp, StoreError> {
    Timestamp::new(row.get(first)?, row.get(first + 1)?)
        .ok_or_else(|| damaged("a time with a second of nanoseconds"))
}

/// The two columns of a time that may be missing.
pub(super) fn columns_of(time: Option<Timestamp>) -> (Option<i64>, Option<u32>) {
    (time.map(|time| time.secs()), time.map(|time| time.nanos()))
}

/// Reads a time that may be missing from two columns.
pub(super) fn read_time_or_none(
    row: &Row<'_>,
    first: usize,
) -> Result<Option<Timestamp>, StoreError> {
    match row.get_ref(first)? {
        ValueRef::Null => Ok(None),
        _ => read_time(row, first).map(Some),
    }
}

pub(super) fn read_name(row: &Row<'_>, place: usize) -> Result<Name, StoreError> {
    Name::new(row.get_ref(place)?.as_blob().map_err(rusqlite::Error::from)?)
        .map_err(|_| damaged("a name that is none"))
}

/// Reads an encoded value, unless the column is null.
pub(super) fn read_blob<T: DeserializeOwned>(
    row: &Row<'_>,
    place: usize,
) -> Result<Option<T>, StoreError> {
    let bytes = row.get_ref(place)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    bytes.map(decode).transpose()
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    codec::encode(value).map_err(|error| StoreError::Database(error.to_string()))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|error| damaged(error.to_string()))
}

/// The error for rows that no version of this program writes.
pub(super) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("the database: {what}"))
}

/// The first row of a query, if it has any.
pub(super) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query(params)?.next()?.map(read).transpose()
}

/// All rows of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    connection.prepare_cached(sql)?.query_and_then(params, read)?.collect()
}

/// The only value of a query that always has one row.
pub(super) fn value<T: FromSql>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<T, StoreError> {
    Ok(connection.prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
}

/// Runs a statement, and returns the number of rows that it changed.
pub(super) fn change(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// Writes the entry `place`, a directory and a name in it.
pub(super) fn write_entry(
    transaction: &Transaction<'_>,
    account: AccountId,
    place: (Ino, &Name),
    ino: Option<Ino>,
) -> Result<(), StoreError> {
    let (account, parent, name) =
        (account.0.cast_signed(), place.0.0.cast_signed(), place.1.as_bytes());
    match ino {
        Some(ino) => {
            let sql = "INSERT OR REPLACE INTO entries (account, parent, name, ino)
                       VALUES (?, ?, ?, ?)";
            change(transaction, sql, params![account, parent, name, ino.0.cast_signed()])?;
        }
        None => {
            let sql = "DELETE FROM entries WHERE account = ? AND parent = ? AND name = ?";
            change(transaction, sql, params![account, parent, name])?;
        }
    }
    Ok(())
}
