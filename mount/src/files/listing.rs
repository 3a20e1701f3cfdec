//! `xfer ls` and `xfer stat`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xfer_protocol::size;

use super::opening::Opened;
use super::pattern::expand;
use super::place::absolute;
use super::show::{Listed, Output, moment, moment_for_people, permissions, word};
use super::tree::{Changes, Kind, Meta};
use crate::command::file_lines::{LsLine, StatLine};
use crate::process::exit::Failure;

/// Lists files and directories.
pub(super) fn ls(line: LsLine) -> Result<(), Failure> {
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let found = expand(&*opened.tree, &places, "list", &opened.report);
    let style = Style { long: line.long, all: line.all, recursive: line.recursive };
    let mut output = Output::new();
    match line.json {
        true => json(&opened, found, &style, &mut output),
        false => lines(&opened, found, places.len(), &style, &mut output),
    }
    output.end().and(opened.close(Changes::None))
}

/// What to show.
struct Style {
    long: bool,
    all: bool,
    recursive: bool,
}

impl Style {
    fn shows(&self, name: &OsStr) -> bool {
        self.all || !name.as_bytes().starts_with(b".")
    }
}

/// Files first, then each directory, with a heading if there are several.
fn lines(
    opened: &Opened,
    found: Vec<(PathBuf, Meta)>,
    places: usize,
    style: &Style,
    output: &mut Output,
) {
    let is_one = places == 1 && found.len() == 1 && !style.recursive;
    let (mut directories, files): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(_, meta)| meta.is_directory());
    let files: Vec<_> =
        files.into_iter().map(|(path, meta)| (absolute(&path).into_os_string(), meta)).collect();
    let mut is_first = files.is_empty();
    rows(&files, style, output);
    directories.reverse();
    while let Some((path, _)) = directories.pop() {
        let entries = match opened.tree.list(&path) {
            Ok(entries) => entries,
            Err(errno) => {
                opened.report.fail("list", &path, errno);
                continue;
            }
        };
        if !is_one {
            output.bytes(if is_first { b"" } else { b"\n" });
            output.name(absolute(&path).as_os_str());
            output.line(":");
        }
        is_first = false;
        let shown: Vec<_> = entries.into_iter().filter(|(name, _)| style.shows(name)).collect();
        rows(&shown, style, output);
        if style.recursive {
            let below = shown.into_iter().rev().filter(|(_, meta)| meta.is_directory());
            directories.extend(below.map(|(name, meta)| (path.join(name), meta)));
        }
        if !output.flush() {
            return;
        }
    }
}

fn rows(entries: &[(OsString, Meta)], style: &Style, output: &mut Output) {
    let width = entries.iter().map(|(_, meta)| meta.size.to_string().len()).max().unwrap_or(0);
    for (name, meta) in entries {
        if style.long {
            let (permissions, time) = (permissions(meta), moment_for_people(meta.mtime));
            output.bytes(format!("{permissions}  {:width$}  {time}  ", meta.size).as_bytes());
        }
        output.name(name);
        if let (true, Kind::Symlink(target)) = (style.long, &meta.kind) {
            output.bytes(b" -> ");
            output.name(target);
        }
        output.bytes(b"\n");
    }
}

/// One array of all entries, each with its whole path.
fn json(opened: &Opened, found: Vec<(PathBuf, Meta)>, style: &Style, output: &mut Output) {
    let mut listed = Vec::new();
    let mut waiting = Vec::new();
    for (path, meta) in found {
        match meta.is_directory() {
            true => waiting.push(path),
            false => listed.push(Listed::new(&path, &meta)),
        }
    }
    waiting.reverse();
    while let Some(path) = waiting.pop() {
        match opened.tree.list(&path) {
            Ok(entries) => {
                let mut below = Vec::new();
                for (name, meta) in entries.into_iter().filter(|(name, _)| style.shows(name)) {
                    let path = path.join(name);
                    listed.push(Listed::new(&path, &meta));
                    if style.recursive && meta.is_directory() {
                        below.push(path);
                    }
                }
                waiting.extend(below.into_iter().rev());
            }
            Err(errno) => opened.report.fail("list", &path, errno),
        }
    }
    output.json(&listed);
}

/// Shows everything about files and directories.
pub(super) fn stat(line: StatLine) -> Result<(), Failure> {
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let found = expand(&*opened.tree, &places, "show", &opened.report);
    let mut output = Output::new();
    match line.json {
        true => {
            let listed: Vec<_> = found.iter().map(|(path, meta)| Listed::new(path, meta)).collect();
            output.json(&listed);
        }
        false => found.iter().for_each(|(path, meta)| details(path, meta, &mut output)),
    }
    output.end().and(opened.close(Changes::None))
}

fn details(path: &Path, meta: &Meta, output: &mut Output) {
    output.name(absolute(path).as_os_str());
    if let Kind::Symlink(target) = &meta.kind {
        output.bytes(b" -> ");
        output.name(target);
    }
    output.bytes(b"\n");
    let size = format!("{} bytes, {} allocated", meta.size, size::display(meta.allocated));
    let rows = [
        ("kind", word(&meta.kind).to_owned()),
        ("size", size),
        ("mode", format!("{:04o} ({})", meta.mode, permissions(meta))),
        ("owner", format!("{}, group {}", meta.uid, meta.gid)),
        ("links", meta.links.to_string()),
        ("inode", meta.inode.to_string()),
        ("modified", moment(meta.mtime)),
        ("changed", moment(meta.ctime)),
    ];
    for (name, value) in rows {
        output.line(&format!("  {name:8}  {value}"));
    }
}
