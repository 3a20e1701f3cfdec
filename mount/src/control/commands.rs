//! The side of `xfer`: finds this user's mounts, asks them, and shows the answers.
//!
//! Mount points themselves are not touched, so a hanging mount can't make `xfer` hang. The
//! exception is a mount that has no process to answer for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xfer_protocol::shown::Shown;

use super::call::Call;
use super::find::{self, find_call};
use super::{Ask, leaving};
use crate::mountpoint::{self, mountinfo, stale};
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;

/// The longest wait for the kernel's mount to go after the mount's process reported success.
const GONE_MAX: Duration = Duration::from_secs(10);

/// A mount that stays longer than this is taken for a copy in this mount namespace.
const COPY_AFTER: Duration = Duration::from_secs(1);

/// Waits until all that was written to a mount so far is on the server's disk.
///
/// # Errors
/// If there is no mount, or it can't be done.
pub fn sync(mountpoint: &Path) -> Result<(), Failure> {
    find_call(mountpoint)?.follow(Ask::Sync)
}

/// Where an account, as `user@host:port`, is mounted, if it is.
pub fn mount_of(account: &str) -> Option<PathBuf> {
    let mut mounts = find::of_account(account);
    let found = mounts.find(|status| !status.elsewhere && !status.is_lost());
    found.map(|status| PathBuf::from(status.mountpoint))
}

/// Makes everything durable, then unmounts.
///
/// # Errors
/// If there is no mount, or it can't be done.
pub fn unmount(mountpoint: &Path) -> Result<(), Failure> {
    unmount_by(mountpoint, Ask::Unmount)
}

/// Unmounts without the server, and says whether anything is kept here.
///
/// # Errors
/// If there is no mount, or it can't be done.
pub fn abandon(path: &Path) -> Result<(), Failure> {
    let pending = find_call(path).and_then(Call::status).map_or(0, |status| status.pending_ops);
    unmount_by(path, Ask::Abandon)?;
    if pending > 0 {
        complain(format_args!(
            "xfer: {}: what the server does not have is kept on this machine; see: xfer rescue list",
            Shown(&path.to_string_lossy())
        ));
    }
    Ok(())
}

fn unmount_by(path: &Path, ask: Ask) -> Result<(), Failure> {
    let call = match find_call(path) {
        Ok(call) => call,
        Err(failure) => return if remove_stale(path)? { Ok(()) } else { Err(failure) },
    };
    let mountpoint = call.mountpoint.clone();
    leaving::leave(&mountpoint)?;
    call.follow(ask)?;
    wait_until_gone(&mountpoint)
}

/// Removes a mount whose process was killed; returns whether there was one.
fn remove_stale(path: &Path) -> Result<bool, Failure> {
    let place = mountpoint::resolve(path).unwrap_or_else(|_| path.to_owned());
    let removed = stale::remove_at(&place);
    let removed = removed.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    if removed {
        complain(format_args!(
            "xfer: {}: removed, since no process served it any more; if that was killed, changes that were \
             not yet on the server are lost",
            Shown(&place.to_string_lossy())
        ));
    }
    Ok(removed)
}

fn wait_until_gone(mountpoint: &Path) -> Result<(), Failure> {
    const POLL_EVERY: Duration = Duration::from_millis(20);
    let start = Instant::now();
    let mut looked = false;
    while start.elapsed() < GONE_MAX {
        let entry = mountinfo::find(mountpoint)
            .map_err(|error| Failure::new(Exit::Other, format!("/proc: {error}")))?;
        if !entry.is_some_and(|entry| entry.is_fuse()) {
            return Ok(());
        }
        if !looked && start.elapsed() > COPY_AFTER {
            // Its process has unmounted it, but this may be a copy in another namespace.
            looked = true;
            let _ = stale::remove_at(mountpoint);
        }
        std::thread::sleep(POLL_EVERY);
    }
    let path = mountpoint.display();
    let line = format!(
        "{path}: everything is durable, but the mount is still there; try: fusermount3 -u {path}"
    );
    Err(Failure::new(Exit::Other, line))
}
