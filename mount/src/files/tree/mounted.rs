//! A tree through its mount: ordinary file work below the mount point, one path component at a time.
//!
//! **Invariant:** no path leads out of the mount, by a link or by another filesystem that is mounted in
//! it: the kernel refuses those (openat2(2)).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, XattrFlags, fchmod, fgetxattr, fsetxattr, fstat,
    fsync, futimens, mkdirat, open, openat2, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use xfer_client::core::Order;
use xfer_protocol::Timestamp;
use xfer_protocol::tree::NOTE_XATTR;

use super::super::errno::{here, of_io};
use super::{Changes, Meta, Removed, Sink, Source, Tree, not_durable, times};
use crate::control;
use crate::process::exit::Exit;

/// A mount of the tree on this machine.
pub(crate) struct Mounted {
    root: OwnedFd,
    mountpoint: PathBuf,
}

impl Mounted {
    /// The mount at a mount point.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) fn open(mountpoint: &Path) -> Result<Mounted, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(mountpoint, flags, Mode::empty())?;
        Ok(Mounted { root, mountpoint: mountpoint.to_owned() })
    }

    /// Its device number, as `major:minor`.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) fn device(&self) -> Result<String, Errno> {
        let device = fstat(&self.root)?.st_dev;
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// Opens a node. The way to it is gone in parts if it is too long for the kernel.
    fn reach(&self, path: &Path, flags: OFlags, mode: u16) -> Result<OwnedFd, Errno> {
        let (mut rest, mut reached) = (path, None);
        while let Some((part, after)) = first_part(rest) {
            let way = OFlags::PATH | OFlags::DIRECTORY;
            reached = Some(reach_from(reached.as_ref().unwrap_or(&self.root), part, way, 0)?);
            rest = after;
        }
        reach_from(reached.as_ref().unwrap_or(&self.root), rest, flags, mode)
    }

    /// The directory that an entry is in, and its name.
    fn split<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::BUSY)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.reach(parent, OFlags::PATH | OFlags::DIRECTORY, 0)?, name))
    }

    /// A node that the kernel gives extended attributes of: not a link, nor anything that it would open by a
    /// driver.
    fn with_attributes(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let meta = self.stat(path)?;
        match meta.is_file() || meta.is_directory() {
            true => self.reach(path, OFlags::RDONLY | OFlags::NOFOLLOW, 0),
            false => Err(Errno::PERM),
        }
    }

    fn file(&self, path: &Path, flags: OFlags, mode: u16) -> Result<File, Errno> {
        let opened = self.reach(path, flags | OFlags::NOFOLLOW, mode)?;
        let kind = rustix::fs::FileType::from_raw_mode(fstat(&opened)?.st_mode);
        match kind {
            rustix::fs::FileType::RegularFile => Ok(File::from(opened)),
            rustix::fs::FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }
}

/// As much of a path as the kernel takes in one call, and the rest; `None` if it takes all of it.
fn first_part(path: &Path) -> Option<(&Path, &Path)> {
    // With the byte that ends it (`PATH_MAX` of Linux).
    const PATH_BYTES_MAX: usize = 4096;
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.get(..PATH_BYTES_MAX)?.iter().rposition(|byte| *byte == b'/')?;
    let part = |bytes| Path::new(OsStr::from_bytes(bytes));
    Some((part(&bytes[..end]), part(&bytes[end + 1..])))
}

fn reach_from(
    directory: &OwnedFd,
    path: &Path,
    flags: OFlags,
    mode: u16,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = match flags.contains(OFlags::PATH) {
        true => flags | OFlags::CLOEXEC,
        // A pipe that nobody writes to is not waited for.
        false => flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
    };
    let opened = openat2(directory, path, flags, Mode::from_bits_truncate(mode.into()), resolve);
    // A link on the way is not a directory, as without a mount.
    opened.map_err(|errno| if errno == Errno::LOOP { Errno::NOTDIR } else { errno })
}

impl Tree for Mounted {
    fn stat(&self, path: &Path) -> Result<Meta, Errno> {
        if path.as_os_str().is_empty() {
            return Ok(Meta::of_stat(&fstat(&self.root)?, None));
        }
        let (parent, name) = self.split(path)?;
        meta(&parent, name)
    }

    fn list(&self, path: &Path) -> Result<Vec<(OsString, Meta)>, Errno> {
        let directory = self.reach(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            match meta(&directory, &name) {
                Ok(found) => entries.push((name, found)),
                // It was removed meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Source>, Errno> {
        // Opening a socket or a link fails in ways that depend on the kernel.
        match self.stat(path)? {
            found if found.is_file() => {}
            found if found.is_directory() => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        Ok(Box::new(self.file(path, OFlags::RDONLY, 0)?))
    }

    fn write(&self, path: &Path) -> Result<Box<dyn Sink>, Errno> {
        Ok(Box::new(self.file(path, OFlags::WRONLY | OFlags::CREATE, 0o600)?))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let mut source = self.file(from, OFlags::RDONLY, 0)?;
        let mode = fstat(&source)?.st_mode & 0o777;
        let mut copy = self.file(to, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?;
        fchmod(&copy, Mode::from_bits_truncate(mode))?;
        // By copy_file_range(2), which shares the data.
        io::copy(&mut source, &mut copy).map(drop).map_err(of_io)
    }

    fn make_directory(&self, path: &Path, mode: u16) -> Result<(), Errno> {
        let (parent, name) = self.split(path)?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o700))?;
        self.set(path, mode, None)
    }

    fn make_link(&self, path: &Path, target: &OsStr) -> Result<(), Errno> {
        let (parent, name) = self.split(path)?;
        symlinkat(target, &parent, name)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let ((from, old), (to, new)) = (self.split(from)?, self.split(to)?);
        renameat(&from, old, &to, new)
    }

    fn remove(&self, path: &Path, kind: Removed) -> Result<(), Errno> {
        let (parent, name) = self.split(path)?;
        let flags = match kind {
            Removed::Directory => AtFlags::REMOVEDIR,
            Removed::File => AtFlags::empty(),
        };
        unlinkat(&parent, name, flags)
    }

    fn set(&self, path: &Path, mode: u16, mtime: Option<Timestamp>) -> Result<(), Errno> {
        let node = self.reach(path, OFlags::RDONLY | OFlags::NOFOLLOW, 0)?;
        if let Some(mtime) = mtime {
            futimens(&node, &times(mtime))?;
        }
        fchmod(&node, Mode::from_bits_truncate(mode.into()))
    }

    fn attribute(&self, path: &Path, name: &str) -> Result<Option<String>, Errno> {
        const VALUE_BYTES_MAX: usize = 64 << 10;
        let mut value = vec![0; VALUE_BYTES_MAX];
        let read =
            self.with_attributes(path).and_then(|node| fgetxattr(&node, name, &mut value[..]));
        match read {
            Ok(len) => Ok(Some(String::from_utf8_lossy(&value[..len]).into_owned())),
            Err(Errno::NODATA) => Ok(None),
            Err(Errno::PERM | Errno::ACCESS) => {
                control::attribute(&self.mountpoint, path, name).map_err(here)
            }
            Err(errno) => Err(errno),
        }
    }

    fn set_note(&self, path: &Path, note: &str) -> Result<(), Errno> {
        let node = self.with_attributes(path)?;
        let write = || fsetxattr(&node, NOTE_XATTR, note.as_bytes(), XattrFlags::empty());
        match write() {
            // Its own user may not write to it.
            Err(Errno::ACCESS) => {
                let mode = Mode::from_raw_mode(fstat(&node)?.st_mode);
                fchmod(&node, mode | Mode::WUSR)?;
                write().and(fchmod(&node, mode))
            }
            written => written,
        }
    }

    fn order(&self, path: &Path, order: Order) -> Result<(), Errno> {
        let given = self.with_attributes(path).and_then(|node| {
            fsetxattr(&node, Order::ATTRIBUTE, order.value(), XattrFlags::empty())
        });
        match given {
            Err(Errno::PERM | Errno::ACCESS) => {
                control::order(&self.mountpoint, path, order).map_err(here)
            }
            given => given,
        }
    }

    fn sync(&self) -> Result<(), Errno> {
        // There is one log, so this covers all that was done before.
        fsync(&self.root)
    }

    fn sync_and_forget(&self) -> Result<(), Errno> {
        // Other programs use what the mount has.
        self.sync()
    }

    fn finish(&self, changes: Changes) -> Result<(), (Exit, String)> {
        let synced = if changes == Changes::Made { self.sync() } else { Ok(()) };
        synced.map_err(|errno| (Exit::Lost, not_durable(errno)))
    }
}

fn meta(parent: &OwnedFd, name: &OsStr) -> Result<Meta, Errno> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_link = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink();
    let target = match is_link {
        true => Some(OsString::from_vec(readlinkat(parent, name, Vec::new())?.into_bytes())),
        false => None,
    };
    Ok(Meta::of_stat(&stat, target))
}
