//! Looks for rows that contradict each other.
//!
//! Each account is looked at in a snapshot of its own, and all of them together in another, so that a
//! long look keeps no old rows for long. A connection of its own sorts on the disk and not in memory.

mod trees;
mod whole;

use rusqlite::{Connection, Transaction};
use xfer_protocol::{ContentId, Ino, Name};

use super::rows::{all, number, read_name};
use super::{SqliteStore, tree};
use crate::check::{Fault, Place, Rule};
use crate::{AccountId, StoreError};

/// A look through a store.
pub struct Look {
    connection: Connection,
}

/// Where faults are reported.
pub type Report<'a> = dyn FnMut(Fault) + 'a;

/// A file with data, and the content that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owned {
    /// The file.
    pub ino: Ino,
    /// Its content.
    pub content: ContentId,
    /// Where its data ends.
    pub end: u64,
}

/// An account that is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its number.
    pub account: AccountId,
    /// Its name, or the one that it had before it was removed.
    pub name: Name,
}

impl SqliteStore {
    /// Begins a look.
    ///
    /// # Errors
    /// If the database can't be opened once more.
    pub fn look(&self) -> Result<Look, StoreError> {
        let connection = self.connections.another_reader()?;
        connection.pragma_update(None, "temp_store", "FILE")?;
        Ok(Look { connection })
    }
}

impl Look {
    /// The accounts, also those that were removed and are kept. One that is being deleted has only a part
    /// of its rows.
    ///
    /// # Errors
    /// If the database fails.
    pub fn subjects(&mut self) -> Result<Vec<Subject>, StoreError> {
        let sql = "SELECT id, coalesce(removed_name, name) FROM accounts
                   WHERE removed_name IS NOT NULL OR name NOT LIKE '/%' ORDER BY 2";
        let snapshot = self.connection.transaction()?;
        all(&snapshot, sql, [], |row| {
            Ok(Subject { account: AccountId(number(row, 0)?), name: read_name(row, 1)? })
        })
    }

    /// Looks at an account's tree and inbox, and shows `each` file with data. Returns the number of nodes.
    ///
    /// # Errors
    /// If the database fails, or `each` does.
    pub fn account(
        &mut self,
        subject: &Subject,
        report: &mut Report<'_>,
        each: &mut dyn FnMut(&Owned, &mut Report<'_>) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let snapshot = self.connection.transaction()?;
        trees::check(&snapshot, subject, report, each)
    }

    /// Looks at what is of no single account. Returns the number of contents.
    ///
    /// # Errors
    /// If the database fails.
    pub fn whole(&mut self, report: &mut Report<'_>) -> Result<u64, StoreError> {
        let snapshot = self.connection.transaction()?;
        whole::check(&snapshot, report)
    }

    /// The contents of what waits in inboxes.
    ///
    /// # Errors
    /// If the database fails.
    pub fn delivered(&self) -> Result<Vec<ContentId>, StoreError> {
        let sql = "SELECT DISTINCT content FROM delivery_items WHERE content IS NOT NULL";
        all(&self.connection, sql, [], |row| Ok(ContentId(number(row, 0)?)))
    }
}

/// The place of a node.
fn node_of(snapshot: &Transaction<'_>, subject: &Subject, ino: Ino) -> Result<Place, StoreError> {
    // Where names can't be read, none are shown.
    let path = tree::path(snapshot, subject.account, ino).unwrap_or_default();
    Ok(Place::Node { account: subject.name.clone(), ino, path })
}

fn fault(place: Place, rule: Rule, what: String) -> Fault {
    Fault { place, rule, what }
}
