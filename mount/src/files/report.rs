//! What a command says while it works: a line for each thing that fails, and the progress on a terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::io::Errno;
use xfer_protocol::shown::shown;

use super::errno::Why;
use super::place::absolute;
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;

/// The progress of a transfer, with its rate and the time that is left.
const PROGRESS: &str = "{bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {wide_msg}";

/// What a command has said so far. Several threads may work for it.
pub(super) struct Report {
    failed: AtomicUsize,
    /// Whether the user has had enough; then failures are no news.
    interrupted: AtomicBool,
    /// Whether something failed since there was no room.
    crowded: AtomicBool,
    /// Whether something failed since the server did not answer for as long as an operation waits.
    unanswered: AtomicBool,
    /// Whether something failed since the session is over.
    over: AtomicBool,
    progress: ProgressBar,
}

impl Report {
    pub(super) fn new() -> Report {
        let (failed, interrupted, crowded, unanswered, over) = Default::default();
        Report { failed, interrupted, crowded, unanswered, over, progress: ProgressBar::hidden() }
    }

    /// One that says nothing.
    pub(super) fn silent() -> Report {
        let report = Report::new();
        report.interrupt();
        report
    }

    /// Says that something can't be done with a path in the tree.
    pub(super) fn fail(&self, what: &str, path: &Path, errno: Errno) {
        self.fail_with(what, &absolute(path), errno);
    }

    /// Says that something can't be done with a path of any side, and why.
    pub(super) fn fail_with(&self, what: &str, path: &Path, why: impl Into<Why>) {
        let (path, why) = (shown(&path.to_string_lossy()), why.into());
        if why.is_any_of(&[Errno::TIMEDOUT]) {
            self.unanswered.store(true, Ordering::Relaxed);
        }
        if why.is_any_of(&[Errno::NOTCONN]) {
            self.over.store(true, Ordering::Relaxed);
        }
        if why.is_of_room() {
            self.crowded.store(true, Ordering::Relaxed);
        }
        self.fail_line(&format!("cannot {what} '{path}': {}", why.words()));
    }

    /// Says that something failed.
    pub(super) fn fail_line(&self, line: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if !self.is_interrupted() {
            self.progress.suspend(|| complain(format_args!("xfer: {}", shown(line))));
        }
    }

    /// Whether nothing failed so far.
    pub(super) fn is_clean(&self) -> bool {
        self.failures() == 0
    }

    /// How many things failed so far.
    pub(super) fn failures(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether there was no room for something, of which a line has told.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Whether the server was waited for in vain, of which a line has told.
    pub(super) fn is_unanswered(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Whether nothing more can be done in the tree, of which a line has told. Then nothing more is tried.
    pub(super) fn is_over(&self) -> bool {
        self.is_unanswered() || self.over.load(Ordering::Relaxed)
    }

    /// The result of the command.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        match self.is_clean() {
            true => Ok(()),
            false => Err(Failure::told(Exit::Other)),
        }
    }

    /// Notes that the user has had enough, and takes the progress off the terminal.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.progress.finish_and_clear();
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Shows the progress of `bytes` on the terminal, if standard error is one and the user wants it.
    pub(super) fn begin(&self, bytes: u64, is_quiet: bool) {
        if is_quiet || !std::io::stderr().is_terminal() {
            return;
        }
        self.progress.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(PROGRESS) {
            self.progress.set_style(style);
        }
        self.progress.set_length(bytes);
    }

    /// Notes that so many bytes are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.progress.inc(bytes);
    }

    /// Notes that so many bytes need not be moved.
    pub(super) fn skip(&self, bytes: u64) {
        self.progress.inc(bytes);
        self.progress.reset_eta();
    }

    /// Notes the file that is being moved.
    pub(super) fn at(&self, path: &Path) {
        if !self.progress.is_hidden() {
            self.progress.set_message(shown(&path.to_string_lossy()));
        }
    }

    /// Ends the progress.
    pub(super) fn end(&self) {
        self.progress.finish_and_clear();
    }
}
