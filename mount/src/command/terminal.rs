//! The terminal of a user who sees this process's output, if there is one.

use std::io::{self, IsTerminal};

use xfer_client::connect::{Asker, NoAnswer};
use xfer_terminal::{Terminal, Unanswered};

/// Asks the connection's questions on the terminal, if there is one.
pub struct OnTerminal;

/// The terminal; `None` if standard error is not shown on one.
pub fn terminal() -> Option<Terminal> {
    if io::stderr().is_terminal() { Terminal::open().ok() } else { None }
}

/// Asks a question that ends in `[y/N]`. No answer means no.
pub fn agrees(question: &str) -> bool {
    let answer = OnTerminal.ask(question);
    answer.is_ok_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Asker for OnTerminal {
    fn ask(&mut self, question: &str) -> Result<String, NoAnswer> {
        let terminal = terminal().ok_or(NoAnswer::Nobody)?;
        terminal.ask(question).map_err(|error| match error {
            Unanswered::Interrupted => NoAnswer::Interrupted,
            Unanswered::Terminal(_) => NoAnswer::Nobody,
        })
    }
}
