//! Operations on the bytes of files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs as sys;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};

use crate::differential::operation::{Operation, Origin, Target};
use crate::differential::side::Side;
use crate::snapshot::fingerprint;

/// The size of the pieces by which file contents are reported, in bytes.
const PIECE: usize = 1024;

pub(in crate::differential) fn apply(side: &mut Side, operation: &Operation) -> io::Result<String> {
    let done = |()| String::new();
    match operation {
        Operation::Open { path, flags, mode, slot } => {
            // Opening a pipe must not block for its other end.
            let flags = OFlags::from_bits_retain(*flags) | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mode = Mode::from_bits_retain(*mode);
            side.open[*slot] = Some(sys::openat(&side.root, path, flags, mode)?);
            Ok(String::new())
        }
        Operation::Close { slot } => side.open[*slot]
            .take()
            .map(|_| String::new())
            .ok_or_else(crate::differential::side::not_open),
        Operation::Write { slot, at, data } => write(side.file(*slot)?, *at, &data.bytes()),
        Operation::Read { slot, at, len } => Ok(told(&read(side.file(*slot)?, *at, *len)?)),
        Operation::Seek { slot, offset, from } => {
            let at = match from {
                Origin::Start => SeekFrom::Start(offset.unsigned_abs()),
                Origin::Current => SeekFrom::Current(*offset),
                Origin::End => SeekFrom::End(*offset),
            };
            seek(side.file(*slot)?, at)
        }
        Operation::FindData { slot, offset } => find_data(side.file(*slot)?, *offset),
        Operation::Resize { target: Target::Path { path, .. }, len } => truncate(side, path, *len),
        Operation::Resize { target: Target::Open { slot }, len } => {
            Ok(sys::ftruncate(side.file(*slot)?, *len).map(done)?)
        }
        Operation::Fallocate { slot, mode, offset, len } => {
            let mode = FallocateFlags::from_bits_retain(*mode);
            Ok(sys::fallocate(side.file(*slot)?, mode, *offset, *len).map(done)?)
        }
        Operation::Copy { from, from_offset, to, to_offset, len } => {
            let (from, to) = (side.file(*from)?, side.file(*to)?);
            copy(from, *from_offset, to, *to_offset, *len)
        }
        Operation::Fsync { slot, data_only: false } => Ok(sys::fsync(side.file(*slot)?).map(done)?),
        Operation::Fsync { slot, data_only: true } => {
            Ok(sys::fdatasync(side.file(*slot)?).map(done)?)
        }
        _ => unreachable!("not about bytes: {operation:?}"),
    }
}

fn is_regular(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::FileType::from_raw_mode(sys::fstat(file)?.st_mode) == sys::FileType::RegularFile)
}

/// Writes once. The bytes in a pipe never reach the filesystem.
fn write(file: BorrowedFd<'_>, at: Option<u64>, data: &[u8]) -> io::Result<String> {
    let written = match at {
        Some(at) => rustix::io::pwrite(file, data, at)?,
        None if is_regular(file)? => rustix::io::write(file, data)?,
        None => 0,
    };
    Ok(written.to_string())
}

/// Reads to the end: the filesystem may choose how much each call returns.
pub(in crate::differential) fn read(
    file: BorrowedFd<'_>,
    at: Option<u64>,
    len: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        let more = match at {
            Some(at) => rustix::io::pread(file, &mut bytes[read..], at + read as u64)?,
            None if is_regular(file)? => rustix::io::read(file, &mut bytes[read..])?,
            None => 0,
        };
        if more == 0 {
            break;
        }
        read += more;
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Describes bytes briefly, showing where they differ: a dot for a piece of zeros.
pub(in crate::differential) fn told(bytes: &[u8]) -> String {
    let piece = |piece: &[u8]| match piece.iter().all(|byte| *byte == 0) {
        true => ".".to_owned(),
        false => format!(" {:04x}", fingerprint(piece) & 0xffff),
    };
    format!("{} bytes:{}", bytes.len(), bytes.chunks(PIECE).map(piece).collect::<String>())
}

/// Moves the position in a regular file. Positions in directories depend on the filesystem.
fn seek(file: BorrowedFd<'_>, at: SeekFrom) -> io::Result<String> {
    if sys::FileType::from_raw_mode(sys::fstat(file)?.st_mode) == sys::FileType::Directory {
        return Ok("directory".to_owned());
    }
    Ok(sys::seek(file, at)?.to_string())
}

/// Filesystems may differ in where they report data and holes, within rules: data is never skipped,
/// holes read as zeros, and the end counts as a hole.
fn find_data(file: BorrowedFd<'_>, offset: u64) -> io::Result<String> {
    if !is_regular(file)? {
        return Ok("not regular".to_owned());
    }
    let position = sys::tell(file)?;
    let size = sys::fstat(file)?.st_size as u64;
    let data = sys::seek(file, SeekFrom::Data(offset));
    let hole = sys::seek(file, SeekFrom::Hole(offset));
    sys::seek(file, SeekFrom::Start(position))?;
    let hole = hole?;
    let sound = hole >= offset && hole <= size;
    let passed_over = offset..data.unwrap_or(size);
    // A file that is not open for reading can't be checked.
    let zeros = match read(file, Some(passed_over.start), (passed_over.end - offset) as usize) {
        Ok(bytes) => bytes.iter().all(|byte| *byte == 0),
        Err(_) => true,
    };
    Ok(format!("a hole within the file: {sound}, only zeros passed over: {zeros}"))
}

fn truncate(side: &Side, path: &str, len: u64) -> io::Result<String> {
    let path = std::ffi::CString::new(side.full(path).into_os_string().into_encoded_bytes())?;
    // SAFETY: the path is NUL-terminated and lives through the call.
    match unsafe { libc::truncate(path.as_ptr(), len as libc::off_t) } {
        0 => Ok(String::new()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Copies until nothing more is copied: the filesystem may choose how much each call copies.
fn copy(
    from: impl AsFd,
    mut from_offset: u64,
    to: impl AsFd,
    mut to_offset: u64,
    len: usize,
) -> io::Result<String> {
    let mut copied = 0;
    while copied < len {
        let (at, into) = (Some(&mut from_offset), Some(&mut to_offset));
        match sys::copy_file_range(&from, at, &to, into, len - copied)? {
            0 => break,
            more => copied += more,
        }
    }
    Ok(copied.to_string())
}
