//! Reads a new password from a terminal, a file, or standard input; never from an argument, which
//! every user of the machine could read.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use xfer_protocol::limits::PASSWORD_BYTES_MAX;
use xfer_terminal::{Terminal, Unanswered, first_line};
use zeroize::Zeroizing;

use crate::login::password;
use crate::program::exit::{Exit, Failure};

/// How often it may be typed differently the second time.
const TRIES: usize = 3;

/// Where the password comes from.
#[derive(clap::Args, Default, Debug)]
pub struct Origin {
    /// Read the password from the first line of a file
    #[arg(long, value_name = "F", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Reads the password; a terminal asks for it twice, without showing it.
pub fn read(origin: &Origin) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let password = match (&origin.password_file, origin.password_stdin) {
        (Some(path), _) => {
            let line = File::open(path).and_then(|file| first_line(file, PASSWORD_BYTES_MAX));
            line.map_err(|e| unreadable(&path.display().to_string(), &e))?
        }
        (None, true) => {
            let line = first_line(rustix::stdio::stdin(), PASSWORD_BYTES_MAX);
            line.map_err(|e| unreadable("standard input", &e))?
        }
        (None, false) => prompt()?,
    };
    password::check_length(&password)
        .map_err(|error| Failure::new(Exit::Password, format!("{error}; choose another")))?;
    Ok(password)
}

fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    if !io::stdin().is_terminal() {
        let line = "there is no terminal to ask for the password on; give --password-file or --password-stdin";
        return Err(Failure::new(Exit::Password, line));
    }
    let terminal = Terminal::open().map_err(|error| unreadable("the terminal", &error))?;
    let mut question = "New password: ";
    for _ in 0..TRIES {
        let password = terminal.ask_hidden(question).map_err(unanswered)?;
        if terminal.ask_hidden("Again: ").map_err(unanswered)? == password {
            return Ok(password);
        }
        question = "They differ. New password: ";
    }
    Err(Failure::new(Exit::Password, "the passwords differ; try again"))
}

fn unanswered(error: Unanswered) -> Failure {
    match error {
        Unanswered::Interrupted => Failure::new(Exit::Interrupted, error.to_string()),
        Unanswered::Terminal(error) => unreadable("the terminal", &error),
    }
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    let line = format!("cannot read the password from {what} ({error}); check that it is there");
    Failure::new(Exit::Password, line)
}
