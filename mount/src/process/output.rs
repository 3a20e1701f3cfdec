//! What a command of `xfer` prints as its result.
//!
//! A reader that closes the pipe early (`xfer status | head`) is not an error.

use std::io::{self, IsTerminal, Write};

use rustix::termios::tcgetwinsize;
use serde::Serialize;
use xfer_protocol::shown::{Shown, shown_json};

use crate::process::exit::{Exit, Failure};

/// Prints text as it is.
///
/// # Errors
/// If standard output can't be written.
pub fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// That standard output can't be written.
pub fn unwritten(error: &io::Error) -> Failure {
    Failure::new(Exit::Other, format!("cannot write to standard output: {error}"))
}

/// Prints one line, in which control characters are escaped.
///
/// # Errors
/// As [`print()`].
pub fn print_line(line: &str) -> Result<(), Failure> {
    print(&format!("{}\n", Shown(line)))
}

/// Prints a value for programs.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    print(&format!("{}\n", shown_json(&text)))
}

/// Text that is printed again and again: on a terminal in its own place, elsewhere one below the other.
///
/// The terminal is not set up for that, so there is nothing to restore when a signal ends the process.
pub struct Repeated {
    is_terminal: bool,
    /// How many lines the last text took.
    lines: usize,
}

impl Repeated {
    /// Nothing so far.
    pub fn new() -> Repeated {
        Repeated { is_terminal: io::stdout().is_terminal(), lines: 0 }
    }

    /// Prints the text. Returns whether more is wanted: a reader may have closed the pipe.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn print(&mut self, text: &str) -> Result<bool, Failure> {
        let text = match self.is_terminal {
            true => self.in_place(text),
            false => format!("{text}\n"),
        };
        let mut output = io::stdout().lock();
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(unwritten(&error)),
        }
    }

    /// The text with what moves the cursor to the beginning of the last one. A line that the terminal would
    /// break is cut off, and so are lines that would push others out of it.
    fn in_place(&mut self, text: &str) -> String {
        let (rows, columns) = match tcgetwinsize(rustix::stdio::stdout()) {
            Ok(size) if size.ws_row > 1 && size.ws_col > 1 => (size.ws_row, size.ws_col),
            Ok(_) | Err(_) => (24, 80),
        };
        let mut written = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        };
        self.lines = 0;
        for line in text.lines().take(usize::from(rows) - 1) {
            written.extend(line.chars().take(usize::from(columns) - 1));
            written.push('\n');
            self.lines += 1;
        }
        written
    }
}

impl Default for Repeated {
    fn default() -> Repeated {
        Repeated::new()
    }
}
