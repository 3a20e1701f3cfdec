//! What the kernel says is mounted: `/proc/self/mountinfo`.
//!
//! Reading it never touches the filesystems themselves, so it can't hang on a dead one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

/// The type of mounts that `xfer-mount` makes: the kernel knows `fuse`, and shows what follows.
pub const KIND: &str = "fuse.xfer";

/// The words by which the kernel shows what it enforces on a mount. It keeps the handling of access
/// times by itself when a mount is changed.
const ENFORCED: &[(&str, MountFlags)] = &[
    ("ro", MountFlags::RDONLY),
    ("noexec", MountFlags::NOEXEC),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("nosymfollow", MountFlags::NOSYMFOLLOW),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("lazytime", MountFlags::LAZYTIME),
];

/// A mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The kernel's number for it, in one mount namespace.
    pub id: u64,
    /// The number of the mount that it is mounted on.
    pub parent: u64,
    /// The device number of what is mounted, as `major:minor`: all copies of a mount have the same.
    pub device: String,
    /// Where it is.
    pub mountpoint: PathBuf,
    /// What the kernel enforces.
    pub flags: MountFlags,
    /// The filesystem's type, like `fuse.xfer`.
    pub kind: String,
    /// What is mounted, as the filesystem names it.
    pub source: String,
    /// The number of the user who mounted it, if the filesystem says (FUSE does).
    pub user: Option<u32>,
}

impl Entry {
    /// Whether it is served by `xfer-mount`.
    pub fn is_xfer(&self) -> bool {
        self.kind == KIND
    }

    /// Whether another entry is of the same mount, earlier or later. The kernel gives the numbers of
    /// mounts that are gone to others at once.
    pub fn is_same(&self, other: &Entry) -> bool {
        (self.id, &self.device) == (other.id, &other.device)
    }

    /// The mount as it is now, at whatever place, if it is still there.
    ///
    /// # Errors
    /// If there is no `/proc`.
    pub fn now(&self) -> io::Result<Option<Entry>> {
        Ok(all()?.into_iter().find(|entry| entry.is_same(self)))
    }

    /// Whether it is served by some FUSE filesystem.
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// All mounts of this namespace.
///
/// # Errors
/// If there is no `/proc`.
pub fn all() -> io::Result<Vec<Entry>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mounts at exactly `path`, which must be absolute and free of links; the topmost comes first.
///
/// # Errors
/// If there is no `/proc`.
pub fn stack(path: &Path) -> io::Result<Vec<Entry>> {
    let mut left = all()?;
    left.retain(|entry| entry.mountpoint == path);
    let mut stack = Vec::with_capacity(left.len());
    // The list is in the order of the numbers, which a mount keeps when it is moved.
    while let Some(last) = left.len().checked_sub(1) {
        let is_top = |entry: &Entry| left.iter().all(|other| other.parent != entry.id);
        let top = left.iter().rposition(is_top).unwrap_or(last);
        stack.push(left.remove(top));
    }
    Ok(stack)
}

/// The topmost mount at exactly `path`, which must be absolute and free of links.
///
/// # Errors
/// If there is no `/proc`.
pub fn find(path: &Path) -> io::Result<Option<Entry>> {
    Ok(stack(path)?.into_iter().next())
}

/// The number of the mount that `path` leads to.
///
/// # Errors
/// If it leads nowhere, or there is no `/proc`.
pub fn id_at(path: &Path) -> io::Result<u64> {
    // Asks nothing of what is mounted there.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, Mode::empty())?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Which mount namespace this process is in, as the kernel names it.
///
/// # Errors
/// If there is no `/proc`.
pub fn namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/self/ns/mnt")?.to_string_lossy().into_owned())
}

/// `id parent major:minor root MOUNTPOINT options [tags...] - KIND SOURCE super-options`.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    let parent = number(words.next()?)?;
    let device = String::from_utf8_lossy(words.next()?).into_owned();
    let mountpoint = OsString::from_vec(unescape(words.nth(1)?)).into();
    let mut flags = enforced(words.next()?);
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let kind = String::from_utf8_lossy(words.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(words.next()?)).into_owned();
    let options = words.next().unwrap_or_default();
    flags |= enforced(options);
    let mut options = options.split(|byte| *byte == b',');
    let user = options.find_map(|option| number(option.strip_prefix(b"user_id=")?));
    Some(Entry { id, parent, device, mountpoint, flags, kind, source, user })
}

fn enforced(options: &[u8]) -> MountFlags {
    let words = options.split(|byte| *byte == b',');
    let flag = |word: &[u8]| ENFORCED.iter().find(|(name, _)| name.as_bytes() == word);
    words.filter_map(flag).map(|(_, flag)| *flag).collect()
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Spaces, tabs, newlines and backslashes are written as `\` and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_read_with_and_without_tags() {
        let line = b"36 35 98:0 /mnt1 /mnt\\040two rw,noatime shared:1 master:2 - fuse.xfer a@b \
            rw,user_id=1000,group_id=0";
        let entry = parse(line).unwrap();
        assert_eq!((entry.id, entry.parent, entry.user), (36, 35, Some(1000)));
        assert_eq!((entry.device.as_str(), entry.flags), ("98:0", MountFlags::empty()));
        assert_eq!(entry.mountpoint, Path::new("/mnt two"));
        assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("fuse.xfer", "a@b"));
        assert!(entry.is_fuse());
        let entry = parse(b"36 35 98:0 / / rw,noexec,relatime - ext4 /dev/root ro,sync").unwrap();
        assert_eq!(entry.mountpoint, Path::new("/"));
        let flags = MountFlags::NOEXEC | MountFlags::RDONLY | MountFlags::SYNCHRONOUS;
        assert_eq!(entry.flags, flags);
        assert!(!entry.is_fuse());
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_mounted_and_a_new_directory_is_not() {
        assert!(find(Path::new("/proc")).unwrap().is_some());
        let top = find(Path::new("/proc")).unwrap().unwrap();
        assert_eq!(id_at(Path::new("/proc")).unwrap(), top.id);
        assert_eq!(top.now().unwrap(), Some(top));
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(find(directory.path()).unwrap(), None);
    }
}
