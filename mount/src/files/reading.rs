//! `xfer cat` and `xfer head`: no more is fetched than is printed, but for what is read ahead.

use std::ops::Range;
use std::path::Path;

use rustix::io::Errno;
use xfer_protocol::limits::READ_BYTES_MAX;
use xfer_protocol::shown::shown;
use xfer_protocol::size;

use super::opening::Opened;
use super::pattern::expand;
use super::place::absolute;
use super::show::Output;
use super::tree::{Changes, Source};
use crate::command::file_lines::{CatLine, HeadLine};
use crate::process::exit::Failure;

/// How much is read first when it is not known how much is wanted, in bytes.
const FIRST_BYTES: usize = 16 << 10;

/// Prints files.
pub(super) fn cat(line: CatLine) -> Result<(), Failure> {
    let range = line.range.as_deref().map_or(Ok(0..u64::MAX), parse_range)?;
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let mut output = Output::new();
    for (path, _) in expand(&*opened.tree, &places, "read", &opened.report) {
        let printed = opened.tree.open(&path).and_then(|file| print(&*file, &range, &mut output));
        match printed {
            Ok(true) => {}
            Ok(false) => break,
            Err(errno) => opened.report.fail("read", &path, errno),
        }
    }
    output.end().and(opened.close(Changes::None))
}

/// Prints the beginnings of files.
pub(super) fn head(line: HeadLine) -> Result<(), Failure> {
    let bytes = match &line.bytes {
        None => None,
        Some(text) => Some(size::parse(text).ok_or_else(|| {
            Failure::usage(format!("-c: '{}' is not a size; write it like 64KiB", shown(text)))
        })?),
    };
    let (places, opened) = Opened::of(&line.places, line.access)?;
    let mut output = Output::new();
    let found = expand(&*opened.tree, &places, "read", &opened.report);
    for (number, (path, _)) in found.iter().enumerate() {
        let file = match opened.tree.open(path) {
            Ok(file) => file,
            Err(errno) => {
                opened.report.fail("read", path, errno);
                continue;
            }
        };
        if found.len() > 1 {
            heading(path, number == 0, &mut output);
        }
        let printed = match bytes {
            Some(bytes) => print(&*file, &(0..bytes), &mut output),
            None => print_lines(&*file, line.lines, &mut output),
        };
        match printed {
            Ok(true) => {}
            Ok(false) => break,
            Err(errno) => opened.report.fail("read", path, errno),
        }
    }
    output.end().and(opened.close(Changes::None))
}

fn heading(path: &Path, is_first: bool, output: &mut Output) {
    output.bytes(if is_first { b"==> " } else { b"\n==> " });
    output.name(absolute(path).as_os_str());
    output.line(" <==");
}

/// Prints a range of a file. Returns whether more is wanted.
pub(super) fn print(
    file: &dyn Source,
    range: &Range<u64>,
    output: &mut Output,
) -> Result<bool, Errno> {
    let mut at = range.start;
    while at < range.end {
        let wanted = (range.end - at).min(READ_BYTES_MAX as u64) as usize;
        let data = file.read_at(at, wanted)?;
        if !output.bytes(&data) {
            return Ok(false);
        }
        at += data.len() as u64;
        if data.len() < wanted {
            break;
        }
    }
    Ok(output.flush())
}

/// Prints the first lines of a file. Returns whether more is wanted.
fn print_lines(file: &dyn Source, mut lines: u64, output: &mut Output) -> Result<bool, Errno> {
    let (mut at, mut wanted) = (0, FIRST_BYTES);
    while lines > 0 {
        let data = file.read_at(at, wanted)?;
        let ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let nth = usize::try_from(lines - 1).unwrap_or(usize::MAX);
        let mut ends = ends.map(|(at, _)| at);
        let (printed, is_last) = match ends.clone().nth(nth) {
            Some(end) => (&data[..=end], true),
            None => (&data[..], data.len() < wanted),
        };
        if !output.bytes(printed) {
            return Ok(false);
        }
        if is_last {
            break;
        }
        lines -= ends.by_ref().count() as u64;
        at += data.len() as u64;
        wanted = (wanted * 2).min(READ_BYTES_MAX);
    }
    Ok(output.flush())
}

/// Parses `A-B`, whose last byte is included, or `A-`.
fn parse_range(text: &str) -> Result<Range<u64>, Failure> {
    let wrong = || {
        let text = shown(text);
        Failure::usage(format!("--range: '{text}' is not a range; write it like 0-1023 or 1024-"))
    };
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let first = number(first)?;
    let end = match last {
        "" => u64::MAX,
        last => number(last)?.saturating_add(1),
    };
    if first >= end { Err(wrong()) } else { Ok(first..end) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_range_includes_both_ends() {
        assert_eq!(parse_range("0-0").unwrap(), 0..1);
        assert_eq!(parse_range("5-9").unwrap(), 5..10);
        assert_eq!(parse_range("5-").unwrap(), 5..u64::MAX);
        for wrong in ["", "-", "-5", "5", "9-5", "a-b", "1-2-3", "+1-2"] {
            assert!(parse_range(wrong).unwrap_err().line.contains("is not a range"), "{wrong}");
        }
    }

    struct Text(&'static [u8]);

    impl Source for Text {
        fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Errno> {
            let start = (offset as usize).min(self.0.len());
            Ok(Bytes::from_static(&self.0[start..(start + len).min(self.0.len())]))
        }
    }

    #[test]
    fn as_many_lines_are_counted_as_are_wanted() {
        let mut output = Output::new();
        for lines in [0, 1, 3, 9] {
            assert!(print_lines(&Text(b""), lines, &mut output).unwrap());
        }
    }
}
