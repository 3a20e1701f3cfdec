//! `xfer get` and `xfer put`: several files at once over one session, each complete or not there, and
//! resumed where an earlier transfer broke off.
//!
//! Reading order: this file (what both have in common), `fetching` and `storing` (one file each way), `get`
//! and `put` (the plans), `pool` (several at once).
//!
//! **Invariant:** a file gets its name when all its bytes are there, and its source is still what it was
//! when the transfer began.

mod get;
mod put;
mod fetching;
mod storing;
mod pool;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;

use super::errno::Why;
use super::place::absolute;
use super::report::Report;
use super::staging::{is_in_mailbox, is_part_of};
use super::tree::{Meta, Sink, Source, Tree};

pub(super) use get::get;
pub(super) use put::{Given, put, scan};

/// How much is moved at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// What the transfers of one command have in common.
pub(super) struct Transfer<'a> {
    pub(super) tree: &'a dyn Tree,
    pub(super) report: &'a Report,
    /// `user@host:port`.
    pub(super) label: &'a str,
    /// Whether to compare contents.
    pub(super) checksum: bool,
    /// The note to what is sent.
    note: Option<&'a str>,
    parts: Parts,
}

/// Why a file was not transferred.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What could not be done.
    what: &'static str,
    /// With what, as users read it.
    path: PathBuf,
    why: Why,
    /// Whether the other files will not do better.
    is_end: bool,
}

impl Trouble {
    /// One with a file of the tree.
    fn there(what: &'static str, path: &Path, errno: Errno) -> Trouble {
        Trouble::of(what, absolute(path), errno)
    }

    /// One with a file of this machine.
    fn here(what: &'static str, path: &Path, errno: Errno) -> Trouble {
        Trouble::of(what, path.to_owned(), errno)
    }

    fn of(what: &'static str, path: PathBuf, errno: Errno) -> Trouble {
        let is_end = matches!(
            errno,
            Errno::DQUOT | Errno::NOSPC | Errno::TIMEDOUT | Errno::NOTCONN | Errno::INTR
        );
        Trouble { what, path, why: errno.into(), is_end }
    }

    fn because(what: &'static str, path: &Path, why: impl Into<Why>) -> Trouble {
        Trouble { what, path: path.to_owned(), why: why.into(), is_end: false }
    }

    /// Whether there was no room.
    fn is_of_room(&self) -> bool {
        self.why.is_of_room()
    }

    /// Says so. Returns whether the other files may do better.
    pub(super) fn tell(self, report: &Report) -> bool {
        report.fail_with(self.what, &self.path, self.why);
        !self.is_end
    }
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        tree: &'a dyn Tree,
        report: &'a Report,
        label: &'a str,
        checksum: bool,
    ) -> Transfer<'a> {
        Transfer { tree, report, label, checksum, note: None, parts: Parts::default() }
    }

    /// The same, with a note to what is sent.
    #[must_use]
    pub(super) fn with_note(self, note: Option<&'a str>) -> Transfer<'a> {
        Transfer { note, ..self }
    }

    /// Whether a file is there already: with the size and the time that a transfer would give it, or with
    /// the same bytes if contents are compared. What was sent is sent again.
    fn is_there(
        &self,
        from: &Meta,
        (there, path): (&Meta, &Path),
        same_bytes: impl FnOnce() -> Result<bool, Trouble>,
    ) -> Result<bool, Trouble> {
        if !there.is_file() || there.size != from.size || is_in_mailbox(path) {
            return Ok(false);
        }
        if self.checksum { same_bytes() } else { Ok(there.mtime == from.mtime) }
    }

    /// Moves the bytes of a file from a position on. Returns whether all were there. What is all zeros
    /// becomes a hole, unless it is at the end, which says how long the file is.
    fn move_bytes(
        &self,
        (source, reading): (&dyn Source, &dyn Fn(Errno) -> Trouble),
        (sink, writing): (&dyn Sink, &dyn Fn(Errno) -> Trouble),
        from: u64,
        size: u64,
    ) -> Result<bool, Trouble> {
        let mut at = from;
        while at < size {
            let wanted = (size - at).min(CHUNK_BYTES as u64) as usize;
            let data: Bytes = source.read_at(at, wanted).map_err(reading)?;
            let len = data.len();
            let is_hole = sink.takes_holes() && at + (len as u64) < size && is_zeros(&data);
            if !is_hole {
                sink.write_at(at, data).map_err(writing)?;
            }
            self.report.advance(len as u64);
            if len < wanted {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}

/// Whether there are only zeros, by comparing bytes with those one further on, which is one comparison of memory.
fn is_zeros(data: &[u8]) -> bool {
    data.first().is_none_or(|first| *first == 0)
        && data.get(1..).is_none_or(|rest| rest == &data[..rest.len()])
}

/// Whether two files have the same bytes, up to this size.
fn are_alike(
    (one, reading_one): (&dyn Source, &dyn Fn(Errno) -> Trouble),
    (other, reading_other): (&dyn Source, &dyn Fn(Errno) -> Trouble),
    size: u64,
) -> Result<bool, Trouble> {
    let mut at = 0;
    while at < size {
        let wanted = (size - at).min(CHUNK_BYTES as u64) as usize;
        let here = one.read_at(at, wanted).map_err(reading_one)?;
        let there = other.read_at(at, wanted).map_err(reading_other)?;
        if here != there || here.len() < wanted {
            return Ok(false);
        }
        at += wanted as u64;
    }
    Ok(true)
}

/// The parts that earlier transfers have left in each directory, from the first look at it on.
#[derive(Default)]
struct Parts(Mutex<BTreeMap<PathBuf, Arc<Vec<OsString>>>>);

impl Parts {
    /// Those of other states of a file than the one that is transferred now.
    fn others(
        &self,
        directory: &Path,
        file: &OsStr,
        own: &OsStr,
        list: impl FnOnce() -> Vec<OsString>,
    ) -> Vec<OsString> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = known.entry(directory.to_owned()).or_insert_with(|| {
            let is_part = |name: &OsString| name.as_encoded_bytes().ends_with(b".part");
            Arc::new(list().into_iter().filter(is_part).collect())
        });
        let names = names.clone();
        drop(known);
        let is_other = |name: &&OsString| is_part_of(name, file) && name.as_os_str() != own;
        names.iter().filter(is_other).cloned().collect()
    }
}
