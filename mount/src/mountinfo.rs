//! What the kernel says is mounted: `/proc/self/mountinfo`.
//!
//! Reading it never touches the filesystems themselves, so it can't hang on a dead one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type of mounts that `xfer-mount` makes: the kernel knows `fuse`, and shows what follows.
pub const KIND: &str = "fuse.xfer";

/// A mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The kernel's number for it.
    pub id: u64,
    /// Where it is.
    pub mountpoint: PathBuf,
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

    /// Whether it is served by some FUSE filesystem.
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// The topmost mount at exactly `path`, which must be absolute and free of links.
///
/// # Errors
/// If there is no `/proc`.
pub fn find(path: &Path) -> io::Result<Option<Entry>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let mut entries = text.split(|byte| *byte == b'\n').filter_map(parse);
    Ok(entries.rfind(|entry| entry.mountpoint == path))
}

/// Whether the mount with the kernel's number `id` is there, at whatever place.
///
/// # Errors
/// If there is no `/proc`.
pub fn has(id: u64) -> io::Result<bool> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).any(|entry| entry.id == id))
}

/// `id parent major:minor root MOUNTPOINT options [tags...] - KIND SOURCE super-options`.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    let mountpoint = unescape(words.nth(3)?);
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let kind = String::from_utf8_lossy(words.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(words.next()?)).into_owned();
    let mut options = words.next().unwrap_or_default().split(|byte| *byte == b',');
    let user = options.find_map(|option| number(option.strip_prefix(b"user_id=")?));
    let mountpoint = OsString::from_vec(mountpoint).into();
    Some(Entry { id, mountpoint, kind, source, user })
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
        assert_eq!((entry.id, entry.user), (36, Some(1000)));
        assert_eq!(entry.mountpoint, Path::new("/mnt two"));
        assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("fuse.xfer", "a@b"));
        assert!(entry.is_fuse());
        let entry = parse(b"36 35 98:0 / / rw - ext4 /dev/root rw").unwrap();
        assert_eq!(entry.mountpoint, Path::new("/"));
        assert!(!entry.is_fuse());
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_mounted_and_a_new_directory_is_not() {
        assert!(find(Path::new("/proc")).unwrap().is_some());
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(find(directory.path()).unwrap(), None);
    }
}
