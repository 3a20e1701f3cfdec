//! Converts flags and values of requests to the client's types.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{FopenFlags, RenameFlags, Request, TimeOrNow};
use xfer_client::core::{New, Owners, Seek};
use xfer_protocol::tree::{FallocateMode, Owner, RenameMode, SpecialKind};
use xfer_protocol::{Errno, Ino, Name, Timestamp};

use super::placing::HIDDEN_NAME;

/// Parses a name from a program.
pub(super) fn parse(name: &OsStr) -> Result<Name, Errno> {
    Name::new(name.as_bytes())
}

/// The parsed value, or the error that parsing gave.
pub(super) fn given<T>(given: &Result<T, Errno>) -> Result<&T, Errno> {
    given.as_ref().map_err(|errno| *errno)
}

/// Parses the name of a new node; the hidden directory's name is reserved.
pub(super) fn new_name(parent: Ino, name: &OsStr) -> Result<Name, Errno> {
    if parent == Ino::ROOT && name.as_bytes() == HIDDEN_NAME {
        return Err(Errno::EPERM);
    }
    Name::new(name.as_bytes())
}

/// The owner of nodes that a request creates.
pub(super) fn owner(request: &Request) -> Owner {
    Owner { uid: request.uid(), gid: request.gid() }
}

/// The owner to store. If nodes show the mounting user, only that owner can be set, and none is
/// stored, so it changes nothing; `None` if the change is not allowed.
pub(super) fn settable_owner(
    owners: Owners,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Option<(Option<u32>, Option<u32>)> {
    let foreign = |id: Option<u32>, own: u32| id.is_some_and(|id| id != own);
    match owners {
        Owners::Stored => Some((uid, gid)),
        Owners::Mounter { uid: owner, gid: group } => {
            (!foreign(uid, owner) && !foreign(gid, group)).then_some((None, None))
        }
    }
}

/// Only this mount changes the file, so the kernel's cached data stays valid. Closing a file that
/// was only read needs no `flush`.
pub(super) fn open_flags(writable: bool) -> FopenFlags {
    if writable {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
    }
}

/// The time in a request.
pub(super) fn timestamp(time: TimeOrNow) -> Timestamp {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => return SystemTime::now().into(),
    };
    // For times before 1970 fuser counts the nanoseconds backwards from the second; POSIX, and so
    // the kernel, counts them forwards.
    let counted_back = time.duration_since(UNIX_EPOCH).err().map(|before| before.duration());
    counted_back
        .and_then(|back| Timestamp::new(-(back.as_secs() as i64), back.subsec_nanos()))
        .unwrap_or(time.into())
}

/// The mode of a rename; `None` if we don't support its flags.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

/// The mode of a fallocate(2); `None` if we don't support it.
pub(super) fn fallocate_mode(mode: i32) -> Option<FallocateMode> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Some(FallocateMode::Allocate),
        libc::FALLOC_FL_KEEP_SIZE => Some(FallocateMode::AllocateKeepSize),
        PUNCH => Some(FallocateMode::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Some(FallocateMode::Zero),
        ZERO_KEEP => Some(FallocateMode::ZeroKeepSize),
        _ => None,
    }
}

/// The new node that mknod(2) asks for; `None` if we don't support its type.
pub(super) fn new_special(mode: u32, rdev: u32) -> Option<New> {
    let bits = permissions(mode);
    let special = |kind| Some(New::Special { kind, mode: bits });
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(New::File { mode: bits }),
        libc::S_IFIFO => special(SpecialKind::Fifo),
        libc::S_IFSOCK => special(SpecialKind::Socket),
        libc::S_IFCHR => special(SpecialKind::CharDevice { rdev }),
        libc::S_IFBLK => special(SpecialKind::BlockDevice { rdev }),
        _ => None,
    }
}

/// The permission, set-id and sticky bits of a mode.
pub(super) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// The target of an lseek(2) that the kernel does not handle itself.
pub(super) fn seek(whence: i32) -> Result<Seek, Errno> {
    match whence {
        libc::SEEK_DATA => Ok(Seek::Data),
        libc::SEEK_HOLE => Ok(Seek::Hole),
        _ => Err(Errno::EINVAL),
    }
}
