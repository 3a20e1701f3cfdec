//! Mounts whose process was killed: the kernel keeps them, and goes on answering from its cache.
//!
//! **Invariant:** only a mount of `xfer-mount` that belongs to this user and that nobody serves any
//! more is removed. One that does not answer may live: it stays.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::mountinfo::{self, Entry};
use crate::unmounting;

/// How long a mount has to show whether it is served.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Removes the mount at `path`, if it is stale; whether it was.
///
/// # Errors
/// A line that says why it can't be removed.
pub fn remove(path: &Path, entry: &Entry) -> Result<bool, String> {
    if !(entry.is_xfer() && entry.user == Some(rustix::process::getuid().as_raw()) && is_dead(path))
    {
        return Ok(false);
    }
    unmounting::detach(path);
    match mountinfo::find(path) {
        Ok(Some(left)) if left.id == entry.id => Err(format!(
            "{0}: a mount whose process was killed is in the way and can't be removed; \
             try: fusermount3 -u {0}, or as root: umount -l {0}",
            path.display()
        )),
        Ok(_) => Ok(true),
        Err(error) => Err(format!("/proc: {error}")),
    }
}

/// Whether nobody serves a FUSE mount any more. `stat` of it would not tell, since the kernel
/// answers that from its cache; the space on it is always asked for.
///
/// One that only does not answer counts as alive; the thread that asks it is left waiting then,
/// and ends with this process.
fn is_dead(path: &Path) -> bool {
    let (answer, answered) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || answer.send(rustix::fs::statvfs(&path).map(drop)));
    match answered.recv_timeout(ANSWER_MAX) {
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => true,
        Ok(Ok(()) | Err(_)) | Err(_) => false,
    }
}

/// Removes the mount at `path`, if there is one and it is stale; whether there was.
///
/// # Errors
/// If there is no `/proc`, or it can't be removed.
pub fn remove_at(path: &Path) -> io::Result<bool> {
    match mountinfo::find(path)? {
        Some(entry) => remove(path, &entry).map_err(io::Error::other),
        None => Ok(false),
    }
}
