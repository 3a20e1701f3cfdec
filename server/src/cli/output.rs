//! What commands print.

use std::io::Write;

use xfer_protocol::shown::shown_json;

use crate::program::console::Console;
use crate::program::exit::{Exit, Failure};

/// The form of what a command prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// For people.
    Table,
    /// For programs, with every field.
    Json,
}

impl Shape {
    pub(super) fn of(json: bool) -> Shape {
        if json { Shape::Json } else { Shape::Table }
    }
}

/// Says something to the person at the terminal, beside the output.
pub(super) fn note(line: &str) {
    // If standard error is closed, nobody reads it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a line to standard output. Unlike `println!`, it returns an error instead of panicking.
pub(super) fn print_line(line: &str) -> Result<(), Failure> {
    offer_line(line).map(drop)
}

/// Like [`print_line`]. Returns whether the reader wants more.
pub(super) fn offer_line(line: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // Its reader has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(|error| {
            let line = format!("cannot write the output ({error}); check where it goes");
            Failure::new(Exit::Other, line)
        }),
    }
}

/// Prints a value as JSON, without characters that would move the reader's cursor.
pub(super) fn print_json(
    console: &mut dyn Console,
    value: &impl serde::Serialize,
) -> Result<(), Failure> {
    console.print(&json(serde_json::to_string_pretty(value))?)
}

/// Like [`print_json`], in one line on standard output. Returns whether the reader wants more.
pub(super) fn offer_json(value: &impl serde::Serialize) -> Result<bool, Failure> {
    offer_line(&json(serde_json::to_string(value))?)
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    let text = text.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    Ok(shown_json(&text))
}
