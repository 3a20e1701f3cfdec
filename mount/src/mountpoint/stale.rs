//! Stale mounts: the process was killed, but the kernel keeps the mount and answers from its cache.
//!
//! **Invariant:** only a mount of `xfer-mount` that belongs to this user and has no server process is
//! removed, and never one that lies on it. A mount that does not answer may be alive, so it stays.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::mountpoint::mountinfo::{self, Entry};
use crate::mountpoint::unmounting::{self, UnmountError};

/// The time that a mount has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Removes the mount at `path` if it is stale; returns whether it was.
///
/// # Errors
/// A line that says why it could not be removed.
pub fn remove(path: &Path, entry: &Entry) -> Result<bool, String> {
    if !is_stale(entry) {
        return Ok(false);
    }
    let refused = |why: String| {
        let path = path.display();
        Err(format!("{path}: a mount that no process serves any more cannot be removed: {why}"))
    };
    let place = path.display();
    match unmounting::detach(entry) {
        Ok(()) => Ok(true),
        Err(UnmountError::InTheWay(obstacle)) => refused(format!(
            "{obstacle}; unmount that first, or both at once, as root: umount -l {place}"
        )),
        Err(error @ (UnmountError::InUse(_) | UnmountError::Refused(_))) => {
            refused(format!("{error}; try: fusermount3 -uz {place}, or as root: umount -l {place}"))
        }
    }
}

/// Whether a mount is this user's, and no process serves it any more.
pub fn is_stale(entry: &Entry) -> bool {
    is_own(entry) && is_dead(&entry.mountpoint)
}

/// Whether a mount is an xfer mount of this user.
pub fn is_own(entry: &Entry) -> bool {
    entry.is_xfer() && entry.user == Some(rustix::process::getuid().as_raw())
}

/// Whether a FUSE mount has lost its process. `stat` would not tell, since the kernel answers it
/// from its cache; `statvfs` always asks the process.
///
/// A mount that merely does not answer counts as alive. The asking thread then stays blocked, and
/// ends with this process.
fn is_dead(path: &Path) -> bool {
    let (answer, answered) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || answer.send(rustix::fs::statvfs(&path).map(drop)));
    match answered.recv_timeout(ANSWER_MAX) {
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => true,
        Ok(Ok(()) | Err(_)) | Err(_) => false,
    }
}

/// Removes a stale mount at `path`, if there is one; returns whether there was.
///
/// # Errors
/// If `/proc` is missing, or the mount can't be removed.
pub fn remove_at(path: &Path) -> io::Result<bool> {
    match mountinfo::find(path)? {
        Some(entry) => remove(path, &entry).map_err(io::Error::other),
        None => Ok(false),
    }
}
