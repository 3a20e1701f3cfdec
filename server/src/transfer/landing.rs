//! Creates exported entries in a directory of this machine.
//!
//! **Invariant:** an existing file is never written to, nor are its attributes changed: it may have
//! other names elsewhere. It is either kept as it is or unlinked. Only existing directories are
//! reused, since they can't have other names.
//!
//! All of it runs with the rights of the user who runs the export, not those with which the store
//! is read.
//!
//! **Invariant:** the modification time is set last, so an entry with the right one is complete.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, fstat, fsync, futimens, mkdirat, mknodat, openat, readlinkat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use xfer_protocol::tree::{Kind, Node, SpecialKind};
use xfer_protocol::{Name, Timestamp};

use super::Interruption;
use super::walk::{Attributes, DIRECTORY};
use crate::moment;
use crate::program::rights::Own;

/// The permission bits that are set: all but the set-id bits, which would give any user who runs
/// the file the rights of its stored owner or of the exporting user.
const MODE_MASK: u16 = 0o1777;

/// The coarsest resolution of times in a filesystem, in seconds: that of FAT.
const TIME_STEP_SECS_MAX: u64 = 2;

/// The permission bits of an entry that is not complete yet.
const PRIVATE: Mode = Mode::RWXU;

/// The rules for creating entries.
#[derive(Clone, Copy)]
pub(super) struct Landing {
    /// Whether existing entries may be replaced.
    pub(super) replace: bool,
    /// Whether owners are set, which only root can do.
    pub(super) owners: bool,
    /// Whether each file is synced, since the target can't be as a whole.
    pub(super) syncs_each: bool,
}

/// The state of a file's or special file's place.
pub(super) enum Found {
    /// An equal entry is there.
    Same,
    /// The place is free.
    Free,
}

impl Landing {
    /// Keeps an equal of `node` if one is there; removes any other entry.
    pub(super) fn clear(
        self,
        at: BorrowedFd<'_>,
        name: &Name,
        node: &Node,
    ) -> Result<Found, Interruption> {
        let _own = Own::regain()?;
        let there = match statat(at, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Attributes::of(&stat),
            Err(Errno::NOENT) => return Ok(Found::Free),
            Err(error) => return Err(error.into()),
        };
        if is_like(at, name, node, &there)? {
            return Ok(Found::Same);
        }
        self.remove(at, name, &there)?;
        Ok(Found::Free)
    }

    /// Removes an entry that is in the way, if allowed; fails for a directory that is not empty.
    pub(super) fn remove(
        self,
        at: BorrowedFd<'_>,
        name: &Name,
        there: &Attributes,
    ) -> Result<(), Interruption> {
        let _own = Own::regain()?;
        if !self.replace {
            return Err(Interruption::Entry("something of that name is there".to_owned()));
        }
        let flags = match there.kind {
            FileType::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        match unlinkat(at, name.as_bytes(), flags) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(Interruption::Entry("a directory that is not empty is in the way".to_owned()))
            }
            removed => Ok(removed?),
        }
    }

    /// Opens a directory, created if it is missing. Returns whether it existed.
    pub(super) fn directory(
        self,
        at: BorrowedFd<'_>,
        name: &Name,
    ) -> Result<(OwnedFd, bool), Interruption> {
        let _own = Own::regain()?;
        let open = || openat(at, name.as_bytes(), DIRECTORY, Mode::empty());
        match statat(at, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if Attributes::of(&stat).kind == FileType::Directory => {
                let directory = open()?;
                let mode = Mode::from_raw_mode(fstat(&directory)?.st_mode);
                if !mode.contains(PRIVATE) {
                    // An earlier run may already have made it read-only.
                    fchmod(&directory, mode | PRIVATE)?;
                }
                return Ok((directory, true));
            }
            Ok(stat) => self.remove(at, name, &Attributes::of(&stat))?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        mkdirat(at, name.as_bytes(), PRIVATE)?;
        Ok((open()?, false))
    }

    /// Creates an empty file; the place must be free.
    pub(super) fn file(self, at: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Interruption> {
        let _own = Own::regain()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(at, name.as_bytes(), flags, Mode::RUSR | Mode::WUSR)?)
    }

    /// Creates a symbolic link; the place must be free.
    pub(super) fn symlink(
        self,
        at: BorrowedFd<'_>,
        name: &Name,
        target: &Bytes,
        node: &Node,
    ) -> Result<(), Interruption> {
        let _own = Own::regain()?;
        symlinkat(target.as_ref(), at, name.as_bytes())?;
        self.finish_unopened(at, name, node)
    }

    /// Creates a pipe or a socket; the place must be free.
    pub(super) fn special(
        self,
        at: BorrowedFd<'_>,
        name: &Name,
        kind: FileType,
        node: &Node,
    ) -> Result<(), Interruption> {
        let _own = Own::regain()?;
        mknodat(at, name.as_bytes(), kind, mode_of(node), 0)?;
        self.finish_unopened(at, name, node)
    }

    /// Sets the attributes of a file that was just created, or of a directory.
    pub(super) fn finish(self, file: &impl AsFd, node: &Node) -> Result<(), Interruption> {
        let _own = Own::regain()?;
        for (name, value) in node.xattrs.all().unwrap_or_default().iter() {
            if name.starts_with(b"user.") {
                fsetxattr(file, name.as_ref(), value, XattrFlags::empty()).map_err(unattributed)?;
            }
        }
        if self.owners {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            fchown(file, Some(uid), Some(gid))?;
        }
        fchmod(file, mode_of(node))?;
        // Its time makes it an equal of the node for an export that is made again.
        self.sync(file)?;
        futimens(file, &times(node))?;
        must_have_time(&fstat(file)?, node)?;
        self.sync(file)
    }

    fn sync(self, file: &impl AsFd) -> Result<(), Interruption> {
        if self.syncs_each {
            fsync(file)?;
        }
        Ok(())
    }

    /// The same for an entry that can't be opened, or where opening would have an effect.
    fn finish_unopened(
        self,
        at: BorrowedFd<'_>,
        name: &Name,
        node: &Node,
    ) -> Result<(), Interruption> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.owners {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            chownat(at, name.as_bytes(), Some(uid), Some(gid), flags)?;
        }
        utimensat(at, name.as_bytes(), &times(node), flags)?;
        must_have_time(&statat(at, name.as_bytes(), flags)?, node)
    }
}

/// Reports a filesystem that can't store a time so early or so late. Many round the nanoseconds;
/// that is not reported.
fn must_have_time(stat: &Stat, node: &Node) -> Result<(), Interruption> {
    let kept = Attributes::of(stat).mtime.secs();
    if kept.abs_diff(node.mtime.secs()) <= TIME_STEP_SECS_MAX {
        return Ok(());
    }
    let (wanted, kept) = (moment::display(node.mtime.secs()), moment::display(kept));
    Err(Interruption::Entry(format!(
        "its time of change, {wanted}, cannot be kept there: it is {kept} now"
    )))
}

/// Whether the existing entry has the node's kind, size and modification time.
fn is_like(
    at: BorrowedFd<'_>,
    name: &Name,
    node: &Node,
    there: &Attributes,
) -> Result<bool, Interruption> {
    let like = match &node.kind {
        Kind::File(data) => there.kind == FileType::RegularFile && there.size == data.size,
        Kind::Symlink { target } => {
            there.kind == FileType::Symlink
                && readlinkat(at, name.as_bytes(), Vec::new())?.as_bytes() == target.as_ref()
        }
        Kind::Special(SpecialKind::Fifo) => there.kind == FileType::Fifo,
        Kind::Special(SpecialKind::Socket) => there.kind == FileType::Socket,
        Kind::Directory { .. }
        | Kind::Special(SpecialKind::CharDevice { .. } | SpecialKind::BlockDevice { .. }) => false,
    };
    Ok(like && there.mtime == node.mtime)
}

fn unattributed(error: Errno) -> Interruption {
    let error = std::io::Error::from(error);
    Interruption::Entry(format!("its extended attributes cannot be kept there ({error})"))
}

fn mode_of(node: &Node) -> Mode {
    Mode::from_raw_mode(u32::from(node.mode & MODE_MASK))
}

fn times(node: &Node) -> Timestamps {
    Timestamps { last_access: timespec(node.atime), last_modification: timespec(node.mtime) }
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.secs(), tv_nsec: time.nanos().into() }
}
