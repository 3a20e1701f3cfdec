//! The password: from the terminal, a file or standard input; never from the command line.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use xfer_protocol::limits::PASSWORD_BYTES_MAX;
use xfer_protocol::message::Password;
use xfer_protocol::shown::Shown;
use xfer_terminal::{Terminal, Unanswered, first_line};

use crate::command::config::PasswordSource;
use crate::command::terminal;
use crate::process::exit::{Exit, Failure};

/// A password, and a warning about its source.
pub struct Obtained {
    /// The password, without a line end.
    pub password: Password,
    /// A warning to show to the user, if there is one.
    pub warning: Option<String>,
}

/// Gets the password for `label` (`user@host:port`) from its source.
///
/// # Errors
/// If it can't be read, is empty or too long, or there is no terminal to ask on.
pub fn obtain(source: &PasswordSource, label: &str) -> Result<Obtained, Failure> {
    let (password, warning) = match source {
        PasswordSource::Prompt => (prompt(label)?, None),
        PasswordSource::File(path) => from_file(path)?,
        PasswordSource::Stdin => {
            let line = secret(rustix::stdio::stdin());
            (line.map_err(|e| Failure::usage(format!("--password-stdin: {e}")))?, None)
        }
    };
    check_length(&password)?;
    Ok(Obtained { password, warning })
}

fn check_length(password: &Password) -> Result<(), Failure> {
    if password.0.is_empty() {
        return Err(Failure::usage("the password is empty".to_owned()));
    }
    if password.0.len() > PASSWORD_BYTES_MAX {
        return Err(Failure::usage(format!(
            "the password is longer than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// How often a new password may be typed differently the second time.
const TRIES: usize = 3;

/// Gets a new password for `label` from its source. A terminal asks for it twice.
///
/// # Errors
/// As [`obtain`], and if it was typed differently the second time, again and again.
pub fn obtain_new(source: &PasswordSource, label: &str) -> Result<Password, Failure> {
    match source {
        PasswordSource::Prompt => {
            let mut question = format!("New password of {}: ", Shown(label));
            for _ in 0..TRIES {
                let password = ask(&question)?;
                check_length(&password)?;
                if ask("Again: ")? == password {
                    return Ok(password);
                }
                question = format!("They differ. New password of {}: ", Shown(label));
            }
            Err(Failure::usage("the passwords differ; try again"))
        }
        PasswordSource::File(_) | PasswordSource::Stdin => Ok(obtain(source, label)?.password),
    }
}

fn prompt(label: &str) -> Result<Password, Failure> {
    ask(&format!("Password of {}: ", Shown(label)))
}

/// The terminal to ask for a password on.
///
/// # Errors
/// If there is none.
pub fn asked_on() -> Result<Terminal, Failure> {
    terminal::terminal().ok_or_else(|| {
        Failure::usage(
            "there is no terminal to ask for the password on; \
             give --password-file FILE or --password-stdin",
        )
    })
}

fn ask(question: &str) -> Result<Password, Failure> {
    match asked_on()?.ask_hidden(question) {
        Ok(mut typed) => Ok(Password(std::mem::take(&mut *typed))),
        Err(error @ Unanswered::Interrupted) => {
            Err(Failure::new(Exit::Interrupted, error.to_string()))
        }
        Err(Unanswered::Terminal(error)) => {
            Err(Failure::usage(format!("cannot read the password: {error}")))
        }
    }
}

fn from_file(path: &Path) -> Result<(Password, Option<String>), Failure> {
    let failed = |e: io::Error| Failure::usage(format!("--password-file {}: {e}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let warning = (mode & 0o077 != 0)
        .then(|| format!("others can read {0}; run: chmod 600 {0}", path.display()));
    Ok((secret(&file).map_err(failed)?, warning))
}

fn secret(input: impl AsFd) -> io::Result<Password> {
    let mut line = first_line(input, PASSWORD_BYTES_MAX)?;
    Ok(Password(std::mem::take(&mut *line)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn check(content: &[u8], mode: u32, expected: Result<&[u8], &str>, warned: bool) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match (obtain(&PasswordSource::File(path), "alice@host:1"), expected) {
            (Ok(obtained), Ok(password)) => {
                assert_eq!(obtained.password.0, password);
                assert_eq!(obtained.warning.is_some(), warned);
            }
            (Err(failure), Err(part)) => assert!(failure.line.contains(part), "{failure}"),
            (Ok(_), Err(part)) => panic!("not refused: {part}"),
            (Err(failure), Ok(_)) => panic!("{failure}"),
        }
    }

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        check(b"secret", 0o600, Ok(b"secret"), false);
        check(b"secret\nmore\n", 0o600, Ok(b"secret"), false);
        check(b" spaces count \r\n", 0o600, Ok(b" spaces count "), false);
        check(&[b'x'; 1024], 0o600, Ok(&[b'x'; 1024]), false);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_password() {
        check(b"\xef\xbb\xbfsecret\r\n", 0o600, Ok(b"secret"), false);
        check(b"\xff\xfes\0e\0", 0o600, Err("save it as UTF-8"), false);
    }

    #[test]
    fn a_file_that_others_can_read_is_warned_of() {
        check(b"secret\n", 0o640, Ok(b"secret"), true);
        check(b"secret\n", 0o604, Ok(b"secret"), true);
    }

    #[test]
    fn what_is_no_password_is_refused() {
        check(b"", 0o600, Err("empty"), false);
        check(b"\nsecret\n", 0o600, Err("empty"), false);
        check(&[b'x'; 1025], 0o600, Err("longer than 1024 bytes"), false);
        check(&[b'x'; 9999], 0o600, Err("longer than 1024 bytes"), false);
    }
}
