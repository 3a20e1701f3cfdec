//! Looks through a store of this engine, beside its server or without one.

use std::path::Path;

use xfer_protocol::Name;

use super::files::Ends;
use super::sqlite::SqliteStore;
use super::sqlite::check::{Owned, Report, Subject};
use crate::StoreError;
use crate::check::{Checked, Fault, Place, Rule};

/// Looks through a store, or one account of it.
pub(crate) fn check(
    dir: &Path,
    only: Option<&Name>,
    report: &mut dyn FnMut(Fault),
) -> Result<Checked, StoreError> {
    super::must_be_there(dir)?;
    let rows = SqliteStore::open(dir)?;
    let ends = Ends::of_store(dir, rows.whole_from()?);
    let mut checked = Checked::default();
    let mut count = 0;
    let mut report = |fault| {
        count += 1;
        report(fault);
    };
    let mut look = rows.look()?;
    for subject in look.subjects()?.iter().filter(|one| only.is_none_or(|only| one.name == *only)) {
        checked.accounts += 1;
        let mut each = |owned: &Owned, report: &mut Report<'_>| {
            see_bytes(&rows, &ends, subject, owned, report)
        };
        checked.nodes += look.account(subject, &mut report, &mut each)?;
    }
    if only.is_none() {
        checked.contents = look.whole(&mut report)?;
        for content in look.delivered()? {
            if ends.end(content)?.is_none() && rows.content_exists(content)? {
                let what = "what waits in an inbox is missing".to_owned();
                report(Fault { place: Place::Content(content), rule: Rule::Bytes, what });
            }
        }
    }
    checked.faults = count;
    Ok(checked)
}

/// Sees whether a file's bytes are there.
fn see_bytes(
    rows: &SqliteStore,
    ends: &Ends,
    subject: &Subject,
    owned: &Owned,
    report: &mut Report<'_>,
) -> Result<(), StoreError> {
    let Owned { ino, content, end } = *owned;
    let what = match ends.end(content)? {
        Some(there) if there >= end => return Ok(()),
        Some(there) => format!("content {content} ends at byte {there}, its data at byte {end}"),
        None => format!("content {content} is missing"),
    };
    // The file may have been changed since its row was read.
    if !rows.content_exists(content)? {
        return Ok(());
    }
    let path = rows.path(subject.account, ino).unwrap_or_default();
    let place = Place::Node { account: subject.name.clone(), ino, path };
    report(Fault { place, rule: Rule::Bytes, what });
    Ok(())
}
