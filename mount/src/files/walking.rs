//! `xfer find` and `xfer du`: everything below a directory.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use xfer_protocol::size;

use super::opening::Opened;
use super::pattern::{NamePattern, expand, shown_name};
use super::place::absolute;
use super::report::Report;
use super::show::{Listed, Output, PathText};
use super::tree::{Changes, Kind, Meta, Tree};
use crate::command::file_lines::{DuLine, FindLine};
use crate::process::exit::Failure;

/// Finds files and directories.
pub(super) fn find(line: FindLine) -> Result<(), Failure> {
    let pattern = line.name.as_deref().map(NamePattern::parse).transpose();
    let pattern = pattern.map_err(|why| Failure::usage(format!("--name: {why}")))?;
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let is_meant = |path: &Path, meta: &Meta| {
        let is_kind = match line.kind.as_deref() {
            Some("f") => meta.is_file(),
            Some("d") => meta.is_directory(),
            Some(_) => matches!(meta.kind, Kind::Symlink(_)),
            None => true,
        };
        is_kind && pattern.as_ref().is_none_or(|name| name.matches_any(shown_name(path)))
    };
    let (mut output, mut listed) = (Output::new(), Vec::new());
    for (start, meta) in expand(&*opened.tree, &places, "look at", &opened.report) {
        walk(&*opened.tree, start, meta, &opened.report, &mut |path, meta| {
            if is_meant(path, meta) && line.json {
                listed.push(Listed::new(path, meta));
            } else if is_meant(path, meta) {
                print(path, line.null, &mut output);
            }
            if output.is_wanted() { Next::Within } else { Next::Nothing }
        });
    }
    if line.json {
        output.json(&listed);
    }
    output.end().and(opened.close(Changes::None))
}

/// Prints a path and what ends it.
fn print(path: &Path, null: bool, output: &mut Output) {
    let path = absolute(path);
    if null {
        output.bytes(path.as_os_str().as_bytes());
        output.bytes(b"\0");
    } else {
        output.name(path.as_os_str());
        output.bytes(b"\n");
    }
}

/// What to visit after a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// What is in it, and then the rest.
    Within,
    /// Only the rest.
    Past,
    /// Nothing more.
    Nothing,
}

/// Visits a node and everything below it, each directory before its entries and those in the order of
/// their names, until nothing more can be done in the tree.
pub(super) fn walk(
    tree: &dyn Tree,
    start: PathBuf,
    meta: Meta,
    report: &Report,
    visit: &mut dyn FnMut(&Path, &Meta) -> Next,
) {
    let mut waiting = vec![(start, meta)];
    while let Some((path, meta)) = waiting.pop() {
        let next = visit(&path, &meta);
        if next == Next::Nothing || report.is_over() {
            return;
        }
        if next == Next::Within && meta.is_directory() {
            match tree.list(&path) {
                Ok(entries) => {
                    let below = entries.into_iter().rev();
                    waiting.extend(below.map(|(name, meta)| (path.join(name), meta)));
                }
                Err(errno) => report.fail("list", &path, errno),
            }
        }
    }
}

/// The space that a directory takes up with all in it, as `--json` prints it.
#[derive(Serialize)]
struct Used {
    #[serde(flatten)]
    path: PathText,
    bytes: u64,
}

/// Measures files and directories.
pub(super) fn du(line: DuLine) -> Result<(), Failure> {
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let mut sums = Vec::new();
    // As in du(1), a node with several names counts once.
    let mut counted = BTreeSet::new();
    for (start, meta) in expand(&*opened.tree, &places, "measure", &opened.report) {
        let all = measure(&opened, start, meta, &mut counted);
        let shown = if line.summarize { all.len().saturating_sub(1) } else { 0 };
        sums.extend(all.into_iter().skip(shown));
    }
    let mut output = Output::new();
    if line.json {
        let used =
            |(path, bytes): &(PathBuf, u64)| Used { path: PathText::of(path), bytes: *bytes };
        output.json(&sums.iter().map(used).collect::<Vec<_>>());
    }
    for (path, bytes) in sums.iter().filter(|_| !line.json) {
        let amount = match line.human_readable {
            true => size::display(*bytes),
            false => bytes.div_ceil(1 << 10).to_string(),
        };
        output.bytes(format!("{amount}\t").as_bytes());
        output.name(absolute(path).as_os_str());
        output.bytes(b"\n");
    }
    output.end().and(opened.close(Changes::None))
}

/// The space of a node and of each directory below it, which come before those that they are in.
fn measure(
    opened: &Opened,
    start: PathBuf,
    meta: Meta,
    counted: &mut BTreeSet<u64>,
) -> Vec<(PathBuf, u64)> {
    let mut found: Vec<(PathBuf, bool, u64)> = Vec::new();
    let top = start.clone();
    walk(&*opened.tree, start, meta, &opened.report, &mut |path, meta| {
        let is_counted = meta.links > 1 && !meta.is_directory() && !counted.insert(meta.inode);
        let bytes = if is_counted { 0 } else { meta.allocated };
        found.push((path.to_owned(), meta.is_directory(), bytes));
        Next::Within
    });
    let mut sums: Vec<(PathBuf, u64)> = Vec::new();
    let mut open: Vec<(PathBuf, u64)> = Vec::new();
    let close = |open: &mut Vec<(PathBuf, u64)>, sums: &mut Vec<(PathBuf, u64)>| {
        if let Some((path, bytes)) = open.pop() {
            if let Some((_, around)) = open.last_mut() {
                *around += bytes;
            }
            sums.push((path, bytes));
        }
    };
    for (path, is_directory, bytes) in found {
        while open.last().is_some_and(|(around, _)| !path.starts_with(around)) {
            close(&mut open, &mut sums);
        }
        match open.last_mut() {
            Some((_, around)) if !is_directory && path != top => *around += bytes,
            Some(_) | None => open.push((path, bytes)),
        }
    }
    while !open.is_empty() {
        close(&mut open, &mut sums);
    }
    sums
}
