//! Copying bytes between files: by the kernel, which may share or move them in place, and otherwise
//! through a buffer.
//!
//! Only the search for holes uses a file's own position, because threads share files.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, copy_file_range, seek};
use rustix::io::{Errno, retry_on_intr};

use crate::{Stop, StoreError};

/// The size of the buffer.
const BUFFER_BYTES: u64 = 256 << 10;

/// About how long the kernel copies in one call, since a stop waits for its end.
const CALL_TIME: Duration = Duration::from_millis(100);

/// The number of bytes that the kernel copies in a first call, and the most in any. Bytes that go to
/// memory first are copied at once, until there are too many of them.
const FIRST_CALL_BYTES: u64 = 1 << 20;
const CALL_BYTES_MAX: u64 = 32 << 20;

/// How much the kernel copies in one call. A file system that shares bytes takes no time for any
/// number of them, and should not be asked for them in small parts.
struct Pace {
    bytes: u64,
}

impl Pace {
    fn new() -> Pace {
        Pace { bytes: FIRST_CALL_BYTES }
    }

    /// Notes how long a call took that copied so many bytes.
    fn note(&mut self, copied: u64, took: Duration) {
        if took > CALL_TIME {
            self.bytes = (self.bytes / 2).max(BUFFER_BYTES);
        } else if copied == self.bytes && took < CALL_TIME / 2 {
            self.bytes = (self.bytes * 2).min(CALL_BYTES_MAX);
        }
    }
}

/// Reads until `data` is full or the file ends, and returns the number of bytes read.
pub(super) fn read_full(file: &File, offset: u64, data: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.read_at(&mut data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

pub(super) fn write_zeros(file: &File, offset: u64, len: u64, stop: &Stop) -> io::Result<()> {
    let zeros = vec![0; len.min(BUFFER_BYTES) as usize];
    let mut done = 0;
    while done < len {
        go_on(stop)?;
        let part = &zeros[..(len - done).min(BUFFER_BYTES) as usize];
        file.write_all_at(part, offset + done)?;
        done += part.len() as u64;
    }
    Ok(())
}

/// Copies ranges, which are in order and may pass the file's end, into an empty file. Holes stay
/// holes.
pub(super) fn copy_sparse(
    from: &File,
    to: &File,
    ranges: &[Range<u64>],
    stop: &Stop,
) -> io::Result<()> {
    let end = from.metadata()?.len();
    to.set_len(ranges.last().map_or(0, |last| last.end.min(end)))?;
    for range in ranges {
        let (mut at, end) = (range.start, range.end.min(end));
        while let Some((start, upto)) = next_data(from, at, end)? {
            copy_range((from, start), (to, start), upto - start, stop)?;
            at = upto;
        }
    }
    Ok(())
}

/// The next run of data from `at` on, cut off at `end`.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= end {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system does not support holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, end))),
        Err(error) => return Err(error.into()),
    };
    let upto = seek(file, SeekFrom::Hole(start))?.min(end);
    Ok((start < upto).then_some((start, upto)))
}

/// Copies bytes up to the end of the source. Within one file, the ranges must not overlap.
pub(super) fn copy_range(
    (from, from_offset): (&File, u64),
    (to, to_offset): (&File, u64),
    len: u64,
    stop: &Stop,
) -> io::Result<()> {
    let (mut done, mut pace) = (0, Pace::new());
    while done < len {
        go_on(stop)?;
        let (mut read_at, mut write_at) = (from_offset + done, to_offset + done);
        let part = usize::try_from(pace.bytes.min(len - done)).unwrap_or(usize::MAX);
        let start = Instant::now();
        let copied = retry_on_intr(|| {
            copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), part)
        });
        match copied {
            Ok(0) => break,
            Ok(count) => {
                done += count as u64;
                pace.note(count as u64, start.elapsed());
            }
            Err(Errno::INVAL | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_buffered((from, read_at), (to, write_at), len - done, stop);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_buffered(
    (from, from_offset): (&File, u64),
    (to, to_offset): (&File, u64),
    len: u64,
    stop: &Stop,
) -> io::Result<()> {
    let mut buffer = vec![0; len.min(BUFFER_BYTES) as usize];
    let mut done = 0;
    while done < len {
        go_on(stop)?;
        let part = &mut buffer[..(len - done).min(BUFFER_BYTES) as usize];
        let count = read_full(from, from_offset + done, part)?;
        to.write_all_at(&part[..count], to_offset + done)?;
        done += count as u64;
        if count < part.len() {
            break;
        }
    }
    Ok(())
}

/// Copies between overlapping ranges of one file, which contains the whole source. Starts at the
/// end whose bytes would otherwise be overwritten before they are read.
pub(super) fn copy_overlapping(
    file: &File,
    from_offset: u64,
    to_offset: u64,
    len: u64,
    stop: &Stop,
) -> io::Result<()> {
    if to_offset < from_offset {
        return copy_buffered((file, from_offset), (file, to_offset), len, stop);
    }
    let mut buffer = vec![0; len.min(BUFFER_BYTES) as usize];
    let mut left = len;
    while left > 0 {
        go_on(stop)?;
        let part = &mut buffer[..left.min(BUFFER_BYTES) as usize];
        left -= part.len() as u64;
        file.read_exact_at(part, from_offset + left)?;
        file.write_all_at(part, to_offset + left)?;
    }
    Ok(())
}

/// Fails with [`StoreError::Stopped`] within an [`io::Error`] once a stop was ordered.
fn go_on(stop: &Stop) -> io::Result<()> {
    stop.check().map_err(io::Error::other)
}

/// Whether an error comes from a stop that was ordered.
pub(super) fn is_stop(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    matches!(inner, Some(StoreError::Stopped))
}
