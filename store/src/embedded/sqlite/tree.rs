//! Reading trees: nodes, entries, listings.

use rusqlite::{Connection, Row, params};
use xfer_protocol::tree::{Need, Node};
use xfer_protocol::{Ino, Name};

use super::rows::{all, first, node_columns, number, read_name, read_node};
use super::{SqliteStore, deliveries};
use crate::waists::trees::weight;
use crate::{AccountId, Found, ListMax, Listing, Part, StoreError};

impl SqliteStore {
    /// A node of a tree.
    ///
    /// # Errors
    /// If the database fails.
    pub fn node(&self, account: AccountId, ino: Ino) -> Result<Option<Node>, StoreError> {
        self.connections.read(|reader| node(reader, account, ino))
    }

    /// The ino that an entry of a tree refers to.
    ///
    /// # Errors
    /// If the database fails.
    pub fn entry(
        &self,
        account: AccountId,
        parent: Ino,
        name: &Name,
    ) -> Result<Option<Ino>, StoreError> {
        self.connections.read(|reader| entry(reader, account, parent, name))
    }

    /// At most `count` entries of a directory with their nodes, sorted by name, after `after`.
    /// Fewer only at the end.
    ///
    /// # Errors
    /// If the database fails.
    pub fn page(
        &self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
        count: usize,
    ) -> Result<Vec<(Name, Ino, Node)>, StoreError> {
        self.connections.read(|reader| page(reader, account, directory, after, count))
    }

    /// The names on the way from the tree's root to a node, without a leading slash, for messages
    /// to people. Takes long. `None` if no path leads there.
    ///
    /// # Errors
    /// If the database fails.
    pub fn path(&self, account: AccountId, ino: Ino) -> Result<Option<Vec<Name>>, StoreError> {
        self.connections.read(|reader| path(reader, account, ino))
    }

    /// Entries of a directory with their nodes, sorted by name, after `after`; at least one if
    /// there are any. Large attributes of nodes are left out.
    ///
    /// # Errors
    /// If the database fails.
    pub fn list(
        &self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
        max: ListMax,
    ) -> Result<Listing, StoreError> {
        self.connections.read(|reader| list(reader, account, directory, after, max))
    }

    /// Loads the needed rows from one snapshot. A node comes with the entry that leads to it.
    ///
    /// # Errors
    /// If the database fails.
    pub fn load(&self, account: AccountId, needs: &[Need]) -> Result<Found, StoreError> {
        self.connections.read(|reader| load(reader, account, needs))
    }

    /// Lists parts of directories.
    ///
    /// # Errors
    /// If the database fails.
    pub fn list_parts(
        &self,
        account: AccountId,
        parts: &[Part],
    ) -> Result<Vec<Listing>, StoreError> {
        self.connections.read(|reader| {
            let one =
                |part: &Part| list(reader, account, part.directory, part.after.as_ref(), part.max);
            parts.iter().map(one).collect()
        })
    }

    /// The nodes without a name that the account's last session left. None are told while a dormant
    /// session may have them open.
    ///
    /// # Errors
    /// If the database fails.
    pub fn orphans(&self, account: AccountId) -> Result<Vec<Ino>, StoreError> {
        self.connections.read(|reader| orphans(reader, account))
    }
}

fn load(connection: &Connection, account: AccountId, needs: &[Need]) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for need in needs {
        match need {
            // A node's row includes its attributes.
            Need::Node(ino) | Need::Attributes(ino) => {
                found.nodes.push((*ino, node(connection, account, *ino)?));
            }
            Need::Entry(parent, name) => {
                let ino = entry(connection, account, *parent, name)?;
                found.entries.push((*parent, name.clone(), ino));
                if let Some(ino) = ino {
                    found.nodes.push((ino, node(connection, account, ino)?));
                }
            }
            Need::Children(directory) => {
                for (name, ino, node) in page(connection, account, *directory, None, usize::MAX)? {
                    found.entries.push((*directory, name, Some(ino)));
                    found.nodes.push((ino, Some(node)));
                }
                found.whole.push(*directory);
            }
            Need::Delivery(id) => {
                found.deliveries.push((*id, deliveries::delivery(connection, account, *id)?));
            }
        }
    }
    Ok(found)
}

fn node(connection: &Connection, account: AccountId, ino: Ino) -> Result<Option<Node>, StoreError> {
    let sql = concat!("SELECT ", node_columns!(), " FROM nodes n WHERE account = ? AND ino = ?");
    first(connection, sql, params![account.0.cast_signed(), ino.0.cast_signed()], |row| {
        read_node(row, 0)
    })
}

fn entry(
    connection: &Connection,
    account: AccountId,
    parent: Ino,
    name: &Name,
) -> Result<Option<Ino>, StoreError> {
    let sql = "SELECT ino FROM entries WHERE account = ? AND parent = ? AND name = ?";
    let params = params![account.0.cast_signed(), parent.0.cast_signed(), name.as_bytes()];
    first(connection, sql, params, |row| Ok(Ino(number(row, 0)?)))
}

// A left join turns an entry without its node into an error; an inner join would hide it.
const PAGE: &str = concat!(
    "SELECT e.name, e.ino, ",
    node_columns!(),
    " FROM entries e LEFT JOIN nodes n ON n.account = e.account AND n.ino = e.ino
     WHERE e.account = ? AND e.parent = ? AND e.name > ? ORDER BY e.name LIMIT ?"
);

fn page(
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

fn list(
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

fn orphans(connection: &Connection, account: AccountId) -> Result<Vec<Ino>, StoreError> {
    let sql = "SELECT ino FROM nodes WHERE account = ?1 AND nlink = 0 AND NOT EXISTS (
                   SELECT 1 FROM sessions WHERE account = ?1 AND base IS NOT NULL)";
    all(connection, sql, [account.0.cast_signed()], |row| Ok(Ino(number(row, 0)?)))
}

/// The most steps that are followed on the way to the root: damaged rows may form a circle.
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
