//! What is of no single account: the database itself, contents and their owners, numbers.

use rusqlite::Transaction;
use xfer_protocol::ContentId;

use super::super::rows::{all, number, read_id, value};
use super::{Report, fault};
use crate::StoreError;
use crate::check::{Place, Rule};

/// Contents with another number of owners than they count, each with both.
const MISCOUNTED: &str = "
    WITH owned (content, owners) AS (
        SELECT content, count(*) FROM (
            SELECT content FROM nodes WHERE content IS NOT NULL
            UNION ALL
            SELECT content FROM delivery_items WHERE content IS NOT NULL)
        GROUP BY content)
    SELECT c.id, c.refs, coalesce(o.owners, 0) FROM contents c
    LEFT JOIN owned o ON o.content = c.id WHERE c.refs <> coalesce(o.owners, 0)
    UNION ALL
    SELECT o.content, NULL, o.owners FROM owned o
    WHERE NOT EXISTS (SELECT 1 FROM contents WHERE id = o.content)";

/// Contents with several owners, one of which may write to it.
const WRITABLE: &str = "
    SELECT DISTINCT n.content FROM nodes n JOIN contents c ON c.id = n.content
    WHERE c.refs > 1 AND NOT n.sealed";

const GARBAGE_IN_USE: &str = "SELECT content FROM garbage JOIN contents ON id = content";

/// The highest number in use.
const HIGHEST: &str = "
    SELECT max(coalesce((SELECT max(ino) FROM nodes), 0),
               coalesce((SELECT max(id) FROM contents), 0),
               coalesce((SELECT max(content) FROM garbage), 0),
               coalesce((SELECT max(id) FROM deliveries), 0))";

/// Looks at all of it, and returns the number of contents.
pub(super) fn check(
    snapshot: &Transaction<'_>,
    report: &mut Report<'_>,
) -> Result<u64, StoreError> {
    database(snapshot, report)?;
    contents(snapshot, report)?;
    numbers(snapshot, report)?;
    let contents: i64 = value(snapshot, "SELECT count(*) FROM contents", [])?;
    Ok(contents.cast_unsigned())
}

fn database(snapshot: &Transaction<'_>, report: &mut Report<'_>) -> Result<(), StoreError> {
    let said = all(snapshot, "PRAGMA integrity_check", [], |row| Ok(row.get::<_, String>(0)?))?;
    for what in said.into_iter().filter(|line| line != "ok") {
        report(fault(Place::Store, Rule::Database, what));
    }
    let dangling = all(snapshot, "PRAGMA foreign_key_check", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?))
    })?;
    for (table, parent) in dangling {
        let what = format!("a row of {table} refers to one of {parent} that is not there");
        report(fault(Place::Store, Rule::Database, what));
    }
    Ok(())
}

fn contents(snapshot: &Transaction<'_>, report: &mut Report<'_>) -> Result<(), StoreError> {
    let content = |id| Place::Content(ContentId(id));
    let miscounted = all(snapshot, MISCOUNTED, [], |row| {
        Ok((number(row, 0)?, read_id(row, 1)?, number(row, 2)?))
    })?;
    for (id, said, there) in miscounted {
        let said = said.map_or("it is not counted".to_owned(), |said| format!("counted {said}"));
        report(fault(content(id), Rule::Owners, format!("owners: {said}, found {there}")));
    }
    for id in all(snapshot, GARBAGE_IN_USE, [], |row| number(row, 0))? {
        let what = "it is in use, and counts as garbage".to_owned();
        report(fault(content(id), Rule::Owners, what));
    }
    for id in all(snapshot, WRITABLE, [], |row| number(row, 0))? {
        let what = "it has several owners, and one of them may write to it".to_owned();
        report(fault(content(id), Rule::Sealed, what));
    }
    Ok(())
}

fn numbers(snapshot: &Transaction<'_>, report: &mut Report<'_>) -> Result<(), StoreError> {
    let next: i64 = value(snapshot, "SELECT next FROM ids", [])?;
    let highest: i64 = value(snapshot, HIGHEST, [])?;
    if highest >= next {
        let what = format!("number {highest} is in use, and those from {next} on count as free");
        report(fault(Place::Store, Rule::Number, what));
    }
    Ok(())
}
