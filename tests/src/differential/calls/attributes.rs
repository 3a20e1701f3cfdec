//! Operations on attributes, including extended ones.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs as sys;
use rustix::fs::{
    Access, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};

use super::data::told;
use crate::differential::operation::{Moment, Operation, Target};
use crate::differential::side::Side;
use crate::snapshot::set_time;

pub(in crate::differential) fn apply(
    side: &mut Side,
    operation: &Operation,
    timed: bool,
) -> io::Result<String> {
    let done = |()| String::new();
    match operation {
        Operation::Chmod { target: Target::Open { slot }, mode } => {
            Ok(sys::fchmod(side.file(*slot)?, Mode::from_bits_retain(*mode)).map(done)?)
        }
        Operation::Chmod { target: Target::Path { path, .. }, mode } => {
            let mode = Mode::from_bits_retain(*mode);
            Ok(sys::chmodat(&side.root, path, mode, AtFlags::empty()).map(done)?)
        }
        Operation::Chown { target, uid, gid } => {
            let (directory, path, how) = side.place(target)?;
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            Ok(sys::chownat(directory, path, uid, gid, how).map(done)?)
        }
        Operation::SetTimes { target, atime, mtime } => {
            let times =
                Timestamps { last_access: timespec(*atime), last_modification: timespec(*mtime) };
            let (directory, path, how) = side.place(target)?;
            match target {
                Target::Open { .. } => sys::futimens(directory, &times)?,
                Target::Path { .. } => sys::utimensat(directory, path, &times, how)?,
            }
            let found = sys::statat(directory, path, how)?;
            // An access time that is left as it is may have been moved by a read, which one side records
            // and the other does not. That of a link may move even when a path is resolved through it.
            let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
            let atime = match atime {
                Moment::At { .. } | Moment::Now if !is_link => {
                    set_time(found.st_atime, found.st_atime_nsec as i64)
                }
                Moment::At { .. } | Moment::Now | Moment::Omitted => String::new(),
            };
            Ok(format!("{atime} {}", set_time(found.st_mtime, found.st_mtime_nsec as i64)))
        }
        Operation::SetXattr { .. }
        | Operation::GetXattr { .. }
        | Operation::ListXattrs { .. }
        | Operation::RemoveXattr { .. } => apply_to_xattrs(side, operation),
        Operation::Stat { target } => {
            let (directory, path, how) = side.place(target)?;
            Ok(describe(&sys::statat(directory, path, how)?, timed))
        }
        Operation::Access { path, mode } => {
            let mode = Access::from_bits_retain(*mode);
            Ok(sys::accessat(&side.root, path, mode, AtFlags::EACCESS).map(done)?)
        }
        _ => unreachable!("not about attributes: {operation:?}"),
    }
}

fn apply_to_xattrs(side: &Side, operation: &Operation) -> io::Result<String> {
    match operation {
        Operation::SetXattr { target, name, value, flags } => {
            let (value, flags) = (value.bytes(), XattrFlags::from_bits_retain(*flags));
            match target {
                Target::Open { slot } => sys::fsetxattr(side.file(*slot)?, name, &value, flags)?,
                Target::Path { path, follow: true } => {
                    sys::setxattr(side.full(path), name, &value, flags)?;
                }
                Target::Path { path, follow: false } => {
                    sys::lsetxattr(side.full(path), name, &value, flags)?;
                }
            }
            Ok(String::new())
        }
        Operation::GetXattr { target, name, room } => {
            let mut value = vec![0; *room];
            let room = &mut value[..];
            let len = match target {
                Target::Open { slot } => sys::fgetxattr(side.file(*slot)?, name, room)?,
                Target::Path { path, follow: true } => sys::getxattr(side.full(path), name, room)?,
                Target::Path { path, follow: false } => {
                    sys::lgetxattr(side.full(path), name, room)?
                }
            };
            // A length of zero only asks for the needed size.
            value.truncate(len);
            Ok(format!("{len} {}", told(&value)))
        }
        Operation::ListXattrs { target, room } => {
            let mut list = vec![0; *room];
            let room = &mut list[..];
            let len = match target {
                Target::Open { slot } => sys::flistxattr(side.file(*slot)?, room)?,
                Target::Path { path, follow: true } => sys::listxattr(side.full(path), room)?,
                Target::Path { path, follow: false } => sys::llistxattr(side.full(path), room)?,
            };
            list.truncate(len);
            let mut names: Vec<_> = list.split(|byte| *byte == 0).collect();
            names.sort_unstable();
            Ok(format!("{len} {}", names.join(&b' ').escape_ascii()))
        }
        Operation::RemoveXattr { target, name } => {
            match target {
                Target::Open { slot } => sys::fremovexattr(side.file(*slot)?, name)?,
                Target::Path { path, follow: true } => sys::removexattr(side.full(path), name)?,
                Target::Path { path, follow: false } => sys::lremovexattr(side.full(path), name)?,
            }
            Ok(String::new())
        }
        _ => unreachable!("not about extended attributes: {operation:?}"),
    }
}

fn timespec(moment: Moment) -> Timespec {
    match moment {
        Moment::At { second, nanosecond } => Timespec { tv_sec: second, tv_nsec: nanosecond },
        Moment::Now => Timespec { tv_sec: 0, tv_nsec: sys::UTIME_NOW },
        Moment::Omitted => Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT },
    }
}

/// The parts of `stat` that must not differ between filesystems.
fn describe(stat: &Stat, timed: bool) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = if kind == FileType::Directory { 0 } else { stat.st_size };
    let (mode, links, owner) = (stat.st_mode, stat.st_nlink, (stat.st_uid, stat.st_gid));
    let mtime = match timed && kind != FileType::Fifo {
        true => set_time(stat.st_mtime, stat.st_mtime_nsec as i64),
        false => String::new(),
    };
    format!("mode={mode:o} links={links} size={size} owner={owner:?} mtime={mtime}")
}

/// Opens a target's node for asking only, not for changing it.
pub(in crate::differential) fn node(side: &Side, target: &Target) -> io::Result<OwnedFd> {
    match target {
        Target::Open { slot } => asked(side.file(*slot)?),
        Target::Path { path, follow } => {
            let follow = if *follow { OFlags::empty() } else { OFlags::NOFOLLOW };
            let flags = OFlags::PATH | OFlags::CLOEXEC | follow;
            Ok(sys::openat(&side.root, path, flags, Mode::empty())?)
        }
    }
}

/// Reopens an open file's node. A duplicate won't do: closing it would drop the process's locks.
pub(in crate::differential) fn asked(file: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(sys::openat(sys::CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}
