//! What was written to a file: the bytes, on this machine's disk, and which of them.
//!
//! **Invariant:** `ranges` and `unknown` do not overlap, and neither reaches beyond `size`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rangemap::RangeSet;
use rustix::fs::{FallocateFlags, fallocate};
use xfer_protocol::tree::FallocateMode;

use super::item::{FileBytes, TreePath};

/// The most bytes that are copied at once.
pub(super) const COPY_BYTES: u64 = 1 << 20;

/// What was written to a file.
#[derive(Debug)]
pub(super) struct Written {
    /// Where the bytes are. The file is open only while it is used, since there may be many.
    path: PathBuf,
    /// The ranges that are known.
    ranges: RangeSet<u64>,
    /// The ranges that were copied from bytes that are not known.
    unknown: RangeSet<u64>,
    /// The size, if it is known.
    size: Option<u64>,
    /// Whether nothing of the file is older than these changes.
    is_whole: bool,
}

impl Written {
    /// Nothing yet, to be kept in a new file.
    pub(super) fn create(path: PathBuf) -> io::Result<Written> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let (ranges, unknown) = (RangeSet::new(), RangeSet::new());
        Ok(Written { path, ranges, unknown, size: None, is_whole: false })
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.path)
    }

    /// Notes that the file is new, and empty.
    pub(super) fn note_whole(&mut self) {
        self.is_whole = true;
        self.size = Some(0);
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        self.open()?.write_all_at(data, offset)?;
        self.grow(offset, end);
        self.note_known(offset..end);
        Ok(())
    }

    pub(super) fn resize(&mut self, size: u64) -> io::Result<()> {
        self.open()?.set_len(size)?;
        self.grow(size, size);
        self.size = Some(size);
        self.is_whole |= size == 0;
        if size < u64::MAX {
            self.ranges.remove(size..u64::MAX);
            self.unknown.remove(size..u64::MAX);
        }
        Ok(())
    }

    pub(super) fn allocate(
        &mut self,
        offset: u64,
        len: u64,
        mode: FallocateMode,
    ) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let (grows, zeroes) = match mode {
            FallocateMode::Allocate => (true, false),
            FallocateMode::AllocateKeepSize => (false, false),
            FallocateMode::PunchHole | FallocateMode::ZeroKeepSize => (false, true),
            FallocateMode::Zero => (true, true),
        };
        let file = self.open()?;
        let length = file.metadata()?.len();
        if zeroes && offset < end.min(length) {
            zero(&file, offset, end.min(length) - offset)?;
        }
        if grows {
            file.set_len(length.max(end))?;
            self.grow(end, end);
        }
        if zeroes {
            self.note_known(offset..self.size.map_or(end, |size| size.min(end)));
        }
        Ok(())
    }

    /// Copies a range from a file that has it, or notes that its bytes are not known.
    pub(super) fn copy(
        &mut self,
        from: Option<&File>,
        start: u64,
        at: u64,
        len: u64,
    ) -> io::Result<()> {
        self.grow(at, at + len);
        match from {
            Some(from) => {
                copy_bytes(from, start, &self.open()?, at, len)?;
                self.note_known(at..at + len);
            }
            None if len > 0 => {
                let file = self.open()?;
                let length = file.metadata()?.len();
                file.set_len(length.max(at + len))?;
                self.ranges.remove(at..at + len);
                self.unknown.insert(at..at + len);
            }
            None => {}
        }
        Ok(())
    }

    /// The file, if it has all of a range.
    pub(super) fn share(&self, range: &Range<u64>) -> io::Result<Option<File>> {
        let is_known = range.is_empty()
            || self.is_whole && self.unknown.overlapping(range).next().is_none()
            || self.ranges.gaps(range).next().is_none();
        is_known.then(|| self.open()).transpose()
    }

    /// What is kept, in `file` of the rescue, which is now at `path`.
    pub(super) fn describe(&self, file: &Path, path: &Path) -> io::Result<FileBytes> {
        let length = fs::metadata(path)?.len();
        let pairs = |ranges: &RangeSet<u64>| ranges.iter().map(|r| (r.start, r.end)).collect();
        Ok(FileBytes {
            file: TreePath::from(&file.to_owned()),
            size: self.size.or(self.is_whole.then_some(length)),
            ranges: pairs(&self.ranges),
            is_whole: self.is_whole && self.unknown.is_empty(),
            unknown: pairs(&self.unknown),
        })
    }

    fn note_known(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.unknown.remove(range.clone());
            self.ranges.insert(range);
        }
    }

    /// Notes that the file reaches to `end` at least, of which the part before `start` is zeros where
    /// it is beyond the end so far.
    fn grow(&mut self, start: u64, end: u64) {
        let Some(size) = &mut self.size else { return };
        if *size < start {
            self.ranges.insert(*size..start);
        }
        *size = end.max(*size);
    }
}

/// Writes zeros, as a hole where the filesystem can.
pub(super) fn zero(file: &File, start: u64, len: u64) -> io::Result<()> {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, how, start, len) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; COPY_BYTES.min(len) as usize];
            let mut at = start;
            while at < start + len {
                let part = &zeros[..COPY_BYTES.min(start + len - at) as usize];
                file.write_all_at(part, at)?;
                at += part.len() as u64;
            }
            Ok(())
        }
        punched => Ok(punched?),
    }
}

/// Copies a range in pieces: from its end if it goes to a later place, since the two may overlap.
fn copy_bytes(from: &File, start: u64, to: &File, at: u64, len: u64) -> io::Result<()> {
    let pieces = len.div_ceil(COPY_BYTES);
    for piece in 0..pieces {
        let piece = if start < at { pieces - 1 - piece } else { piece };
        let offset = piece * COPY_BYTES;
        let bytes = read_range(from, start + offset, COPY_BYTES.min(len - offset))?;
        to.write_all_at(&bytes, at + offset)?;
    }
    Ok(())
}

/// Reads a range of a file. There are zeros beyond its end.
pub(super) fn read_range(file: &File, start: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], start + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(bytes)
}
