//! Unmounting: regularly, or by detaching at once.
//!
//! **Invariant:** a mount is unmounted only if no other mount covers it or its mount point. The
//! kernel takes a path, and would unmount whichever mount is topmost there.
//!
//! This is not left to fuser: it tries only once, and hides failures of the helper.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::permission;
use crate::mountpoint::holders;
use crate::mountpoint::mountinfo::{self, Entry};

/// The longest time for which `xfer-mount` itself may use its mount.
const OWN_MAX: Duration = Duration::from_secs(1);

/// The pause between two tries meanwhile.
const OWN_PAUSE: Duration = Duration::from_millis(20);

/// Why a mount was not unmounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Another mount is in the way, and that one is not ours to unmount.
    #[error("{0}; unmount that first")]
    InTheWay(Box<Obstacle>),
    /// Programs use it.
    #[error("{}", in_use(.0))]
    InUse(PathBuf),
    /// The system, or its helper program, refused.
    #[error("{0}")]
    Refused(String),
}

/// Another mount that prevents unmounting.
#[derive(Debug)]
pub struct Obstacle {
    /// The other mount's entry.
    pub entry: Entry,
    /// Where the other mount lies.
    pub lies: Lies,
}

/// Where a mount lies that prevents the unmounting of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lies {
    /// On top of it, at the same place.
    Over,
    /// On a directory above it.
    Above,
    /// On a directory inside it.
    In,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { source, kind, mountpoint, .. } = &self.entry;
        let at = mountpoint.display();
        match self.lies {
            Lies::Over => write!(f, "{source} ({kind}) is mounted over it"),
            Lies::Above => {
                write!(f, "{source} ({kind}) is mounted over a directory above it: {at}")
            }
            Lies::In => write!(f, "{source} ({kind}) is mounted in it: {at}"),
        }
    }
}

fn in_use(path: &Path) -> String {
    match holders::names(path) {
        Some(names) => format!("it is busy: {names}; when nothing uses it, unmount again"),
        None => format!(
            "it is busy: a program has a file open or its working directory there; see: fuser -vm {}",
            path.display()
        ),
    }
}

fn system(error: io::Error) -> UnmountError {
    UnmountError::Refused(error.to_string())
}

/// Unmounts a mount that is not busy. Success if it is already gone. If no program seems to use it, this
/// tries again for a second: `xfer-mount` itself may be placing what has just arrived there.
///
/// # Errors
/// If it is busy, or another mount is in the way.
pub fn unmount(entry: &Entry) -> Result<(), UnmountError> {
    let end = Instant::now() + OWN_MAX;
    loop {
        match unmount_now(entry) {
            Err(UnmountError::InUse(path))
                if Instant::now() < end && holders::names(&path).is_none() =>
            {
                sleep(OWN_PAUSE);
            }
            done => return done,
        }
    }
}

fn unmount_now(entry: &Entry) -> Result<(), UnmountError> {
    let Some(path) = reach(entry, &[Lies::Over, Lies::Above, Lies::In])? else { return Ok(()) };
    match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unmount_by_helper(&path),
        Err(Errno::BUSY) => Err(UnmountError::InUse(path)),
        Err(error) => Err(UnmountError::Refused(format!("unmount: {error}"))),
    }
}

/// Detaches a mount at once (lazy unmount), even if it is dead or busy.
///
/// # Errors
/// If another mount is in the way, or this user has no means to detach it.
pub fn detach(entry: &Entry) -> Result<(), UnmountError> {
    detach_but_for(entry, &[Lies::Over, Lies::Above, Lies::In])
}

/// Detaches a mount at once, along with the mounts inside it.
///
/// # Errors
/// As [`detach`].
pub fn detach_with_all_in_it(entry: &Entry) -> Result<(), UnmountError> {
    detach_but_for(entry, &[Lies::Over, Lies::Above])
}

fn detach_but_for(entry: &Entry, respected: &[Lies]) -> Result<(), UnmountError> {
    let Some(path) = reach(entry, respected)? else { return Ok(()) };
    let helper = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if helper.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(&path, flags) {
        Ok(()) => Ok(()),
        // It may have gone in the meantime.
        Err(_) if entry.now().is_ok_and(|now| now.is_none()) => Ok(()),
        Err(error) => Err(UnmountError::Refused(format!("unmount: {error}"))),
    }
}

/// The path by which the kernel unmounts exactly this mount; `None` if it is gone.
fn reach(entry: &Entry, respected: &[Lies]) -> Result<Option<PathBuf>, UnmountError> {
    let entries = mountinfo::all().map_err(system)?;
    let Some(now) = entries.iter().find(|other| other.is_same(entry)) else { return Ok(None) };
    let path = &now.mountpoint;
    let in_the_way = |other: &Entry, lies| {
        UnmountError::InTheWay(Box::new(Obstacle { entry: other.clone(), lies }))
    };
    for child in entries.iter().filter(|other| other.parent == now.id && other.id != now.id) {
        let lies = if child.mountpoint == *path { Lies::Over } else { Lies::In };
        if respected.contains(&lies) {
            return Err(in_the_way(child, lies));
        }
    }
    let top = mountinfo::id_at(path).ok();
    match entries.iter().find(|other| top == Some(other.id)) {
        Some(top) if top.id == now.id => Ok(Some(path.clone())),
        Some(top) if top.mountpoint == *path => Err(in_the_way(top, Lies::Over)),
        Some(top) => Err(in_the_way(top, Lies::Above)),
        None => Err(UnmountError::Refused("its mount point cannot be found any more".to_owned())),
    }
}

fn unmount_by_helper(path: &Path) -> Result<(), UnmountError> {
    let output =
        Command::new("fusermount3").env("LC_ALL", "C").args(["-u", "--"]).arg(path).output();
    let output = output.map_err(|error| UnmountError::Refused(format!("fusermount3: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(UnmountError::InUse(path.to_owned())),
        false if said.contains(permission::MTAB) => {
            Err(UnmountError::Refused(permission::WITHOUT_MTAB.to_owned()))
        }
        false => Err(UnmountError::Refused(said.trim().to_owned())),
    }
}
