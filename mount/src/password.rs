//! The password: from the terminal, a file or standard input; never from the command line.
//!
//! It is read byte by byte into one buffer that is overwritten when dropped, so that no copy of
//! it stays behind in this process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use xfer_protocol::limits::PASSWORD_BYTES_MAX;
use xfer_protocol::message::Password;

use crate::config::PasswordSource;
use crate::connect::Terminal;
use crate::exit::{Exit, Failure};

/// A password, and what the user should know about where it came from.
pub struct Obtained {
    /// The password.
    pub password: Password,
    /// A warning, if there is one.
    pub warning: Option<String>,
}

/// Gets the password of `label` (`user@host:port`) from where it is to come from.
///
/// # Errors
/// If it can't be read, or is empty or too long, or nobody can be asked.
pub fn obtain(source: &PasswordSource, label: &str) -> Result<Obtained, Failure> {
    let (password, warning) = match source {
        PasswordSource::Prompt => (prompt(label)?, None),
        PasswordSource::File(path) => from_file(path)?,
        PasswordSource::Stdin => {
            let line = first_line(rustix::stdio::stdin());
            (line.map_err(|e| usage(format!("--password-stdin: {e}")))?, None)
        }
    };
    if password.0.is_empty() {
        return Err(usage("the password is empty".to_owned()));
    }
    if password.0.len() > PASSWORD_BYTES_MAX {
        return Err(usage(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(Obtained { password, warning })
}

fn prompt(label: &str) -> Result<Password, Failure> {
    if !Terminal::is_there() {
        return Err(usage(
            "there is no terminal to ask for the password on; \
             give --password-file FILE or --password-stdin"
                .to_owned(),
        ));
    }
    let typed = rpassword::prompt_password(format!("Password of {label}: "));
    let typed = typed.map_err(|e| usage(format!("can't read the password: {e}")))?;
    Ok(Password(typed.into_bytes()))
}

fn from_file(path: &Path) -> Result<(Password, Option<String>), Failure> {
    let failed = |e: io::Error| usage(format!("--password-file {}: {e}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let warning = (mode & 0o077 != 0)
        .then(|| format!("others can read {0}; set it right with: chmod 600 {0}", path.display()));
    Ok((first_line(&file).map_err(failed)?, warning))
}

/// The first line, without its end. Reads no further than a password may be long, plus its end.
fn first_line(fd: impl AsFd) -> io::Result<Password> {
    const LINE_BYTES_MAX: usize = PASSWORD_BYTES_MAX + 2;
    let mut line = Password(Vec::with_capacity(LINE_BYTES_MAX));
    let mut byte = [0];
    while line.0.len() < LINE_BYTES_MAX {
        match rustix::io::read(fd.as_fd(), &mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.0.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if line.0.last() == Some(&b'\r') {
        line.0.pop();
    }
    Ok(line)
}

fn usage(line: String) -> Failure {
    Failure::new(Exit::Usage, line)
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
