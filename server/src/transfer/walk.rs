//! Walks a directory of this machine: down into open directories and up again. Also reads the
//! attributes and data ranges of entries.
//!
//! **Invariant:** however deep a tree is, only a bounded number of its directories are open. To return
//! to one that was closed, the walk goes through `..`, and must arrive at the directory it came from.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{
    Dir, FileType, Mode, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, fstat, openat, seek,
};
use rustix::io::{Errno, Result};
use xfer_protocol::limits::XATTR_VALUE_BYTES_MAX;
use xfer_protocol::{Name, Timestamp};

/// The most open directories on the path.
const OPEN_MAX: usize = 64;

/// Flags for opening a directory that is an entry of another.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Identifies a file of this machine.
pub(super) type FileId = (u64, u64);

/// The path of open directories down to the present one.
pub(super) struct Way {
    root: OwnedFd,
    levels: Vec<Level>,
    names: Vec<Name>,
}

struct Level {
    /// `None` if it was closed because too many were open.
    directory: Option<OwnedFd>,
    id: FileId,
}

impl Way {
    pub(super) fn new(root: OwnedFd) -> Way {
        Way { root, levels: Vec::new(), names: Vec::new() }
    }

    /// The present directory.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        let last = self.levels.last().and_then(|level| level.directory.as_ref());
        last.unwrap_or(&self.root).as_fd()
    }

    /// The directory where the walk began.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The names of the directories on the path.
    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    /// Descends into a directory that was opened here.
    pub(super) fn enter(&mut self, name: Name, directory: OwnedFd) -> Result<()> {
        let id = id_of(&fstat(&directory)?);
        self.levels.push(Level { directory: Some(directory), id });
        self.names.push(name);
        if let Some(far) = self.levels.len().checked_sub(OPEN_MAX + 1) {
            self.levels[far].directory = None;
        }
        Ok(())
    }

    /// Returns to the parent directory.
    pub(super) fn leave(&mut self) -> Result<()> {
        self.names.pop();
        let left = self.levels.pop().and_then(|level| level.directory);
        let (Some(level), Some(left)) = (self.levels.last_mut(), left) else { return Ok(()) };
        if level.directory.is_none() {
            let directory = openat(&left, c"..", DIRECTORY, Mode::empty())?;
            if id_of(&fstat(&directory)?) != level.id {
                // The directory was moved away meanwhile.
                return Err(Errno::STALE);
            }
            level.directory = Some(directory);
        }
        Ok(())
    }
}

/// The metadata of a file.
#[derive(Clone, Copy)]
pub(super) struct Attributes {
    pub(super) kind: FileType,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u64,
    pub(super) id: FileId,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
}

impl Attributes {
    pub(super) fn of(stat: &Stat) -> Attributes {
        Attributes {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size.cast_unsigned(),
            links: stat.st_nlink,
            id: id_of(stat),
            atime: moment(stat.st_atime, stat.st_atime_nsec),
            mtime: moment(stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

fn id_of(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

/// Some filesystems report a second or more of nanoseconds; such a fraction is dropped.
fn moment(secs: i64, nanos: u64) -> Timestamp {
    let nanos = u32::try_from(nanos).ok();
    nanos.and_then(|nanos| Timestamp::new(secs, nanos)).unwrap_or_else(|| whole(secs))
}

fn whole(secs: i64) -> Timestamp {
    Timestamp::new(secs, 0).expect("zero nanoseconds are less than a second")
}

/// A directory's entries in order of names, and the number of entries with unsupported names.
pub(super) fn names(directory: BorrowedFd<'_>) -> Result<(Vec<Name>, u64)> {
    let (mut names, mut unusable) = (Vec::new(), 0);
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            bytes => match Name::new(bytes) {
                Ok(name) => names.push(name),
                Err(_) => unusable += 1,
            },
        }
    }
    names.sort_unstable();
    Ok((names, unusable))
}

/// The next run of data in a file from `at` on, cut at `end`.
pub(super) fn next_data(file: &OwnedFd, at: u64, end: u64) -> Result<Option<Range<u64>>> {
    if at >= end {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The filesystem does not report holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(at..end)),
        Err(error) => return Err(error),
    };
    let stop = seek(file, SeekFrom::Hole(start))?.min(end);
    Ok((start < stop).then_some(start..stop))
}

/// The `user.*` attributes of a file or directory; all others are the system's.
pub(super) fn xattrs(file: BorrowedFd<'_>) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut buffer = vec![MaybeUninit::uninit(); XATTR_VALUE_BYTES_MAX];
    let list = match flistxattr(file, buffer.as_mut_slice()) {
        Ok((list, _)) => list.to_vec(),
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut found = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        match fgetxattr(file, name, buffer.as_mut_slice()) {
            Ok((value, _)) => {
                found.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
            }
            // It was removed since the names were listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
