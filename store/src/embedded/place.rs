//! How files of a store are opened, and the check that they are still the ones at their paths.
//!
//! An open file stays usable after its name is gone. If a store is removed, moved, replaced or
//! mounted over, its server would go on promising durability for files that can't be found again.
//! So each part of a store is pinned when it is opened, and compared with its path before the
//! server calls any data durable.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, StatxFlags, fstat, fstatfs, open, stat, statx};
use rustix::io::Errno;

use crate::StoreError;

/// The options for opening files of a store: for reading and writing, private to the owner if
/// created, and never through a symbolic link.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).truncate(false).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// The type of a filesystem that a process serves (`statfs(2)`: `FUSE_SUPER_MAGIC`).
const FUSE: i64 = 0x6573_5546;

/// Whether `syncfs` makes the files of a filesystem durable. If a process serves it (FUSE), the kernel
/// writes to that process what it has, and does not ask for more (`fs/fuse/inode.c`).
///
/// # Errors
/// If the filesystem can't be asked for its type.
pub fn syncs_as_a_whole(file: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(file)?.f_type as i64 != FUSE)
}

/// A file or directory of a store, and the path that it was opened by.
#[derive(Debug)]
pub(super) struct Pin {
    /// Its name in messages. Clients see them, so this is not the path.
    name: &'static str,
    path: PathBuf,
    file: OwnedFd,
}

impl Pin {
    /// Pins the file at `path`. Symbolic links on the way are followed, now and at each check. The
    /// file is opened with `O_PATH`, since closing any other descriptor of a database would drop
    /// SQLite's locks.
    pub(super) fn of(name: &'static str, path: &Path) -> Result<Pin, StoreError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty())
            .map_err(|error| StoreError::io(path.display().to_string(), error.into()))?;
        Ok(Pin::held(name, path, file))
    }

    /// Pins a file that is already open and was opened at `path`.
    pub(super) fn held(name: &'static str, path: &Path, file: OwnedFd) -> Pin {
        Pin { name, path: path.to_owned(), file }
    }

    /// Checks that the path still leads to the pinned file.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let Pin { name, path, file } = self;
        let gone = match (fstat(file), stat(path)) {
            (Ok(held), Ok(there)) if is_same(&held, &there) => return Ok(()),
            (Ok(_), Ok(_)) => format!("{name} was replaced"),
            (_, Err(Errno::NOENT | Errno::NOTDIR)) => format!("{name} is gone"),
            (Err(error), _) | (_, Err(error)) => {
                format!("{name} cannot be reached: {}", std::io::Error::from(error))
            }
        };
        Err(StoreError::Gone(gone))
    }
}

/// Whether both describe one file, which still has a name.
pub(super) fn is_same(held: &Stat, there: &Stat) -> bool {
    held.st_nlink > 0 && (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)
}

/// The file system that a file lies in, and its mount, since parts of one file system can be
/// mounted in several places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mounted {
    device: (u32, u32),
    /// `None` before Linux 5.8, which does not report it.
    mount: Option<u64>,
}

impl Mounted {
    /// Looks at the file at `path`; a symbolic link at its end is not followed.
    pub(super) fn at(path: &Path) -> std::io::Result<Mounted> {
        let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
        let tells_mount = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        Ok(Mounted {
            device: (found.stx_dev_major, found.stx_dev_minor),
            mount: tells_mount.then_some(found.stx_mnt_id),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(change: impl FnOnce(&Path), expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store/file");
        std::fs::create_dir(dir.path().join("store")).unwrap();
        std::fs::write(&path, "x").unwrap();
        let pin = Pin::of("it", &path).unwrap();
        pin.check().unwrap();
        change(&path);
        let error = pin.check().unwrap_err();
        assert!(matches!(error, StoreError::Gone(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn whatever_takes_a_file_from_its_place_is_noticed() {
        check(|file| std::fs::remove_file(file).unwrap(), "it is gone");
        check(
            |file| {
                std::fs::remove_file(file).unwrap();
                std::fs::write(file, "x").unwrap();
            },
            "it was replaced",
        );
        check(|file| std::fs::rename(file, file.with_file_name("other")).unwrap(), "it is gone");
        check(
            |file| {
                std::fs::rename(file, file.with_file_name("other")).unwrap();
                std::fs::write(file, "x").unwrap();
            },
            "it was replaced",
        );
        check(
            |file| {
                let store = file.parent().unwrap();
                std::fs::rename(store, store.with_file_name("moved")).unwrap();
            },
            "it is gone",
        );
        check(
            |file| {
                let store = file.parent().unwrap();
                std::fs::remove_dir_all(store).unwrap();
                std::fs::write(store, "x").unwrap();
            },
            "it is gone",
        );
    }
}
