//! The kernel's table of mounts: `/proc/self/mountinfo`.
//!
//! Reading it does not touch the filesystems themselves, so it can't hang on a dead one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

/// The type of `xfer-mount`'s mounts: to the kernel it is `fuse`; the rest is only shown.
pub const KIND: &str = "fuse.xfer";

/// The words in which the kernel shows the flags that it enforces on a mount. The flags for access
/// times are left out: the kernel keeps those when a mount is changed.
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

/// A mount, as one line of the table shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The kernel's number of the mount, unique within a mount namespace.
    pub id: u64,
    /// The number of the mount that it lies on.
    pub parent: u64,
    /// The device number, as `major:minor`; all copies of a mount share it.
    pub device: String,
    /// The directory that it is mounted on.
    pub mountpoint: PathBuf,
    /// The flags that the kernel enforces.
    pub flags: MountFlags,
    /// The filesystem's type, like `fuse.xfer`.
    pub kind: String,
    /// The mount's source, as the filesystem names it.
    pub source: String,
    /// The user id of the mounting user, if the filesystem reports it (FUSE does).
    pub user: Option<u32>,
}

impl Entry {
    /// Whether `xfer-mount` serves it.
    pub fn is_xfer(&self) -> bool {
        self.kind == KIND
    }

    /// Whether it is the trigger of an automounter (autofs, `x-systemd.automount`), which the mount that it
    /// asks for is to cover.
    pub fn is_automounter(&self) -> bool {
        self.kind == "autofs"
    }

    /// Whether another entry, older or newer, is of the same mount. The number alone is not enough:
    /// the kernel reuses numbers of removed mounts at once.
    pub fn is_same(&self, other: &Entry) -> bool {
        (self.id, &self.device) == (other.id, &other.device)
    }

    /// The mount's present entry, wherever it has been moved; `None` if it is gone.
    ///
    /// # Errors
    /// If `/proc` is missing.
    pub fn now(&self) -> io::Result<Option<Entry>> {
        Ok(all()?.into_iter().find(|entry| entry.is_same(self)))
    }

    /// Whether any FUSE filesystem serves it.
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// All mounts of this process's namespace.
///
/// # Errors
/// If `/proc` is missing.
pub fn all() -> io::Result<Vec<Entry>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mounts at exactly `path`, which must be absolute and free of links; topmost first.
///
/// # Errors
/// If `/proc` is missing.
pub fn stack(path: &Path) -> io::Result<Vec<Entry>> {
    let mut left = all()?;
    left.retain(|entry| entry.mountpoint == path);
    let mut stack = Vec::with_capacity(left.len());
    // Order by parents: the table is in order of the numbers, and a moved mount keeps its number.
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
/// If `/proc` is missing.
pub fn find(path: &Path) -> io::Result<Option<Entry>> {
    Ok(stack(path)?.into_iter().next())
}

/// The number of the mount that `path` is on.
///
/// # Errors
/// If `path` does not exist, or `/proc` is missing.
pub fn id_at(path: &Path) -> io::Result<u64> {
    // `O_PATH` does not ask the mounted filesystem anything.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, Mode::empty())?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The mount namespace of this process, as the kernel names it.
///
/// # Errors
/// If `/proc` is missing.
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

/// Spaces, tabs, newlines and backslashes are escaped as `\` and three octal digits.
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
