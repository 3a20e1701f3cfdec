//! A command about accounts that is given by the admin socket: the server carries it out as if its
//! owner had typed it, and the person at the other end sees what it prints and answers what it asks.
//!
//! The server says lines of JSON ([`Said`]). Each answer to a question is a line as it was typed, since a
//! password need not be text.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xfer_protocol::limits::PASSWORD_BYTES_MAX;
use zeroize::Zeroizing;

use crate::program::console::Console;
use crate::program::exit::{Exit, Failure};

/// How long a question waits for its answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5 * 60);

/// How long the other end may take to read what is said.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The longest answer, in bytes: as long as a line that is typed.
const ANSWER_BYTES_MAX: usize = 4096;

const _: () = assert!(PASSWORD_BYTES_MAX < ANSWER_BYTES_MAX);

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
enum Said {
    /// A line of output.
    Print { line: String },
    /// A line beside the output.
    Note { line: String },
    /// A question.
    Ask { question: String },
    /// The question for a new password.
    AskPassword,
    /// The command is over.
    Over { failure: Option<Failure> },
}

/// The person at the other end, as the server has them.
pub(super) struct Caller {
    socket: BufReader<UnixStream>,
    can_be_asked: bool,
}

impl Caller {
    /// One who waits for a command to be carried out.
    pub(super) fn new(socket: UnixStream, can_be_asked: bool) -> io::Result<Caller> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(ANSWERED_WITHIN))?;
        socket.set_write_timeout(Some(READ_WITHIN))?;
        Ok(Caller { socket: BufReader::new(socket), can_be_asked })
    }

    /// Tells what became of the command.
    pub(super) fn end(mut self, outcome: Result<(), Failure>) -> io::Result<()> {
        self.say(&Said::Over { failure: outcome.err() })
    }

    fn say(&mut self, said: &Said) -> io::Result<()> {
        let mut line = serde_json::to_vec(said)?;
        line.push(b'\n');
        self.socket.get_mut().write_all(&line)
    }

    fn answer(&mut self, question: &Said) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let answered = self.say(question).and_then(|()| {
            let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
            let limit = ANSWER_BYTES_MAX as u64;
            self.socket.by_ref().take(limit).read_until(b'\n', &mut line)?;
            match line.pop() {
                Some(b'\n') => Ok(line),
                Some(_) | None => Err(ErrorKind::UnexpectedEof.into()),
            }
        });
        answered.map_err(|error: io::Error| {
            let line = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    let minutes = ANSWERED_WITHIN.as_secs() / 60;
                    format!("no answer for {minutes} minutes; run the command again")
                }
                _ => format!("no answer came ({error}); run the command again"),
            };
            Failure::new(Exit::Interrupted, line)
        })
    }
}

impl Console for Caller {
    fn print(&mut self, line: &str) -> Result<(), Failure> {
        self.say(&Said::Print { line: line.to_owned() }).map_err(|error| {
            Failure::new(Exit::Other, format!("cannot write the output ({error}); run it again"))
        })
    }

    fn note(&mut self, line: &str) {
        // Nobody may be there any more.
        let _ = self.say(&Said::Note { line: line.to_owned() });
    }

    fn can_be_asked(&self) -> bool {
        self.can_be_asked
    }

    fn ask(&mut self, question: &str) -> Result<String, Failure> {
        let line = self.answer(&Said::Ask { question: question.to_owned() })?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn new_password(&mut self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.answer(&Said::AskPassword)
    }
}

/// Shows a person what the server says, until the command is over, and returns what became of it.
///
/// # Errors
/// If the connection fails.
pub(super) fn follow(
    mut socket: BufReader<UnixStream>,
    console: &mut dyn Console,
) -> io::Result<Result<(), Failure>> {
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let answer = match serde_json::from_str(&line)? {
            Said::Print { line } => match console.print(&line) {
                Ok(()) => continue,
                Err(failure) => return Ok(Err(failure)),
            },
            Said::Note { line } => {
                console.note(&line);
                continue;
            }
            Said::Ask { question } => {
                console.ask(&question).map(|line| Zeroizing::new(line.into_bytes()))
            }
            Said::AskPassword => console.new_password(),
            Said::Over { failure } => return Ok(failure.map_or(Ok(()), Err)),
        };
        // Whoever gives no answer ends the command, as at a terminal.
        match answer {
            Ok(answer) => socket.get_mut().write_all(&answer)?,
            Err(failure) => return Ok(Err(failure)),
        }
        socket.get_mut().write_all(b"\n")?;
    }
}
