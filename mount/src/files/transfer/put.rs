//! `xfer put`: from this machine to the tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::super::changing::{
    Destination, clear, make_directory_unless_there, send_directory, sending, umask,
};
use super::super::errno::of_io;
use super::super::opening::Opened;
use super::super::place::{Either, Place, absolute};
use super::super::plan::{Job, make_directories, without_collisions};
use super::super::staging::{Key, is_in_mailbox};
use super::super::tree::{Changes, Kind, Meta};
use super::fetching::here;
use super::get::is_stream;
use super::pool::do_all;
use super::storing::followed;
use super::{Transfer, Trouble};
use crate::command::file_lines::PutLine;
use crate::process::exit::Failure;

/// A directory that is sent.
struct Whole {
    from: PathBuf,
    /// Where it is completed.
    part: PathBuf,
    to: PathBuf,
    /// Whether all of it could be looked at and made.
    is_whole: bool,
}

/// Stores files and directories.
pub(in super::super) fn put(line: PutLine) -> Result<(), Failure> {
    let Some((to, from)) = line.places.split_last() else { return Ok(()) };
    let to = Place::parse(to)?;
    for text in from {
        if let Either::There(_) = Either::parse(text)? {
            let line = "both are in the tree; use `xfer cp`, or write ./ before a file's name";
            return Err(Failure::usage(line));
        }
    }
    let mask = umask();
    let opened = Opened::open(&to.account, line.transfer.access)?;
    let transfer =
        Transfer::new(&*opened.tree, &opened.report, &opened.label, line.transfer.checksum);
    let done = Destination::of(&*opened.tree, &to, from.len()).map(|destination| {
        let (inputs, files): (Vec<_>, Vec<_>) = from.iter().partition(|text| is_stream(text));
        for _ in inputs {
            let stored = match &destination {
                Destination::As(path) => transfer.store_input(path, 0o666 & !mask),
                Destination::Into(_) => Err(Trouble::because(
                    "write",
                    &absolute(&to.path),
                    "standard input has no name; give the file's name too",
                )),
            };
            if let Err(trouble) = stored {
                trouble.tell(&opened.report);
            }
        }
        let given = if line.transfer.recursive { Given::Recursive } else { Given::Alone };
        let mut found = Vec::new();
        for path in files.into_iter().map(Path::new) {
            match scan(path, given) {
                Ok((from, meta)) => {
                    let to = destination.path(&from);
                    found.push(Job { from, meta, to });
                }
                Err(trouble) => {
                    trouble.tell(&opened.report);
                }
            }
        }
        without_collisions(&mut found, (&opened.report, "transfer"), Path::to_owned);
        transfer.store_all(found, line.transfer.quiet);
    });
    opened.close_after(done, Changes::Made)
}

/// What a path on the command line may mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Given {
    /// A file; a link means the file that it leads to.
    Alone,
    /// A file, a link, or a directory with all in it.
    Recursive,
    /// A file, or a directory with all in it; a link means what it leads to.
    ToBeSent,
}

/// A file or directory of this machine that is named on the command line. The path has a name at its end.
pub(in super::super) fn scan(path: &Path, given: Given) -> Result<(PathBuf, Meta), Trouble> {
    let reading = |errno| Trouble::here("read", path, errno);
    let found = here(path).map_err(reading)?.ok_or_else(|| reading(Errno::NOENT))?;
    let meta = match found.kind {
        // As cp(1) does.
        Kind::Symlink(_) if given != Given::Recursive => followed(path).map_err(reading)?,
        _ => found,
    };
    if meta.is_directory() && given == Given::Alone {
        let why = "it is a directory; give -r to store it with everything in it";
        return Err(Trouble::because("read", path, why));
    }
    // `.` and `..` have none.
    let named = match path.file_name() {
        Some(_) => path.to_owned(),
        None => fs::canonicalize(path).map_err(|error| reading(of_io(error)))?,
    };
    Ok((named, meta))
}

impl Transfer<'_> {
    /// Stores files, links, and directories with everything in them. Returns the places of those that got
    /// their names; of directories, of those that are sent.
    pub(in super::super) fn store_all(&self, found: Vec<Job>, is_quiet: bool) -> BTreeSet<PathBuf> {
        let (mut jobs, mut directories, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for Job { from, meta, to } in found {
            let place = match meta.is_directory() && is_in_mailbox(&to) {
                true => {
                    // It is sent whole, by moving it into the mailbox when it is complete.
                    let key =
                        [from.as_os_str(), to.as_os_str()].map(|path| path.as_encoded_bytes());
                    Key::new("put", &key).place(&to)
                }
                false => to.clone(),
            };
            let before = self.report.failures();
            self.plan(&from, meta, &place, &mut jobs, &mut directories);
            if place != to {
                let is_whole = self.report.failures() == before;
                whole.push(Whole { from, part: place, to, is_whole });
            }
        }
        let unmade = make_directories(&mut directories, &mut jobs, self.report, |path| {
            let made = make_directory_unless_there(self.tree, path);
            let trouble = made.map_err(|errno| Trouble::there("make", path, errno));
            trouble.map_err(|trouble| trouble.tell(self.report)).is_ok()
        });
        for whole in &mut whole {
            whole.is_whole &= !unmade.iter().any(|to| to.starts_with(&whole.part));
        }
        without_collisions(&mut jobs, (self.report, "transfer"), Path::to_owned);
        self.report.begin(jobs.iter().map(|job| job.meta.size).sum(), is_quiet);
        let mut stored = self.perform(&jobs);
        // Those in a directory first, since they change its time.
        for Job { meta, to, .. } in directories.iter().rev() {
            if let Err(errno) = self.tree.set(to, meta.mode & 0o777, Some(meta.mtime)) {
                Trouble::there("write", to, errno).tell(self.report);
                let around = whole.iter_mut().filter(|whole| to.starts_with(&whole.part));
                around.for_each(|whole| whole.is_whole = false);
            }
        }
        for Whole { from, part, to, is_whole } in whole {
            let mut within = jobs.iter().filter(|job| job.to.starts_with(&part));
            if !is_whole || !within.all(|job| stored.contains(&job.to)) {
                // Without room, the part only keeps others from it.
                if self.report.is_crowded() {
                    let _ = clear(self.tree, &part);
                }
                let why = "not all of it could be stored";
                Trouble::because("send", &from, why).tell(self.report);
            } else if let Err(errno) = send_directory(self.tree, &part, &to, self.note) {
                let _ = clear(self.tree, &part);
                Trouble::because("send", &from, sending(errno, &to)).tell(self.report);
            } else {
                stored.insert(to);
            }
        }
        self.report.end();
        stored
    }

    /// Stores files and links. Returns the places of those that are stored.
    fn perform(&self, jobs: &[Job]) -> BTreeSet<PathBuf> {
        let stored = Mutex::new(BTreeSet::new());
        do_all(jobs, |Job { from, meta, to }| {
            let done = match meta.kind {
                Kind::Symlink(_) => self.store_link(from, meta, to),
                _ => self.store(from, meta, to),
            };
            let Err(trouble) = done else {
                stored.lock().unwrap_or_else(PoisonError::into_inner).insert(to.clone());
                return true;
            };
            trouble.tell(self.report)
        });
        stored.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans what is stored. Nothing is made meanwhile: where the tree is mounted, the target may be in what is
    /// looked through.
    fn plan(
        &self,
        from: &Path,
        meta: Meta,
        to: &Path,
        jobs: &mut Vec<Job>,
        directories: &mut Vec<Job>,
    ) {
        let mut waiting = vec![Job { from: from.to_owned(), meta, to: to.to_owned() }];
        while let Some(job) = waiting.pop() {
            match job.meta.kind {
                Kind::Directory => {
                    match entries(&job.from) {
                        Ok(entries) => {
                            waiting.extend(entries.into_iter().rev().map(|(path, meta)| {
                                let to = job.to.join(path.file_name().unwrap_or_default());
                                Job { from: path, meta, to }
                            }))
                        }
                        Err(errno) => {
                            Trouble::here("read", &job.from, errno).tell(self.report);
                        }
                    }
                    directories.push(job);
                }
                Kind::File | Kind::Symlink(_) => jobs.push(job),
                Kind::Pipe | Kind::Socket | Kind::Device => {
                    Trouble::here("read", &job.from, Errno::INVAL).tell(self.report);
                }
            }
        }
    }
}

/// The entries of a directory of this machine, in the order of their names.
fn entries(path: &Path) -> Result<Vec<(PathBuf, Meta)>, Errno> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(of_io)? {
        let path = entry.map_err(of_io)?.path();
        if let Some(meta) = here(&path)? {
            found.push((path, meta));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
