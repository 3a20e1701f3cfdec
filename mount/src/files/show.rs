//! Output: entries as JSON and as lines, names on terminals and in pipes.

use std::ffi::OsStr;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use xfer_protocol::Timestamp;
use xfer_protocol::shown::{shown, shown_json};

use super::place::absolute;
use super::tree::{Kind, Meta};
use crate::process::exit::Failure;
use crate::process::output::unwritten;

/// An entry, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    pub(super) path: PathText,
    kind: &'static str,
    size: u64,
    allocated: u64,
    mode: String,
    uid: u32,
    gid: u32,
    links: u64,
    inode: u64,
    mtime: String,
    ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
}

/// A path for programs. One that is not UTF-8 is also given as it is, in hexadecimal digits.
#[derive(Serialize)]
pub(super) struct PathText {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl PathText {
    pub(super) fn of(path: &Path) -> PathText {
        let (path, path_hex) = text(absolute(path).as_os_str());
        PathText { path, path_hex }
    }
}

impl Listed {
    pub(super) fn new(path: &Path, meta: &Meta) -> Listed {
        let (target, target_hex) = match &meta.kind {
            Kind::Symlink(target) => {
                let (target, hex) = text(target);
                (Some(target), hex)
            }
            Kind::File | Kind::Directory | Kind::Pipe | Kind::Socket | Kind::Device => (None, None),
        };
        Listed {
            path: PathText::of(path),
            kind: word(&meta.kind),
            size: meta.size,
            allocated: meta.allocated,
            mode: format!("{:04o}", meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            links: meta.links,
            inode: meta.inode,
            mtime: moment(meta.mtime),
            ctime: moment(meta.ctime),
            target,
            target_hex,
        }
    }
}

/// A text, and its bytes as hexadecimal digits if it is not all of them.
fn text(bytes: &OsStr) -> (String, Option<String>) {
    let hex = bytes.to_str().is_none().then(|| hex::encode(bytes.as_bytes()));
    (bytes.to_string_lossy().into_owned(), hex)
}

/// The kind of a node in a word.
pub(super) fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink(_) => "symlink",
        Kind::Pipe => "pipe",
        Kind::Socket => "socket",
        Kind::Device => "device",
    }
}

/// A moment to the nanosecond, in UTC, as in RFC 3339.
pub(super) fn moment(time: Timestamp) -> String {
    let nanos = i128::from(time.secs()) * 1_000_000_000 + i128::from(time.nanos());
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| time.to_rfc3339())
}

/// A moment to the second, in UTC, for people.
pub(super) fn moment_for_people(time: Timestamp) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    OffsetDateTime::from_unix_timestamp(time.secs())
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| time.to_rfc3339())
}

/// Kind and permissions, as `ls -l` writes them.
pub(super) fn permissions(meta: &Meta) -> String {
    let kind = match &meta.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink(_) => 'l',
        Kind::Pipe => 'p',
        Kind::Socket => 's',
        Kind::Device => 'c',
    };
    let has = |bit: u16| meta.mode & bit != 0;
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(if has(4 << shift) { 'r' } else { '-' });
        text.push(if has(2 << shift) { 'w' } else { '-' });
        text.push(match (has(1 << shift), has(special)) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// Standard output. A reader that closes the pipe early (`xfer ls ... | head`) ends the output and is no
/// failure.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    is_terminal: bool,
    failed: Option<io::Error>,
}

impl Output {
    pub(super) fn new() -> Output {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Output { out: BufWriter::with_capacity(64 << 10, out), is_terminal, failed: None }
    }

    /// Writes bytes as they are. Returns whether more are wanted.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> bool {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
        self.failed.is_none()
    }

    /// Whether more is wanted, as far as that is known.
    pub(super) fn is_wanted(&self) -> bool {
        self.failed.is_none()
    }

    /// Writes a line.
    pub(super) fn line(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(b"\n");
    }

    /// Writes a name or a path: as it is, or fit to be shown on a terminal.
    pub(super) fn name(&mut self, name: &OsStr) {
        match self.is_terminal {
            true => self.bytes(shown(&name.to_string_lossy()).as_bytes()),
            false => self.bytes(name.as_bytes()),
        };
    }

    /// Writes a value as JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.line(&shown_json(&text)),
            Err(error) => self.failed = Some(error.into()),
        }
    }

    /// Writes a value as JSON in one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&shown_json(&text)),
            Err(error) => self.failed = Some(error.into()),
        }
    }

    /// Hands on what was written so far. Returns whether more is wanted.
    pub(super) fn flush(&mut self) -> bool {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
        self.failed.is_none()
    }

    /// Ends the output.
    ///
    /// # Errors
    /// If it could not be written.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.flush();
        let failed = self.failed.take();
        // What is left in the buffer is for nobody.
        let _ = self.out.into_parts();
        match failed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(unwritten(&error)),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_ls_writes_them() {
        let meta = |kind, mode| Meta {
            kind,
            mode,
            uid: 0,
            gid: 0,
            links: 1,
            size: 0,
            allocated: 0,
            inode: 1,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
        };
        assert_eq!(permissions(&meta(Kind::File, 0o644)), "-rw-r--r--");
        assert_eq!(permissions(&meta(Kind::Directory, 0o1777)), "drwxrwxrwt");
        assert_eq!(permissions(&meta(Kind::File, 0o6640)), "-rwSr-S---");
        assert_eq!(permissions(&meta(Kind::Symlink("x".into()), 0o777)), "lrwxrwxrwx");
    }

    #[test]
    fn a_moment_has_its_nanoseconds() {
        let time = Timestamp::new(1, 500).unwrap_or_default();
        assert_eq!(moment(time), "1970-01-01T00:00:01.0000005Z");
        assert_eq!(moment_for_people(time), "1970-01-01 00:00:01");
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_given_in_hexadecimal_too() {
        let path = PathText::of(Path::new(OsStr::from_bytes(b"\xff")));
        assert_eq!((path.path.as_str(), path.path_hex.as_deref()), ("/\u{fffd}", Some("2fff")));
        assert_eq!(PathText::of(Path::new("x")).path_hex, None);
    }
}
