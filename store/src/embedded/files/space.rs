//! Space on the disk: allocated, cleared and freed.
//!
//! A file system may support neither holes nor allocation. Then a range takes more or less space
//! than it should, but reads must give the right bytes all the same.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use xfer_protocol::limits::BLOCK_BYTES;

use super::copying;
use crate::Stop;

/// The longest range, in bytes, that is zeroed by writing: punching a hole waits for the disk if
/// the range holds data that was just written.
const ZEROS_WRITTEN_MAX: u64 = 64 << 10;

/// Makes a range zeros and allocates its space on the disk. If it ends past the file's end, the end
/// moves there. A user who was told that space is allocated can then write to it even on a full
/// disk.
pub(super) fn zero(file: &File, offset: u64, len: u64, stop: &Stop) -> io::Result<()> {
    let end = file.metadata()?.len();
    let there = end.saturating_sub(offset).min(len);
    if there == len && len <= ZEROS_WRITTEN_MAX {
        return copying::write_zeros(file, offset, len, stop);
    }
    let reserved = match change_space(file, FallocateFlags::ZERO_RANGE, offset, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            clear(file, offset, there, stop)?;
            change_space(file, FallocateFlags::empty(), offset, len)
        }
        zeroed => zeroed,
    };
    match reserved {
        // Without allocation, the file system gives its space to the first writer.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            if end < offset + len {
                file.set_len(offset + len)
            } else {
                Ok(())
            }
        }
        reserved => reserved,
    }
}

/// Makes a range of existing bytes zeros.
fn clear(file: &File, offset: u64, len: u64, stop: &Stop) -> io::Result<()> {
    match punch(file, offset, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            copying::write_zeros(file, offset, len, stop)
        }
        punched => punched,
    }
}

/// Frees the space of a range.
pub(super) fn free(file: &File, range: Range<u64>) -> io::Result<()> {
    match punch(file, range.start, range.end - range.start) {
        // The space stays taken; nothing else is wrong.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        punched => punched,
    }
}

/// Frees all space of a file except that of these ranges, which are in order.
pub(super) fn keep(file: &File, ranges: &[Range<u64>]) -> io::Result<()> {
    let mut at = 0;
    for range in ranges {
        if at < range.start {
            free(file, at..range.start)?;
        }
        at = range.end;
    }
    // Never made longer: a file that ends too early must be noticed.
    if file.metadata()?.len() > at { file.set_len(at) } else { Ok(()) }
}

/// Moves a file's end to `end` if it lies before that and whole blocks may be allocated in between.
/// Space past a file's end can't be freed, on ext4 at least.
pub(super) fn reach(file: &File, end: u64) -> io::Result<()> {
    let len = file.metadata()?.len();
    if end > len.next_multiple_of(BLOCK_BYTES) { file.set_len(end) } else { Ok(()) }
}

fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    change_space(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
}

fn change_space(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match retry_on_intr(|| fallocate(file, flags, offset, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
        done => Ok(done?),
    }
}
