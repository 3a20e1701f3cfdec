//! A call to a mount's process: one question and its answer.
//!
//! Plain blocking I/O; every read has a deadline.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xfer_protocol::shown::Shown;

use super::{Answer, Ask, LINE_BYTES_MAX, Stats, Status, show};
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;

/// After how many seconds without a connection it is said that this is what is waited for.
const TROUBLE_AFTER: f64 = 2.0;

/// The longest silence of a mount that was asked something.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A connection to a mount's process, good for one question.
pub(super) struct Call {
    stream: UnixStream,
    pub(super) mountpoint: PathBuf,
}

impl Call {
    /// Connects to the mount that listens on `socket`, if its process is alive.
    pub(super) fn to(socket: &Path, mountpoint: PathBuf) -> Option<Call> {
        Some(Call { stream: connect(socket)?, mountpoint })
    }

    /// Asks for the mount's status.
    pub(super) fn status(mut self) -> Result<Status, Failure> {
        let asked = self.ask(Ask::Status).and_then(|mut answers| next(&mut answers));
        match asked.map_err(|error| self.silent(&error))? {
            Answer::Status(status) => Ok(*status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits for news of the inbox, for as long as it takes.
    pub(super) fn inbox_news(mut self, seen: Option<u64>) -> Result<u64, Failure> {
        let asked = self.stream.set_read_timeout(None).and_then(|()| {
            let mut answers = self.ask(Ask::InboxNews(seen))?;
            next(&mut answers)
        });
        match asked.map_err(|error| self.silent(&error))? {
            Answer::InboxNews(news) => Ok(news),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks something of a node, and waits for as long as the mount does. `None` if the mount does not say,
    /// such as one of an earlier version.
    pub(super) fn of_node(mut self, ask: Ask) -> Option<Result<Option<String>, i32>> {
        self.stream.set_read_timeout(None).ok()?;
        let mut answers = self.ask(ask).ok()?;
        let Answer::OfNode(answer) = next(&mut answers).ok()? else { return None };
        Some(answer)
    }

    /// Asks for the mount's counters.
    pub(super) fn stats(mut self) -> Result<Stats, Failure> {
        let asked = self.ask(Ask::Stats).and_then(|mut answers| next(&mut answers));
        match asked.map_err(|error| self.silent(&error))? {
            Answer::Stats(stats) => Ok(*stats),
            // A mount of an earlier version.
            Answer::Failed { .. } => {
                let why = "its xfer-mount keeps no counters; mount again with a newer one";
                Err(self.failed(why, Exit::Other))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks for something that takes time, and shows its progress to the end.
    pub(super) fn follow(mut self, ask: Ask) -> Result<(), Failure> {
        let mut answers = self.ask(ask.clone()).map_err(|error| self.silent(&error))?;
        let mut meter = Meter::new();
        let without = match ask {
            Ask::Unmount => "; it stays mounted then; without the server: xfer unmount --abandon",
            _ => "",
        };
        loop {
            match next(&mut answers).map_err(|error| self.silent(&error))? {
                Answer::Progress { pending_ops, pending_bytes, disconnected } => {
                    if let Some(lost) = disconnected.filter(|lost| lost.seconds > TROUBLE_AFTER) {
                        let place = Shown(&self.mountpoint.to_string_lossy()).to_string();
                        let connection = show::connection(&lost);
                        meter.warn(&format!(
                            "{place}: no connection to the server ({connection}); waiting for it, \
                             until Ctrl-C{without}"
                        ));
                    }
                    meter.show(&show::pending(pending_ops, pending_bytes));
                }
                Answer::Done => return Ok(()),
                Answer::Failed { why, lost } => {
                    drop(meter);
                    let exit = if lost { Exit::Lost } else { Exit::Other };
                    return Err(self.failed(&why, exit));
                }
                other => return Err(self.unexpected(&other)),
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> io::Result<BufReader<UnixStream>> {
        let mut line = serde_json::to_vec(&ask)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        Ok(BufReader::new(self.stream.try_clone()?))
    }

    /// An answer that is not one to the question.
    fn unexpected(&self, answer: &Answer) -> Failure {
        let why = match answer {
            Answer::Failed { why, .. } => why,
            Answer::Status(_)
            | Answer::Stats(_)
            | Answer::Progress { .. }
            | Answer::InboxNews(_)
            | Answer::OfNode(_)
            | Answer::Done => {
                "its xfer-mount gave an answer to something else; mount again with the same version"
            }
        };
        self.failed(why, Exit::Other)
    }

    fn failed(&self, why: &str, exit: Exit) -> Failure {
        Failure::new(exit, format!("{}: {why}", self.mountpoint.display()))
    }

    fn silent(&self, error: &io::Error) -> Failure {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock => "the mount's process does not answer".to_owned(),
            io::ErrorKind::UnexpectedEof => {
                "the mount's process ended without an answer; what was written last may be lost"
                    .to_owned()
            }
            _ => format!("the mount's process: {error}"),
        };
        self.failed(&why, Exit::Other)
    }
}

fn next(answers: &mut BufReader<UnixStream>) -> io::Result<Answer> {
    let mut line = Vec::new();
    let length = answers.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Connects to a socket; removes it if it belongs to a killed process.
fn connect(path: &Path) -> Option<UnixStream> {
    match UnixStream::connect(path) {
        Ok(stream) => {
            stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
            stream.set_write_timeout(Some(SILENCE_MAX)).ok()?;
            Some(stream)
        }
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = fs::remove_file(path);
            }
            None
        }
    }
}

/// A line on the terminal that is rewritten in place; does nothing without a terminal.
struct Meter {
    terminal: Option<io::Stderr>,
    has_warned: bool,
}

impl Meter {
    fn new() -> Meter {
        let terminal = Some(io::stderr()).filter(IsTerminal::is_terminal);
        Meter { terminal, has_warned: false }
    }

    /// Says why it takes long, once.
    fn warn(&mut self, line: &str) {
        if self.terminal.is_some() && !std::mem::replace(&mut self.has_warned, true) {
            self.clear();
            complain(format_args!("xfer: {line}"));
        }
    }

    fn show(&mut self, text: &str) {
        if let Some(terminal) = &mut self.terminal {
            let _ = write!(terminal, "\r\x1b[Kto be made durable: {text}");
        }
    }
}

impl Meter {
    fn clear(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            let _ = write!(terminal, "\r\x1b[K");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}
