//! Flags and values of requests, in the client's words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{FopenFlags, RenameFlags, Request, TimeOrNow};
use xfer_client::client::{Ids, New, Seek};
use xfer_protocol::tree::{FallocateMode, Owner, RenameMode, SpecialKind};
use xfer_protocol::{Errno, Ino, Name, Timestamp};

use super::placing::HIDDEN_NAME;

/// A name that a program gave.
pub(super) fn parse(name: &OsStr) -> Result<Name, Errno> {
    Name::new(name.as_bytes())
}

/// What a request gave, or why it is nothing.
pub(super) fn given<T>(given: &Result<T, Errno>) -> Result<&T, Errno> {
    given.as_ref().map_err(|errno| *errno)
}

/// A name for something new; the hidden directory's is taken.
pub(super) fn new_name(parent: Ino, name: &OsStr) -> Result<Name, Errno> {
    if parent == Ino::ROOT && name.as_bytes() == HIDDEN_NAME {
        return Err(Errno::EPERM);
    }
    Name::new(name.as_bytes())
}

/// Who owns what a request makes.
pub(super) fn owner(request: &Request) -> Owner {
    Owner { uid: request.uid(), gid: request.gid() }
}

/// The owner that is to be stored: none, where nodes show the mounter's; and that one alone can be
/// set then, which changes nothing.
pub(super) fn settable_owner(
    ids: Ids,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Option<(Option<u32>, Option<u32>)> {
    let foreign = |id: Option<u32>, own: u32| id.is_some_and(|id| id != own);
    match ids {
        Ids::Stored => Some((uid, gid)),
        Ids::Mounter { uid: owner, gid: group } => {
            (!foreign(uid, owner) && !foreign(gid, group)).then_some((None, None))
        }
    }
}

/// Nobody else changes a file, so what the kernel has cached stays right; and closing what was only
/// read needs no word.
pub(super) fn open_flags(writable: bool) -> FopenFlags {
    if writable {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
    }
}

/// The moment that a request names.
pub(super) fn timestamp(time: TimeOrNow) -> Timestamp {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => return SystemTime::now().into(),
    };
    // fuser counts the nanoseconds of a moment before 1970 backwards from its second; POSIX, and
    // so the kernel, forwards.
    let counted_back = time.duration_since(UNIX_EPOCH).err().map(|before| before.duration());
    counted_back
        .and_then(|back| Timestamp::new(-(back.as_secs() as i64), back.subsec_nanos()))
        .unwrap_or(time.into())
}

/// What a rename does with a target that exists, if it is something we do.
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

/// What fallocate(2) does, if it is something we do.
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

/// What mknod(2) makes, by its mode.
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

/// What lseek(2) looks for, beyond what the kernel does itself.
pub(super) fn seek(whence: i32) -> Result<Seek, Errno> {
    match whence {
        libc::SEEK_DATA => Ok(Seek::Data),
        libc::SEEK_HOLE => Ok(Seek::Hole),
        _ => Err(Errno::EINVAL),
    }
}
