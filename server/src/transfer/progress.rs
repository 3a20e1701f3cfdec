//! Messages while a tree is copied: a line that is rewritten on a terminal, a warning for each
//! entry left behind, and a summary at the end.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use xfer_protocol::shown::Shown;
use xfer_protocol::{Name, size};
use xfer_terminal::plain;

use crate::program::exit::{Exit, Failure};

/// The interval between updates of the line.
const REFRESH: Duration = Duration::from_millis(200);

/// Erases the present line on the terminal.
const CLEAR: &str = "\r\x1b[K";

/// Counts of a tree's entries, by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Entries that were copied.
    pub moved: u64,
    /// Entries that were there already.
    pub kept: u64,
    /// Entries of a kind that is not copied: devices.
    pub skipped: u64,
    /// Entries that could not be copied.
    pub failed: u64,
    /// Bytes of data that were copied.
    pub bytes: u64,
}

/// Counts entries and reports progress.
pub(super) struct Progress {
    /// The action, for the messages: `imported` or `exported`.
    verb: &'static str,
    pub(super) tally: Tally,
    /// The total number of entries, if it is known.
    total: Option<u64>,
    start: Instant,
    told: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(verb: &'static str, total: Option<u64>) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let now = Instant::now();
        Progress { verb, tally: Tally::default(), total, start: now, told: now, terminal }
    }

    /// Counts an entry that was copied.
    pub(super) fn moved(&mut self) {
        self.tally.moved += 1;
        self.tell();
    }

    /// Counts an entry that was there already.
    pub(super) fn kept(&mut self) {
        self.tally.kept += 1;
        self.tell();
    }

    /// Counts bytes of data that were copied.
    pub(super) fn bytes(&mut self, count: u64) {
        self.tally.bytes += count;
        self.tell();
    }

    /// Warns of an entry whose kind is not copied.
    pub(super) fn skip(&mut self, path: &Path<'_>, what: &str) {
        self.tally.skipped += 1;
        self.warn(path, what);
    }

    /// Warns of an entry that could not be copied.
    pub(super) fn fail(&mut self, path: &Path<'_>, why: &str) {
        self.tally.failed += 1;
        self.warn(path, why);
    }

    /// Erases the progress line.
    pub(super) fn clear(&self) {
        if self.terminal {
            self.write(CLEAR);
        }
    }

    /// The summary line, and a failure if the tree is not complete.
    pub(super) fn finish(self) -> (String, Result<(), Failure>) {
        self.clear();
        let Tally { moved, kept, skipped, failed, bytes } = self.tally;
        let line = format!(
            "{} {moved} ({}) in {:.1} s; there already {kept}, skipped {skipped}, failed {failed}",
            self.verb,
            size::display(bytes),
            self.start.elapsed().as_secs_f64(),
        );
        let whole = match failed {
            0 => Ok(()),
            _ => {
                let what = format!(
                    "{} could not be {}; see the warnings, and run this again",
                    size::count(failed, "entry"),
                    self.verb
                );
                Err(Failure::new(Exit::Incomplete, what))
            }
        };
        (line, whole)
    }

    fn warn(&self, path: &Path<'_>, what: &str) {
        let clear = if self.terminal { CLEAR } else { "" };
        self.write(&format!("{clear}xfer-server: warning: {path}: {}\n", Shown(&plain(what))));
    }

    fn tell(&mut self) {
        if !self.terminal || self.told.elapsed() < REFRESH {
            return;
        }
        self.told = Instant::now();
        let done = self.tally.moved + self.tally.kept;
        let of = self.total.map_or_else(String::new, |total| format!(" of {total}"));
        let rate = self.tally.bytes as f64 / self.start.elapsed().as_secs_f64();
        let (bytes, rate) = (size::display(self.tally.bytes), size::display(rate as u64));
        self.write(&format!("{CLEAR}{} {done}{of}, {bytes}, {rate}/s", self.verb));
    }

    /// A closed standard error is ignored.
    fn write(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The path of an entry below the directory, for messages only.
pub(super) struct Path<'a> {
    /// The directories on the path.
    pub(super) directories: &'a [Name],
    /// The entry's own name.
    pub(super) name: &'a Name,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for directory in self.directories {
            write!(f, "{directory}/")?;
        }
        write!(f, "{}", self.name)
    }
}
