//! The text of a file of settings, which is TOML, and what is wrong with it in words.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use toml::Table;

use crate::wording::plain;

/// The largest file of settings, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// How a file of settings comes to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It is read if it is there. A pipe, which would have to be waited for, is refused.
    Usual,
    /// The user has named it. It may be a pipe, which is waited for, as in `--config <(command)`.
    Named,
}

/// Reads a file of settings; `None` if there is none and none was named. `check` may refuse it before that.
///
/// # Errors
/// Why it can't be read or is no TOML, without its path.
pub fn read(
    path: &Path,
    place: Place,
    check: impl FnOnce(&Metadata) -> Result<(), String>,
) -> Result<Option<Table>, String> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::InvalidData => "it is not text in UTF-8, as settings are".to_owned(),
        _ => format!("it cannot be read: {}", plain(&error.to_string())),
    };
    let flags = if place == Place::Usual { OFlags::NONBLOCK } else { OFlags::empty() };
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match place {
                Place::Usual => Ok(None),
                Place::Named => Err("there is no such file of settings".to_owned()),
            };
        }
        file => file.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    if place == Place::Usual && metadata.file_type().is_fifo() {
        return Err("it is a pipe; name it by --config if it is to be waited for".to_owned());
    }
    check(&metadata)?;
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > BYTES_MAX {
        true => Err(format!("it has more than {BYTES_MAX} bytes, too many for settings")),
        false => parse(&text).map(Some),
    }
}

fn parse(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let line = line.map(|line| format!(" in line {line}")).unwrap_or_default();
        match error.message().starts_with("invalid type: integer") {
            true => format!("a number{line} is too large"),
            false => format!("it is not TOML{line}: {}", error.message()),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_a_librarys_words() {
        let wrong = |text: &str| parse(text).unwrap_err();
        assert_eq!(wrong("a = 1\nb = 99999999999999999999"), "a number in line 2 is too large");
        assert!(wrong("a = 1\n= 2").starts_with("it is not TOML in line 2: "));
        assert_eq!(parse("a = 1").unwrap().len(), 1);
    }

    #[test]
    fn only_a_pipe_that_is_named_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let why = read(&pipe, Place::Usual, |_| Ok(())).unwrap_err();
        assert!(why.starts_with("it is a pipe"), "{why}");
        let written = pipe.clone();
        let writer = std::thread::spawn(move || std::fs::write(written, "a = 1"));
        let table = read(&pipe, Place::Named, |_| Ok(())).unwrap().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn only_a_file_that_is_named_must_be_there() {
        let read = |place| read("/nowhere/file".as_ref(), place, |_| Ok(()));
        assert_eq!(read(Place::Usual), Ok(None));
        assert_eq!(read(Place::Named), Err("there is no such file of settings".to_owned()));
    }

    #[test]
    fn no_more_is_read_than_settings_can_have() {
        for place in [Place::Usual, Place::Named] {
            let why = read("/dev/zero".as_ref(), place, |_| Ok(())).unwrap_err();
            assert!(why.starts_with("it has more than"), "{why}");
            assert_eq!(read("/dev/null".as_ref(), place, |_| Ok(())), Ok(Some(Table::new())));
        }
    }
}
