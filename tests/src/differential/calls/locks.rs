//! Locks: on whole files (flock(2)) and on ranges (fcntl(2)), never waiting.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FlockOperation, flock};

use crate::differential::operation::{LockKind, LockOwner, Operation};
use crate::differential::side::Side;

pub(in crate::differential) fn apply(side: &Side, operation: &Operation) -> io::Result<String> {
    match operation {
        Operation::Flock { slot, kind } => {
            let how = match kind {
                LockKind::Shared => FlockOperation::NonBlockingLockShared,
                LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
                LockKind::None => FlockOperation::NonBlockingUnlock,
            };
            Ok(flock(side.file(*slot)?, how).map(|()| String::new())?)
        }
        Operation::Lock { slot, owner, kind, start, len } => {
            let command = match owner {
                LockOwner::Process => libc::F_SETLK,
                LockOwner::OpenFile => libc::F_OFD_SETLK,
            };
            call(side.file(*slot)?, command, range(*kind, *start, *len))?;
            Ok(String::new())
        }
        Operation::FindLock { slot, owner, kind, start, len } => {
            let command = match owner {
                LockOwner::Process => libc::F_GETLK,
                LockOwner::OpenFile => libc::F_OFD_GETLK,
            };
            let found = call(side.file(*slot)?, command, range(*kind, *start, *len))?;
            Ok(format!("{} {} {} {}", found.l_type, found.l_start, found.l_len, found.l_pid))
        }
        _ => unreachable!("not about locks: {operation:?}"),
    }
}

fn range(kind: LockKind, start: i64, len: i64) -> libc::flock {
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
        LockKind::None => libc::F_UNLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn call(
    file: BorrowedFd<'_>,
    command: libc::c_int,
    mut lock: libc::flock,
) -> io::Result<libc::flock> {
    // SAFETY: these commands read and write a `flock`, which lives through the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock),
    }
}
