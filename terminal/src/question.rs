//! A question on the terminal and its answer, either shown or hidden while it is typed.
//!
//! **Invariant:** the terminal is restored whichever way a question ends: with an answer, an error
//! or a panic, by the user's interrupt or another process's signal, and also while this process is
//! stopped. Typed characters that were not read are discarded, so that half a password does not
//! show up in the shell.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::signals::{self, Caught, Event};

/// The longest line that is read, in bytes: the kernel's own limit for a typed line.
const LINE_BYTES_MAX: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// A signal ended the wait, sent by the user or another process.
    #[error("interrupted")]
    Interrupted,
    /// The terminal can't be read or written.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// The controlling terminal of this process.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
}

/// Whether the terminal shows an answer while it is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

impl Terminal {
    /// Opens the controlling terminal, wherever standard input and output lead.
    ///
    /// # Errors
    /// If this process has none.
    pub fn open() -> io::Result<Terminal> {
        Ok(Terminal { tty: OpenOptions::new().read(true).write(true).open("/dev/tty")? })
    }

    /// Asks, and returns the typed line without its end. It may be empty.
    ///
    /// # Errors
    /// If the user interrupts it, or the terminal fails.
    pub fn ask(&self, question: &str) -> Result<String, Unanswered> {
        let line = self.answer(question, Echo::Shown)?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Like [`Self::ask`], but the answer is not shown.
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

    /// Reads a line; returns a signal instead if one arrives first.
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

/// The terminal's settings while it waits for an answer. Dropping this restores the old ones.
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

    /// Restores the settings and discards typed characters.
    fn end_early(mut self) {
        self.end = OptionalActions::Flush;
    }
}

impl Drop for Mode<'_> {
    fn drop(&mut self) {
        // Failure means that the terminal is gone, and then there is nothing to restore.
        let _ = tcsetattr(self.tty, self.end, &self.before);
    }
}
