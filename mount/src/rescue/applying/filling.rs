//! Filling files with what is kept: bytes and attributes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, SeekFrom, Timespec, Timestamps, UTIME_OMIT, XattrFlags, utimensat};
use xfer_protocol::Timestamp;
use xfer_protocol::limits::NAME_BYTES_MAX;

use crate::rescue::item::{Attributes, FileBytes};
use crate::rescue::written::{COPY_BYTES, read_range, zero};

/// The longest value of an extended attribute (xattr(7)).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// A name beside a path that nothing has.
pub(super) fn free_name(path: &Path) -> io::Result<PathBuf> {
    names_beside(path)
        .find(|beside| fs::symlink_metadata(beside).is_err())
        .ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// The names beside a path that are tried one after another.
pub(super) fn names_beside(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let path = path.to_owned();
    (0..u32::MAX).map(move |count| {
        let end = if count > 0 { format!(".rescued-{count}") } else { ".rescued".to_owned() };
        let name = path.file_name().unwrap_or_default();
        let mut beside = beginning(name, NAME_BYTES_MAX - end.len()).to_owned();
        beside.push(end);
        path.with_file_name(beside)
    })
}

/// The beginning of a name, with at most `max` bytes and no part of a UTF-8 character at its end.
fn beginning(name: &OsStr, max: usize) -> &OsStr {
    let bytes = name.as_bytes();
    if bytes.len() <= max {
        return name;
    }
    let is_within = |at: &usize| bytes[*at] & 0b1100_0000 == 0b1000_0000;
    // No character has more than three bytes after its first.
    let end = (max.saturating_sub(3)..=max).rev().find(|at| !is_within(at)).unwrap_or(max);
    OsStr::from_bytes(&bytes[..end])
}

/// Writes the bytes that are kept to a file, which is made if it is not there.
pub(super) fn fill(path: &Path, kept: &File, bytes: &FileBytes) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(bytes.is_whole).open(path)?;
    if let Some(size) = bytes.size {
        file.set_len(size)?;
    }
    for (start, end) in ranges(bytes) {
        let mut at = start;
        while at < end {
            let data = next_data(kept, at)?.min(end);
            if at < data && !bytes.is_whole {
                zero(&file, at, data - at)?;
            }
            let len = COPY_BYTES.min(end - data);
            file.write_all_at(&read_range(kept, data, len)?, data)?;
            at = data + len;
        }
    }
    file.sync_all()
}

/// Whether a file has just the bytes that are kept.
pub(super) fn has_bytes(path: &Path, kept: &File, bytes: &FileBytes) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(false);
    }
    let there = File::open(path)?;
    let size = there.metadata()?.len();
    if bytes.size.is_some_and(|wanted| wanted != size) {
        return Ok(false);
    }
    for (start, end) in ranges(bytes) {
        if end > size {
            return Ok(false);
        }
        let mut at = start;
        while at < end {
            // Where neither has data, both have zeros.
            at = next_data(kept, at)?.min(next_data(&there, at)?).min(end);
            let len = COPY_BYTES.min(end - at);
            if read_range(kept, at, len)? != read_range(&there, at, len)? {
                return Ok(false);
            }
            at += len;
        }
    }
    Ok(true)
}

/// Whether a file may be one that [`fill`] did not finish: each of its bytes is the one that is kept,
/// or zero.
pub(super) fn has_a_part(path: &Path, kept: &File, bytes: &FileBytes) -> io::Result<bool> {
    let there = File::open(path)?;
    let size = there.metadata()?.len();
    let mut at = next_data(&there, 0)?;
    while at < size {
        let len = COPY_BYTES.min(size - at);
        let (theirs, ours) = (read_range(&there, at, len)?, read_range(kept, at, len)?);
        if theirs.iter().zip(&ours).any(|(theirs, ours)| *theirs != 0 && theirs != ours) {
            return Ok(false);
        }
        at = next_data(&there, at + len)?;
    }
    Ok(bytes.size.is_none_or(|wanted| size <= wanted))
}

/// Where a file has data next; beyond all files if it has none any more.
fn next_data(file: &File, at: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Err(rustix::io::Errno::NXIO) => Ok(u64::MAX),
        // A filesystem that knows no holes has data everywhere.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(at),
        found => Ok(found?),
    }
}

fn ranges(bytes: &FileBytes) -> impl Iterator<Item = (u64, u64)> {
    let size = bytes.size.unwrap_or(u64::MAX);
    bytes.ranges.iter().map(move |(start, end)| (*start, size.min(*end)))
}

/// Whether a node has the attributes that are given.
pub(super) fn has_attributes(path: &Path, attributes: &Attributes) -> io::Result<bool> {
    let Attributes { mode, uid, gid, mtime, xattrs } = attributes;
    let there = fs::symlink_metadata(path)?;
    let modified = (there.mtime(), there.mtime_nsec() as u32);
    let mut is_so = mode.is_none_or(|mode| there.mode() & 0o7777 == u32::from(mode))
        && uid.is_none_or(|uid| there.uid() == uid)
        && gid.is_none_or(|gid| there.gid() == gid)
        && mtime.is_none_or(|mtime| modified == mtime);
    for (name, wanted) in xattrs {
        let mut value = vec![0; XATTR_BYTES_MAX];
        let found = match rustix::fs::lgetxattr(path, name.as_path(), &mut value[..]) {
            Err(rustix::io::Errno::NODATA) => None,
            len => Some(&value[..len?]),
        };
        is_so &= found == wanted.as_deref();
    }
    Ok(is_so)
}

/// Sets the attributes that are given.
pub(super) fn set_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
    let Attributes { mode, uid, gid, mtime, xattrs } = attributes;
    for (name, value) in xattrs {
        let name = name.as_path();
        match value {
            Some(value) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?,
            None => match rustix::fs::lremovexattr(path, name) {
                Err(rustix::io::Errno::NODATA) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    let is_link = fs::symlink_metadata(path)?.is_symlink();
    // Only root may do this, and only a mount that shows stored owners shows it.
    if (uid.is_some() || gid.is_some()) && rustix::process::geteuid().is_root() && !is_link {
        chown(path, *uid, *gid)?;
    }
    if let Some(mode) = mode.filter(|_| !is_link) {
        fs::set_permissions(path, Permissions::from_mode(mode.into()))?;
    }
    let moment = mtime.and_then(|(secs, nanos)| Timestamp::new(secs, nanos));
    if let Some(moment) = moment.filter(|_| !is_link) {
        let modified = Timespec { tv_sec: moment.secs(), tv_nsec: moment.nanos().into() };
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access, last_modification: modified };
        // Its permissions may be such that it can't be opened any more.
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beside_one_has_its_beginning_and_is_no_longer_than_names_may_be() {
        let first = |name: &str| {
            let beside = names_beside(Path::new(name)).next();
            beside.and_then(|beside| beside.to_str().map(str::to_owned))
        };
        let long = "n".repeat(NAME_BYTES_MAX);
        for (name, beside) in [
            ("a/b", "a/b.rescued".to_owned()),
            (&long[8..], format!("{}.rescued", &long[8..])),
            (&long, format!("{}.rescued", &long[8..])),
            // No character is cut.
            (&"ä".repeat(127), format!("{}.rescued", "ä".repeat(123))),
            (&"😀".repeat(63), format!("{}.rescued", "😀".repeat(61))),
        ] {
            assert_eq!(first(name).as_ref(), Some(&beside));
        }
        let later = names_beside(Path::new(&long)).nth(12);
        assert_eq!(later, Some(PathBuf::from(format!("{}.rescued-12", &long[11..]))));
    }
}
