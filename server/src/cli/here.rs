//! The person at this process: its standard output and error, and its terminal.

use std::io::{self, IsTerminal};

use xfer_terminal::{Terminal, Unanswered};
use zeroize::Zeroizing;

use super::{output, secret};
use crate::program::console::Console;
use crate::program::exit::{Exit, Failure};

/// That person, and where a new password comes from.
#[derive(Default)]
pub(super) struct Here {
    pub(super) password: secret::Origin,
}

impl Console for Here {
    fn print(&mut self, line: &str) -> Result<(), Failure> {
        output::print_line(line)
    }

    fn note(&mut self, line: &str) {
        output::note(line);
    }

    fn can_be_asked(&self) -> bool {
        io::stdin().is_terminal()
    }

    fn ask(&mut self, question: &str) -> Result<String, Failure> {
        let answer = Terminal::open().map_err(Unanswered::from).and_then(|tty| tty.ask(question));
        answer.map_err(|error| match error {
            Unanswered::Interrupted => Failure::new(Exit::Interrupted, error.to_string()),
            Unanswered::Terminal(_) => {
                Failure::new(Exit::Other, format!("{error}; answer on a terminal"))
            }
        })
    }

    fn new_password(&mut self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        secret::read(&self.password)
    }
}
