//! What a command of `xfer` prints as its result.
//!
//! A reader that closes the pipe early (`xfer status | head`) is not an error.

use std::io::{self, Write};

use serde::Serialize;
use xfer_protocol::shown::{Shown, shown_json};

use crate::process::exit::{Exit, Failure};

/// Prints text as it is.
///
/// # Errors
/// If standard output can't be written.
pub fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, format!("standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
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
