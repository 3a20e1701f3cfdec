//! One account: its tree, what that takes up, and its inbox.

use rusqlite::{Row, Transaction};
use xfer_protocol::tree::{Kind, Node, Usage};
use xfer_protocol::{Ino, Name};

use super::super::rows::{all, first, node_columns, number, read_id, read_name, read_node};
use super::{Owned, Report, Subject, fault, node_of};
use crate::StoreError;
use crate::check::{Place, Rule};

/// Each node, with what others have of it: the names that lead to it, and what is in it.
const NODES: &str = concat!(
    "SELECT n.ino, coalesce(named.names, 0), coalesce(within.entries, 0), coalesce(within.bytes, 0),
            coalesce(within.directories, 0), ",
    node_columns!(),
    " FROM nodes n
      LEFT JOIN (SELECT ino, count(*) AS names FROM entries WHERE account = ?1 GROUP BY ino) named
             ON named.ino = n.ino
      LEFT JOIN (SELECT e.parent, count(*) AS entries, sum(length(e.name)) AS bytes,
                        coalesce(sum(m.kind = 2), 0) AS directories
                 FROM entries e LEFT JOIN nodes m ON m.account = ?1 AND m.ino = e.ino
                 WHERE e.account = ?1 GROUP BY e.parent) within
             ON within.parent = n.ino
      WHERE n.account = ?1 ORDER BY n.ino"
);

/// Entries that come from no directory, or lead to nothing.
const LOOSE_ENTRIES: &str = "
    SELECT e.parent, e.name, e.ino, p.kind, n.kind FROM entries e
    LEFT JOIN nodes p ON p.account = ?1 AND p.ino = e.parent
    LEFT JOIN nodes n ON n.account = ?1 AND n.ino = e.ino
    WHERE e.account = ?1 AND (p.kind IS NULL OR p.kind <> 2 OR n.kind IS NULL)";

/// Directories whose entry is in another directory than they say.
const MISPLACED: &str = "
    SELECT n.ino, n.parent, e.parent FROM entries e
    JOIN nodes n ON n.account = ?1 AND n.ino = e.ino
    WHERE e.account = ?1 AND n.kind = 2 AND n.parent <> e.parent";

/// Directories with a name that no way leads to from the root: they are within themselves. A cross join
/// is done in the order that is written: SQLite would go through all entries for each directory.
const UNREACHED: &str = "
    WITH RECURSIVE reached (ino) AS (
        VALUES (1)
        UNION
        SELECT e.ino FROM reached r
        CROSS JOIN entries e ON e.account = ?1 AND e.parent = r.ino
        CROSS JOIN nodes n ON n.account = ?1 AND n.ino = e.ino AND n.kind = 2)
    SELECT ino FROM nodes
    WHERE account = ?1 AND kind = 2 AND nlink > 0 AND ino NOT IN reached";

/// What is counted in the account, and what waits for it.
const SUMS: &str = "
    SELECT usage_bytes, usage_nodes, waiting_bytes, waiting_items,
           (SELECT coalesce(sum(bytes), 0) FROM deliveries WHERE to_account = ?1),
           (SELECT coalesce(sum(items), 0) FROM deliveries WHERE to_account = ?1)
    FROM accounts WHERE id = ?1";

/// What others have of a node.
struct Around {
    names: u64,
    entries: u64,
    name_bytes: u64,
    directories: u64,
}

/// Looks at an account, and returns the number of its nodes.
pub(super) fn check(
    snapshot: &Transaction<'_>,
    subject: &Subject,
    report: &mut Report<'_>,
    each: &mut dyn FnMut(&Owned, &mut Report<'_>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let usage = nodes(snapshot, subject, report, each)?;
    entries(snapshot, subject, report)?;
    directories(snapshot, subject, report)?;
    sums(snapshot, subject, usage, report)?;
    Ok(usage.nodes)
}

/// Looks at each node by itself, and returns what all take up.
fn nodes(
    snapshot: &Transaction<'_>,
    subject: &Subject,
    report: &mut Report<'_>,
    each: &mut dyn FnMut(&Owned, &mut Report<'_>) -> Result<(), StoreError>,
) -> Result<Usage, StoreError> {
    let mut statement = snapshot.prepare(NODES)?;
    let mut rows = statement.query([subject.account.0.cast_signed()])?;
    let mut usage = Usage::default();
    let mut has_root = false;
    while let Some(row) = rows.next()? {
        let ino = Ino(number(row, 0)?);
        usage.nodes += 1;
        let (node, around) = match read_node(row, 5).and_then(|node| Ok((node, around(row)?))) {
            Ok(read) => read,
            Err(error) => {
                let place = node_of(snapshot, subject, ino)?;
                report(fault(place, Rule::Row, error.to_string()));
                continue;
            }
        };
        has_root |= ino == Ino::ROOT && node.is_directory();
        usage.bytes = usage.bytes.saturating_add(node.charge());
        for (rule, what) in contradictions(ino, &node, &around) {
            report(fault(node_of(snapshot, subject, ino)?, rule, what));
        }
        if let Some(owned) = owned(ino, &node) {
            each(&owned, report)?;
        }
    }
    if !has_root {
        let what = "the tree has no root directory".to_owned();
        report(fault(Place::Account(subject.name.clone()), Rule::Root, what));
    }
    Ok(usage)
}

fn around(row: &Row<'_>) -> Result<Around, StoreError> {
    Ok(Around {
        names: number(row, 1)?,
        entries: number(row, 2)?,
        name_bytes: number(row, 3)?,
        directories: number(row, 4)?,
    })
}

/// What a node says of itself that is not so.
fn contradictions(ino: Ino, node: &Node, around: &Around) -> Vec<(Rule, String)> {
    let mut found = Vec::new();
    let mut must = |rule, what: &str, said: u64, there: u64| {
        if said != there {
            found.push((rule, format!("{what}: counted {said}, found {there}")));
        }
    };
    let links = u64::from(node.nlink);
    match &node.kind {
        Kind::Directory { entries, name_bytes, .. } => {
            must(Rule::Entries, "entries", *entries, around.entries);
            must(Rule::Entries, "bytes of names", *name_bytes, around.name_bytes);
            // One that was removed while a program had it open has none.
            let is_named = u64::from(links > 0);
            must(Rule::Links, "links", links, is_named * (2 + around.directories));
            let names = if ino == Ino::ROOT { 0 } else { is_named };
            must(Rule::Parent, "names of a directory", names, around.names);
        }
        Kind::File(data) => {
            must(Rule::Links, "names", links, around.names);
            if data.content.is_none() {
                must(Rule::Bytes, "blocks", data.extents.blocks(data.size), 0);
            }
        }
        Kind::Symlink { .. } | Kind::Special(_) => {
            must(Rule::Links, "names", links, around.names);
        }
    }
    found
}

fn owned(ino: Ino, node: &Node) -> Option<Owned> {
    let data = node.file()?;
    let end = data.extents.data_in(data.size, 0..data.size).last().map_or(0, |last| last.end);
    Some(Owned { ino, content: data.content?, end: end.min(data.size) })
}

fn entries(
    snapshot: &Transaction<'_>,
    subject: &Subject,
    report: &mut Report<'_>,
) -> Result<(), StoreError> {
    struct Loose {
        directory: Ino,
        name: Name,
        ino: Ino,
        is_from_directory: bool,
    }
    let loose = all(snapshot, LOOSE_ENTRIES, [subject.account.0.cast_signed()], |row| {
        Ok(Loose {
            directory: Ino(number(row, 0)?),
            name: read_name(row, 1)?,
            ino: Ino(number(row, 2)?),
            is_from_directory: read_id(row, 3)? == Some(2),
        })
    })?;
    for Loose { directory, name, ino, is_from_directory } in loose {
        let what = match is_from_directory {
            true => format!("the entry {name} leads to {ino}, which is not there"),
            false => format!("the entry {name} is in {directory}, which is no directory"),
        };
        report(fault(node_of(snapshot, subject, directory)?, Rule::Entry, what));
    }
    Ok(())
}

fn directories(
    snapshot: &Transaction<'_>,
    subject: &Subject,
    report: &mut Report<'_>,
) -> Result<(), StoreError> {
    let account = [subject.account.0.cast_signed()];
    let misplaced = all(snapshot, MISPLACED, account, |row| {
        Ok((Ino(number(row, 0)?), Ino(number(row, 1)?), Ino(number(row, 2)?)))
    })?;
    for (ino, said, there) in misplaced {
        let what = format!("it says that it is in directory {said}, and is in {there}");
        report(fault(node_of(snapshot, subject, ino)?, Rule::Parent, what));
    }
    let unreached = all(snapshot, UNREACHED, account, |row| Ok(Ino(number(row, 0)?)))?;
    for ino in unreached {
        let what = "no way leads to it from the root".to_owned();
        report(fault(node_of(snapshot, subject, ino)?, Rule::Reach, what));
    }
    Ok(())
}

fn sums(
    snapshot: &Transaction<'_>,
    subject: &Subject,
    usage: Usage,
    report: &mut Report<'_>,
) -> Result<(), StoreError> {
    let account = [subject.account.0.cast_signed()];
    let found = first(snapshot, SUMS, account, |row| {
        let one = |place| number(row, place);
        Ok([one(0)?, one(1)?, one(2)?, one(3)?, one(4)?, one(5)?])
    })?;
    // Since the list of accounts was read, it may have gone.
    let Some([bytes, nodes, waiting_bytes, waiting_items, sent_bytes, sent_items]) = found else {
        return Ok(());
    };
    for (rule, what, said, there) in [
        (Rule::Usage, "bytes in use", bytes, usage.bytes),
        (Rule::Usage, "files and directories in use", nodes, usage.nodes),
        (Rule::Inbox, "bytes that wait in the inbox", waiting_bytes, sent_bytes),
        (Rule::Inbox, "items that wait in the inbox", waiting_items, sent_items),
    ] {
        if said != there {
            let what = format!("{what}: counted {said}, found {there}");
            report(fault(Place::Account(subject.name.clone()), rule, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::embedded::SqliteStore;

    #[test]
    fn no_query_goes_through_all_of_an_account_again_for_each_row() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let look = store.look().unwrap();
        for sql in [NODES, LOOSE_ENTRIES, MISPLACED, UNREACHED] {
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let step = |row: &Row<'_>| Ok((number(row, 1)?, row.get::<_, String>(3)?));
            let plan = all(&look.connection, &plan, [1], step).unwrap();
            // Steps with the same parent are loops, each within the one before.
            let mut loops = BTreeMap::<u64, usize>::new();
            for (parent, step) in &plan {
                if step.starts_with("SEARCH ") || step.starts_with("SCAN ") {
                    let depth = loops.entry(*parent).or_default();
                    let takes_all = step.starts_with("SCAN ") || step.contains("(account=?)");
                    assert!(*depth == 0 || !takes_all, "{step} in {plan:#?}");
                    *depth += 1;
                }
            }
        }
    }
}
