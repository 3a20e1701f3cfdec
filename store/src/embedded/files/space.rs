//! Space on the disk: set aside, cleared, and given back.
//!
//! A file system may know no holes, or not how to set space aside: then what is asked for takes up
//! space, or none, and reads as it must all the same.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use xfer_protocol::limits::BLOCK_BYTES;

use super::copying;

/// A range up to this long, in bytes, is made zeros by writing them: punching a hole waits for the
/// disk if there is data in it that was just written.
const ZEROS_WRITTEN_MAX: u64 = 64 << 10;

/// Makes a range zeros that have their place on the disk, also past the end, which moves there: what
/// a user was told is allocated can be written when the disk is full.
pub(super) fn zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = file.metadata()?.len();
    let there = end.saturating_sub(offset).min(len);
    if there == len && len <= ZEROS_WRITTEN_MAX {
        return copying::write_zeros(file, offset, len);
    }
    let reserved = match change_space(file, FallocateFlags::ZERO_RANGE, offset, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            clear(file, offset, there)?;
            change_space(file, FallocateFlags::empty(), offset, len)
        }
        zeroed => zeroed,
    };
    match reserved {
        // A file system that can't set space aside gives what it has to who comes first.
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

/// Makes what there is of a range zeros.
fn clear(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match punch(file, offset, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            copying::write_zeros(file, offset, len)
        }
        punched => punched,
    }
}

/// Gives back what a range takes up on the disk.
pub(super) fn free(file: &File, range: Range<u64>) -> io::Result<()> {
    match punch(file, range.start, range.end - range.start) {
        // The space stays taken, and that is all.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        punched => punched,
    }
}

/// Gives back all that a file takes up but for these ranges, which are in order.
pub(super) fn keep(file: &File, ranges: &[Range<u64>]) -> io::Result<()> {
    let mut at = 0;
    for range in ranges {
        if at < range.start {
            free(file, at..range.start)?;
        }
        at = range.end;
    }
    // Never longer: that a file ends too early must show.
    if file.metadata()?.len() > at { file.set_len(at) } else { Ok(()) }
}

/// Moves a file's end to `end`, at least, if whole blocks may be set aside before it that the file
/// ends before: what is past a file's end can't be given back, on ext4 at least.
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
