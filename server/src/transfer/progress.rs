//! What is told while a tree is moved: a line that is rewritten on a terminal, a warning for what
//! stays behind, and the sum at the end.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use xfer_protocol::shown::Shown;
use xfer_protocol::{Name, size};

use crate::exit::{Exit, Failure};

/// How often the line is rewritten.
const REFRESH: Duration = Duration::from_millis(200);

/// Makes the terminal forget the line so far.
const CLEAR: &str = "\r\x1b[K";

/// What became of a tree's entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Those that were moved.
    pub moved: u64,
    /// Those that were there already.
    pub kept: u64,
    /// Those of a kind that is not moved: devices.
    pub skipped: u64,
    /// Those that could not be moved.
    pub failed: u64,
    /// Bytes of data that were moved.
    pub bytes: u64,
}

/// Tells, and counts.
pub(super) struct Progress {
    /// What is being done: `imported`, `exported`.
    verb: &'static str,
    pub(super) tally: Tally,
    /// Entries in all, if that is known.
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

    /// An entry was moved.
    pub(super) fn moved(&mut self) {
        self.tally.moved += 1;
        self.tell();
    }

    /// An entry was there already.
    pub(super) fn kept(&mut self) {
        self.tally.kept += 1;
        self.tell();
    }

    /// Data was moved.
    pub(super) fn bytes(&mut self, count: u64) {
        self.tally.bytes += count;
        self.tell();
    }

    /// An entry is of a kind that stays behind.
    pub(super) fn skip(&mut self, path: &Path<'_>, what: &str) {
        self.tally.skipped += 1;
        self.warn(path, what);
    }

    /// An entry could not be moved.
    pub(super) fn fail(&mut self, path: &Path<'_>, why: &str) {
        self.tally.failed += 1;
        self.warn(path, why);
    }

    /// Ends the line.
    pub(super) fn clear(&self) {
        if self.terminal {
            self.write(CLEAR);
        }
    }

    /// The sum, and whether all of the tree is there.
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
                    "{failed} entries could not be {}; see the warnings, and run this again",
                    self.verb
                );
                Err(Failure::new(Exit::Incomplete, what))
            }
        };
        (line, whole)
    }

    fn warn(&self, path: &Path<'_>, what: &str) {
        let clear = if self.terminal { CLEAR } else { "" };
        self.write(&format!("{clear}xfer-server: warning: {path}: {}\n", Shown(what)));
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

    /// With standard error closed there is nobody to tell.
    fn write(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// A place below the directory, for messages only.
pub(super) struct Path<'a> {
    /// The directories on the way.
    pub(super) directories: &'a [Name],
    /// The entry.
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
