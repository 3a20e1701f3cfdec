//! A question on the terminal, and its answer: shown while it is typed, or hidden.
//!
//! **Invariant:** the terminal is left as it was found, whichever way a question ends: with an
//! answer, an error or a panic, interrupted by the user or ended by another process, and also while
//! this process is stopped. What was typed and not read goes with the question, so that half a
//! password does not show up in the shell.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::signals::{self, Caught, Event};

/// The longest line that is read, in bytes: as long as the kernel lets one be that is typed.
const LINE_BYTES_MAX: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The user, or another process, ended this one while it waited.
    #[error("interrupted")]
    Interrupted,
    /// The terminal can't be read or written.
    #[error("the terminal can't be used: {0}")]
    Terminal(#[from] io::Error),
}

/// The terminal that this process was started from.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
}

/// Whether an answer is shown while it is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

impl Terminal {
    /// The terminal, whatever standard input and output are.
    ///
    /// # Errors
    /// If this process has none.
    pub fn open() -> io::Result<Terminal> {
        Ok(Terminal { tty: OpenOptions::new().read(true).write(true).open("/dev/tty")? })
    }

    /// Asks; gives the line that is typed, without its end. Nothing was typed if it is empty.
    ///
    /// # Errors
    /// If the user interrupts it, or the terminal fails.
    pub fn ask(&self, question: &str) -> Result<String, Unanswered> {
        let line = self.answer(question, Echo::Shown)?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// As [`Self::ask`], without showing what is typed.
    ///
    /// # Errors
    /// If the user interrupts it, or the terminal fails.
    pub fn ask_hidden(&self, question: &str) -> Result<Zeroizing<Vec<u8>>, Unanswered> {
        self.answer(question, Echo::Hidden)
    }

    fn answer(&self, question: &str, echo: Echo) -> Result<Zeroizing<Vec<u8>>, Unanswered> {
        loop {
            let caught = Caught::new(&signals::OF_USERS)?;
            let mode = Mode::set(&self.tty, echo)?;
            (&self.tty).write_all(question.as_bytes())?;
            let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
            let Some(signal) = self.read_line(&caught, &mut line)? else { return Ok(line) };
            mode.end_early();
            if signal == libc::SIGTSTP {
                drop(caught);
                signals::stop();
            } else {
                caught.until_the_end();
                (&self.tty).write_all(b"\n")?;
                return Err(Unanswered::Interrupted);
            }
        }
    }

    /// Reads a line; gives the signal that came instead, if one did.
    fn read_line(&self, caught: &Caught, line: &mut Vec<u8>) -> io::Result<Option<libc::c_int>> {
        let mut byte = [0];
        while line.len() < LINE_BYTES_MAX {
            if let Event::Signal(signal) = caught.wait(&self.tty)? {
                return Ok(Some(signal));
            }
            match rustix::io::read(&self.tty, &mut byte) {
                Ok(0) => break,
                Ok(_) if byte == *b"\n" => break,
                Ok(_) => line.push(byte[0]),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

/// How the terminal is while it waits for an answer. Dropped, it is as before.
struct Mode<'a> {
    tty: &'a File,
    before: Termios,
    end: OptionalActions,
}

impl Mode<'_> {
    fn set(tty: &File, echo: Echo) -> io::Result<Mode<'_>> {
        let before = tcgetattr(tty)?;
        let mut asking = before.clone();
        asking.local_modes |= LocalModes::ICANON | LocalModes::ISIG;
        match echo {
            Echo::Shown => asking.local_modes |= LocalModes::ECHO,
            Echo::Hidden => {
                asking.local_modes.remove(LocalModes::ECHO);
                asking.local_modes |= LocalModes::ECHONL;
            }
        }
        tcsetattr(tty, OptionalActions::Now, &asking)?;
        Ok(Mode { tty, before, end: OptionalActions::Now })
    }

    /// As dropping it; what was typed goes, too.
    fn end_early(mut self) {
        self.end = OptionalActions::Flush;
    }
}

impl Drop for Mode<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.tty, self.end, &self.before);
    }
}
