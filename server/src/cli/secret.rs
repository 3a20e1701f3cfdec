//! Where a new password comes from: a terminal, a file, or standard input; never an argument,
//! which everybody on the machine could read.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use xfer_protocol::limits::PASSWORD_BYTES_MAX;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};
use crate::password;

/// Where the password comes from.
#[derive(clap::Args, Debug)]
pub struct Origin {
    /// Read the password from the first line of a file
    #[arg(long, value_name = "F", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Reads the password; on a terminal twice, without showing it.
pub fn read(origin: &Origin) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let password = match (&origin.password_file, origin.password_stdin) {
        (Some(path), _) => {
            let file = File::open(path).map_err(|e| unreadable(&path.display().to_string(), &e))?;
            first_line(file).map_err(|e| unreadable(&path.display().to_string(), &e))?
        }
        (None, true) => first_line(io::stdin()).map_err(|e| unreadable("standard input", &e))?,
        (None, false) => prompt()?,
    };
    password::check_length(&password)
        .map_err(|error| Failure::new(Exit::Password, format!("{error}; choose another")))?;
    Ok(password)
}

/// The first line without its end. Of a line that is too long, enough to see that it is.
fn first_line(input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    const READ_BYTES_MAX: usize = PASSWORD_BYTES_MAX + 2;
    // With its full capacity from the start, so that no copies are left behind when it grows.
    let mut line = Zeroizing::new(Vec::with_capacity(READ_BYTES_MAX));
    input.take(READ_BYTES_MAX as u64).read_to_end(&mut line)?;
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end);
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    Ok(line)
}

fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    if !io::stdin().is_terminal() {
        let line = "no terminal to ask for the password; use --password-file or --password-stdin";
        return Err(Failure::new(Exit::Password, line));
    }
    let ask = |text: &str| match rpassword::prompt_password(text) {
        Ok(password) => Ok(Zeroizing::new(password.into_bytes())),
        Err(error) => Err(unreadable("the terminal", &error)),
    };
    let password = ask("New password: ")?;
    if ask("Again: ")? != password {
        return Err(Failure::new(Exit::Password, "the passwords differ; try again"));
    }
    Ok(password)
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    let line = format!("cannot read the password from {what} ({error}); check it is there");
    Failure::new(Exit::Password, line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(input: &[u8], line: &[u8]) {
        assert_eq!(*first_line(input).unwrap(), line);
    }

    #[test]
    fn the_password_is_the_first_line_and_all_of_it() {
        check(b"secret\nmore\n", b"secret");
        check(b"secret\r\n", b"secret");
        check(b" se cret ", b" se cret ");
        check(b"", b"");
        check(b"\nx", b"");
        check(&[b'x'; 3000], &[b'x'; 1026]);
    }
}
