//! `xfer cp`, `mv`, `rm` and `mkdir`, within one tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use xfer_client::core::Order;
use xfer_protocol::Timestamp;

use super::errno::{Why, words};
use super::opening::Opened;
use super::pattern::expand;
use super::place::{Place, absolute, must_be_in_tree};
use super::plan::{Job, without_collisions};
use super::report::Report;
use super::staging::{Key, is_in_mailbox, put_in_place, rename_with_note};
use super::tree::{Changes, Kind, Meta, Removed, Tree};
use super::walking::{Next, walk};
use crate::command::file_lines::{CpLine, MkdirLine, MvLine, RmLine};
use crate::process::exit::{Exit, Failure};

/// Where things go.
pub(super) enum Destination {
    /// Into a directory that is there, under their own names.
    Into(PathBuf),
    /// To this path.
    As(PathBuf),
}

impl Destination {
    /// What a place in the tree means for so many things.
    ///
    /// # Errors
    /// If it is not a directory and has to be one.
    pub(super) fn of(tree: &dyn Tree, place: &Place, count: usize) -> Result<Destination, Failure> {
        let refused = |errno| {
            let path = absolute(&place.path).display().to_string();
            Err(Failure::new(Exit::Other, format!("cannot write to '{path}': {}", words(errno))))
        };
        match tree.stat(&place.path) {
            Ok(found) if found.is_directory() => Ok(Destination::Into(place.path.clone())),
            Ok(_) if place.is_directory || count > 1 => refused(Errno::NOTDIR),
            Err(errno) if place.is_directory || count > 1 => refused(errno),
            Ok(_) | Err(Errno::NOENT) => Ok(Destination::As(place.path.clone())),
            Err(errno) => refused(errno),
        }
    }

    /// Where something with this path goes.
    pub(super) fn path(&self, from: &Path) -> PathBuf {
        match self {
            // A root has no name.
            Destination::Into(directory) => match from.file_name() {
                Some(name) => directory.join(name),
                None => directory.clone(),
            },
            Destination::As(path) => path.clone(),
        }
    }
}

/// What a copy is made for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// To be one more file, as new as it is.
    Copying,
    /// To be sent, with the time of what it is a copy of, and perhaps with a note.
    Sending(Option<&'a str>),
}

impl<'a> Purpose<'a> {
    fn mtime(self, of: &Meta) -> Option<Timestamp> {
        match self {
            Purpose::Copying => None,
            Purpose::Sending(_) => Some(of.mtime),
        }
    }

    fn note(self) -> Option<&'a str> {
        match self {
            Purpose::Copying => None,
            Purpose::Sending(note) => note,
        }
    }

    /// The purpose of copying a part of it: a note is for the whole.
    fn of_part(self) -> Purpose<'a> {
        match self {
            Purpose::Copying => Purpose::Copying,
            Purpose::Sending(_) => Purpose::Sending(None),
        }
    }
}

/// The sources of a command, and where each goes.
fn sources_and_targets(opened: &Opened, places: &[Place], what: &str) -> Result<Vec<Job>, Failure> {
    let Some((to, from)) = places.split_last() else {
        return Err(Failure::usage("nothing is given"));
    };
    let found = expand(&*opened.tree, from, what, &opened.report);
    let destination = Destination::of(&*opened.tree, to, found.len())?;
    let job = |(from, meta): (PathBuf, Meta)| Job { to: destination.path(&from), from, meta };
    let mut jobs = found.into_iter().map(job).collect();
    without_collisions(&mut jobs, (&opened.report, what), absolute);
    Ok(jobs)
}

/// Copies files and directories. The server shares their data.
pub(super) fn cp(line: CpLine) -> Result<(), Failure> {
    must_be_in_tree(&line.places, "cp copies")?;
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let (tree, report) = (&*opened.tree, &*opened.report);
    let done = sources_and_targets(&opened, &places, "copy").map(|jobs| {
        for Job { from, meta, to } in jobs {
            if report.is_over() {
                break;
            }
            if meta.is_directory() && !line.recursive {
                let why = "it is a directory; give -r to copy it with everything in it";
                report.fail_with("copy", &absolute(&from), why);
            } else if to.starts_with(&from) {
                let what = if meta.is_directory() { "into itself" } else { "onto itself" };
                report.fail_with("copy", &absolute(&from), format!("that would be {what}"));
            } else {
                copy(tree, report, (&from, meta), &to, Purpose::Copying);
            }
        }
    });
    opened.close_after(done, Changes::Made)
}

/// Copies a node with everything in it.
pub(super) fn copy(
    tree: &dyn Tree,
    report: &Report,
    (from, meta): (&Path, Meta),
    to: &Path,
    purpose: Purpose<'_>,
) {
    let fail = |path: &Path, errno| report.fail("copy", path, errno);
    if !is_in_mailbox(to) || !meta.is_directory() {
        copy_to(tree, report, (from, meta), to, purpose);
        return;
    }
    // A directory is sent whole, by moving it into the mailbox when it is complete.
    let part = key(from, to).place(to);
    if let Err(errno) = clear(tree, &part) {
        return fail(to, errno);
    }
    let apart = Report::new();
    copy_to(tree, &apart, (from, meta), &part, purpose.of_part());
    let moved = match apart.is_clean() {
        true => send_directory(tree, &part, to, purpose.note()),
        false if apart.is_unanswered() => Err(Errno::TIMEDOUT),
        false if apart.is_over() => Err(Errno::NOTCONN),
        false => Err(Errno::CANCELED),
    };
    if let Err(errno) = moved {
        if !apart.is_over() {
            let _ = clear(tree, &part);
        }
        report.fail_with("send", &absolute(from), sending(errno, to));
    }
}

fn copy_to(
    tree: &dyn Tree,
    report: &Report,
    (from, meta): (&Path, Meta),
    to: &Path,
    purpose: Purpose<'_>,
) {
    let mut directories = Vec::new();
    walk(tree, from.to_owned(), meta, report, &mut |path, meta| {
        let below = path.strip_prefix(from).unwrap_or(Path::new(""));
        let to = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        let copied = match &meta.kind {
            Kind::Directory => make_directory_unless_there(tree, &to)
                .map(|()| directories.push((to.clone(), meta.clone()))),
            Kind::Symlink(target) => {
                let part = key(path, &to).place(&to);
                clear(tree, &part)
                    .and_then(|()| tree.make_link(&part, target))
                    .and_then(|()| put_in_place(tree, &part, &to, None))
            }
            Kind::File => copy_file(tree, (path, meta), &to, purpose),
            Kind::Pipe | Kind::Socket | Kind::Device => Err(Errno::INVAL),
        };
        match copied {
            Ok(()) => return Next::Within,
            Err(errno) if is_in_mailbox(&to) => {
                report.fail_with("send", &absolute(path), sending(errno, &to));
            }
            Err(errno) if tree.stat(&to).is_ok_and(|there| there.is_special()) => {
                report.fail("write", &to, errno);
            }
            Err(errno) => report.fail("copy", path, errno),
        }
        Next::Past
    });
    for (path, meta) in directories.iter().rev().take_while(|_| !report.is_over()) {
        if let Err(errno) = tree.set(path, meta.mode, purpose.mtime(meta)) {
            report.fail("set the permissions of", path, errno);
        }
    }
}

fn copy_file(
    tree: &dyn Tree,
    (from, meta): (&Path, &Meta),
    to: &Path,
    purpose: Purpose<'_>,
) -> Result<(), Errno> {
    let part = key(from, to).place(to);
    clear(tree, &part)?;
    let set_time = |mtime| tree.set(&part, meta.mode & 0o777, Some(mtime));
    let copied = tree.copy(from, &part);
    copied.and_then(|()| purpose.mtime(meta).map_or(Ok(()), set_time)).inspect_err(|_| {
        let _ = tree.remove(&part, Removed::File);
    })?;
    put_in_place(tree, &part, to, purpose.note())
}

/// Sends a directory by moving it into a mailbox. The record of one that was sent under that name makes way.
pub(super) fn send_directory(
    tree: &dyn Tree,
    part: &Path,
    to: &Path,
    note: Option<&str>,
) -> Result<(), Errno> {
    match rename_with_note(tree, part, to, note) {
        Err(Errno::NOTEMPTY | Errno::EXIST) if is_record(tree, to) => {
            clear(tree, to)?;
            tree.rename(part, to)
        }
        moved => moved,
    }
}

/// Whether something in a mailbox was sent.
fn is_record(tree: &dyn Tree, path: &Path) -> bool {
    let state = tree.attribute(path, Order::ATTRIBUTE).ok().flatten().unwrap_or_default();
    // What waits has a reason after a colon.
    let word = state.split([' ', ':']).next().unwrap_or_default();
    ["sending", "sent", "received", "refused"].contains(&word)
}

/// Why something was not sent, in words.
pub(super) fn sending(errno: Errno, to: &Path) -> Why {
    let user = to.iter().nth(1).unwrap_or_default().to_string_lossy();
    let words = match errno {
        Errno::DQUOT => format!("the inbox of {user} is full"),
        Errno::NOENT => format!("there is no other user {user} to send to"),
        Errno::NOTEMPTY | Errno::EXIST => {
            "a directory of that name waits to be sent; remove that".to_owned()
        }
        Errno::PERM => "only files and directories are sent".to_owned(),
        other => return other.into(),
    };
    Why::with_words(errno, words)
}

fn key(from: &Path, to: &Path) -> Key {
    Key::new("cp", &[from.as_os_str().as_bytes(), to.as_os_str().as_bytes()])
}

/// Makes a directory that only its user can enter, unless there is one.
pub(super) fn make_directory_unless_there(tree: &dyn Tree, path: &Path) -> Result<(), Errno> {
    match tree.make_directory(path, 0o700) {
        Err(Errno::EXIST | Errno::BUSY) if tree.stat(path)?.is_directory() => Ok(()),
        made => made,
    }
}

/// Removes what an earlier command has left at a path, if there is anything.
pub(super) fn clear(tree: &dyn Tree, path: &Path) -> Result<(), Errno> {
    let meta = match tree.stat(path) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    // What can't be removed is said of what was to come there.
    let report = Report::silent();
    remove(tree, &report, path, meta);
    match report.is_clean() {
        true => Ok(()),
        false if report.is_unanswered() => Err(Errno::TIMEDOUT),
        false if report.is_over() => Err(Errno::NOTCONN),
        false => Err(Errno::EXIST),
    }
}

/// Moves files and directories.
pub(super) fn mv(line: MvLine) -> Result<(), Failure> {
    must_be_in_tree(&line.places, "mv moves")?;
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let done = sources_and_targets(&opened, &places, "move").map(|jobs| {
        for Job { from, to, .. } in jobs {
            if opened.report.is_over() {
                break;
            }
            if let Some(why) = why_fixed(&from) {
                opened.report.fail_with("move", &absolute(&from), why);
                continue;
            }
            let Err(errno) = opened.tree.rename(&from, &to) else { continue };
            let why = match errno {
                Errno::INVAL => "that would be into itself".into(),
                _ if is_in_mailbox(&to) => sending(errno, &to),
                other => other.into(),
            };
            opened.report.fail_with("move", &absolute(&from), why);
        }
    });
    opened.close_after(done, Changes::Made)
}

/// Removes files and directories.
pub(super) fn rm(line: RmLine) -> Result<(), Failure> {
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let (tree, report) = (&*opened.tree, &*opened.report);
    let is_there = |place: &&Place| !line.force || !is_missing(tree, place);
    let places: Vec<_> = places.iter().filter(is_there).cloned().collect();
    for (path, meta) in expand(tree, &places, "remove", report) {
        if report.is_over() {
            break;
        }
        if let Some(why) = why_fixed(&path) {
            report.fail_with("remove", &absolute(&path), why);
        } else if meta.is_directory() && !line.recursive {
            let why = "it is a directory; give -r to remove it with everything in it";
            report.fail_with("remove", &absolute(&path), why);
        } else {
            remove(tree, report, &path, meta);
        }
    }
    opened.close(Changes::Made)
}

/// Why a directory can't be removed or moved, if it is one that every tree has.
fn why_fixed(path: &Path) -> Option<String> {
    let mut names = path.iter().map(OsStr::to_string_lossy);
    match (names.next().as_deref(), names.next(), names.next()) {
        (None, _, _) => Some("it is the root of the tree".to_owned()),
        (Some("inbox"), None, _) => {
            Some("every tree has it; give what is in it: inbox/*".to_owned())
        }
        (Some("outbox"), None, _) => {
            Some("every tree has it; give what is in it: outbox/*/*".to_owned())
        }
        (Some("outbox"), Some(user), None) => {
            Some(format!("it is the mailbox of {user}; give what is in it: outbox/{user}/*"))
        }
        _ => None,
    }
}

/// Whether there is nothing that a place means.
fn is_missing(tree: &dyn Tree, place: &Place) -> bool {
    matches!(tree.stat(&place.path), Err(Errno::NOENT | Errno::NOTDIR))
        && expand(tree, std::slice::from_ref(place), "remove", &Report::silent()).is_empty()
}

/// Removes a node with everything in it.
pub(super) fn remove(tree: &dyn Tree, report: &Report, path: &Path, meta: Meta) {
    let mut found = Vec::new();
    walk(tree, path.to_owned(), meta, report, &mut |path, meta| {
        let kind = if meta.is_directory() { Removed::Directory } else { Removed::File };
        found.push((path.to_owned(), kind));
        Next::Within
    });
    // What is in a directory goes before it.
    for (path, kind) in found.iter().rev() {
        if report.is_over() {
            return;
        }
        match tree.remove(path, *kind) {
            Ok(()) => {}
            // A line has told of what could not be removed in it.
            Err(Errno::NOTEMPTY) if !report.is_clean() => {}
            Err(errno) => report.fail("remove", path, errno),
        }
    }
}

/// Makes directories.
pub(super) fn mkdir(line: MkdirLine) -> Result<(), Failure> {
    let mode = 0o777 & !umask();
    let (places, opened) = Opened::of(&line.places, line.access)?;
    for place in &places {
        let made = match line.parents {
            true => make_with_parents(&*opened.tree, &place.path, mode),
            false => opened.tree.make_directory(&place.path, mode),
        };
        match made {
            Ok(()) => {}
            Err(Errno::BUSY) => opened.report.fail("make", &place.path, Errno::EXIST),
            Err(errno) => opened.report.fail("make", &place.path, errno),
        }
    }
    opened.close(Changes::Made)
}

fn make_with_parents(tree: &dyn Tree, path: &Path, mode: u16) -> Result<(), Errno> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    for path in above.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        match tree.make_directory(path, mode) {
            Err(Errno::EXIST) if tree.stat(path)?.is_directory() => {}
            made => made?,
        }
    }
    Ok(())
}

/// The permission bits that new files and directories do without. To be called before there are threads.
pub(super) fn umask() -> u16 {
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    mask.bits() as u16
}
