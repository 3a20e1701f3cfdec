//! Preconditions on this machine, checked before any server is contacted: a free mount point, and
//! FUSE.
//!
//! A mount left behind by a killed process is removed; a live one is never touched.

pub mod mountinfo;
pub mod permission;
pub mod holders;
pub mod unmounting;
pub mod stale;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::command::options::{Access, MountOptions};
use crate::control::{self, Claim};
use crate::process::exit::{Exit, Failure};
use mountinfo::Entry;

/// The longest wait for a previous mount to send its remaining changes after it was unmounted here.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// The most links on the way to a mount point, as in the kernel.
const LINKS_MAX: usize = 40;

/// The longest wait for the kernel to release an unmounted mount.
const KEPT_MAX: Duration = Duration::from_secs(2);

/// The longest wait for another process that is mounting at the same place.
const CLAIM_MAX: Duration = Duration::from_secs(60);

/// How often these waits check whether they are over.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// Checks that `path` can be mounted on; returns it absolute and free of links.
///
/// # Errors
/// If it is missing, is not a directory, already has a mount, or is not for this user to mount on.
pub fn prepare(path: &Path) -> Result<PathBuf, Failure> {
    let resolved = resolve(path).map_err(|error| missing(path, &error))?;
    free(&resolved)?;
    let metadata = fs::metadata(&resolved).map_err(|error| missing(path, &error))?;
    match metadata.is_dir() {
        true => {
            permission::check_place(&resolved, &metadata)?;
            await_predecessor(&resolved)?;
            Ok(resolved)
        }
        false => Err(Failure::new(
            Exit::MountPointMissing,
            format!("{}: not a directory; give an empty directory to mount on", path.display()),
        )),
    }
}

/// Whether a mount at `path`, which [`prepare`] returned, will hide files. An automounter's directory has
/// none, and to look into it would ask for the mount.
pub fn hides_something(path: &Path) -> bool {
    let has_automounter = || mountinfo::find(path).is_ok_and(|found| found.is_some());
    !has_automounter() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

/// Makes `path` absolute and follows all links except the last component. So it does not touch
/// anything that may be mounted there.
///
/// # Errors
/// If the parent does not exist or can't be entered.
pub fn resolve_parent(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => fs::canonicalize(&path),
    }
}

/// Makes `path` absolute and free of links, without touching a filesystem mounted there.
///
/// # Errors
/// If the parent does not exist or can't be entered, or there are too many links.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut resolved = resolve_parent(path)?;
    for _ in 0..LINKS_MAX {
        // A mount point is never a link, and the kernel knows that without asking the filesystem.
        let Ok(target) = fs::read_link(&resolved) else { return Ok(resolved) };
        let parent = resolved.parent().unwrap_or(Path::new("/"));
        resolved = resolve_parent(&parent.join(target))?;
    }
    Err(Errno::LOOP.into())
}

/// The flags that the kernel enforces on a new mount. It must not update access times by itself.
pub fn flags(access: Access, sync: bool) -> MountFlags {
    let mut flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::SYNCHRONOUS, sync);
    changed(flags, access)
}

/// The kernel's `flags` of a mount with the changes that `access` asks for.
fn changed(mut flags: MountFlags, access: Access) -> MountFlags {
    let Access { read_only, no_exec, suid, dev } = access;
    let asked = [
        (read_only, MountFlags::RDONLY),
        (no_exec, MountFlags::NOEXEC),
        (suid.map(|has_effect| !has_effect), MountFlags::NOSUID),
        (dev.map(|has_effect| !has_effect), MountFlags::NODEV),
    ];
    for (is_set, flag) in asked {
        flags.set(flag, is_set.unwrap_or(flags.contains(flag)));
    }
    flags
}

/// Changes the flags that the kernel enforces on an existing xfer mount (`mount -o remount`): only
/// those that the options name. Options handled by the mount's own process stay as they were.
///
/// # Errors
/// If `path` has no such mount, or the kernel refuses, for example because a file is open for writing.
pub fn remount(path: &Path, options: &MountOptions) -> Result<(), Failure> {
    permission::check_fuse(options)?;
    let other =
        |error: io::Error| Failure::new(Exit::Other, format!("{}: {error}", path.display()));
    let place = resolve(path).map_err(|error| missing(path, &error))?;
    let entry = mountinfo::find(&place).map_err(other)?.filter(Entry::is_xfer);
    let entry = entry.ok_or_else(|| {
        let line = format!("{}: not an xfer mount, so not remounted", path.display());
        Failure::new(Exit::NotMounted, line)
    })?;
    let flags = changed(entry.flags, options.access);
    rustix::mount::mount_remount(&place, flags, c"").map_err(|error| match error {
        Errno::BUSY => Failure::new(
            Exit::MountPointBusy,
            format!("{0}: a file is open for writing there; see: fuser -vm {0}", path.display()),
        ),
        error => other(error.into()),
    })
}

fn missing(path: &Path, error: &io::Error) -> Failure {
    let line = match error.kind() {
        ErrorKind::NotFound => {
            format!("{0}: no such directory; make it with: mkdir {0}", path.display())
        }
        ErrorKind::NotADirectory => {
            format!("{}: a part of the path is not a directory", path.display())
        }
        // autofs(5): what it is to mount there could not be mounted.
        _ if error.raw_os_error() == Some(libc::ENODEV) => {
            format!(
                "{0}: its automounter could not mount it; see: systemctl status {0}",
                path.display()
            )
        }
        _ => format!("{}: {error}", path.display()),
    };
    Failure::new(Exit::MountPointMissing, line)
}

/// Makes sure that nothing is mounted at `path`, removing stale mounts.
fn free(path: &Path) -> Result<(), Failure> {
    let other = |error: io::Error| Failure::new(Exit::Other, format!("/proc: {error}"));
    let found = mountinfo::find(path).map_err(other)?;
    let Some(entry) = found.filter(|entry| !entry.is_automounter()) else { return Ok(()) };
    match stale::remove(path, &entry) {
        Ok(true) => free(path),
        Ok(false) => Err(busy(&entry)),
        Err(line) => Err(Failure::new(Exit::MountPointBusy, line)),
    }
}

/// Claims `path`, which [`prepare`] returned, until this process has mounted there and `xfer` can
/// reach it. Several processes at once wait for one another. Returns `None` if there is no usable
/// directory for the claim.
///
/// # Errors
/// If another mount has appeared there meanwhile, or another process holds the claim for too long.
pub fn claim(path: &Path) -> Result<Option<Claim>, Failure> {
    let deadline = Instant::now() + CLAIM_MAX;
    loop {
        let claim = match Claim::take(path) {
            Ok(Some(claim)) => Some(claim),
            Ok(None) if Instant::now() < deadline => {
                thread::sleep(DRAIN_LOOK);
                continue;
            }
            Ok(None) => {
                let line = format!(
                    "{}: another xfer-mount is mounting there; try again later",
                    path.display()
                );
                return Err(Failure::new(Exit::MountPointBusy, line));
            }
            Err(_) => None,
        };
        return free(path).map(|()| claim);
    }
}

/// Removes a mount that was just made, if it lies on top of another: a process that our claim does
/// not hold up, another user's for example, was faster.
///
/// # Errors
/// If it lay on top of another.
pub fn keep_alone(entry: &Entry) -> Result<(), Failure> {
    let stack = mountinfo::stack(&entry.mountpoint).unwrap_or_default();
    let is_beneath = |other: &Entry| other.id == entry.parent && !other.is_automounter();
    match stack.into_iter().find(is_beneath) {
        None => Ok(()),
        Some(beneath) => {
            let _ = unmounting::detach(entry);
            Err(busy(&beneath))
        }
    }
}

/// Waits until the previous mount here, which the kernel has released, has really ended: it may
/// still be sending changes, and an account has only one session at a time.
fn await_predecessor(path: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + DRAIN_MAX;
    let mut kept_since = None;
    while let Some(predecessor) = control::predecessor(path) {
        let refused = |line| Err(Failure::new(Exit::MountPointBusy, line));
        let place = path.display();
        match &predecessor {
            Ok(status) if status.elsewhere => {
                if kept_since.get_or_insert_with(Instant::now).elapsed() > KEPT_MAX {
                    return refused(format!(
                        "{place}: the mount that was here still runs, since another mount namespace \
                         (such as a container's) or a program uses it; end it with: xfer unmount {place}"
                    ));
                }
            }
            Ok(_) | Err(_) => kept_since = None,
        }
        if Instant::now() > deadline {
            let why = match predecessor {
                Ok(_) => "is still sending what it holds",
                Err(_) => "has a process that does not answer",
            };
            return refused(format!(
                "{place}: the mount that was here {why}; try again later, or see: xfer status"
            ));
        }
        thread::sleep(DRAIN_LOOK);
    }
    Ok(())
}

fn busy(entry: &Entry) -> Failure {
    let path = entry.mountpoint.display();
    let how = match entry.is_xfer() && control::is_served(&entry.mountpoint) {
        true => format!("end it with: xfer unmount {path}"),
        false => "give another directory".to_owned(),
    };
    let line = format!("{path}: {} ({}) is already mounted there; {how}", entry.source, entry.kind);
    Failure::new(Exit::MountPointBusy, line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check_refused(path: &Path, exit: Exit, part: &str) {
        let failure = prepare(path).unwrap_err();
        assert_eq!(failure.exit, exit, "{failure}");
        assert!(failure.line.contains(part), "{failure}");
    }

    #[test]
    fn a_plain_directory_is_free_and_links_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(prepare(&real).unwrap(), real);
        assert_eq!(prepare(&link).unwrap(), real);
        assert_eq!(prepare(&real.join("../real/.")).unwrap(), real);
    }

    #[test]
    fn what_cannot_be_mounted_on_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let missing = directory.path().join("missing");
        check_refused(&missing, Exit::MountPointMissing, "mkdir");
        check_refused(&missing.join("below"), Exit::MountPointMissing, "mkdir");
        check_refused(&file, Exit::MountPointMissing, "not a directory");
        check_refused(&file.join("below"), Exit::MountPointMissing, "not a directory");
        check_refused(Path::new("/proc"), Exit::MountPointBusy, "already mounted there");
    }
}
