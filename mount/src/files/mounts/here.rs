//! This user's mounts on this machine.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xfer_protocol::shown::Shown;

use super::super::place::Either;
use super::super::tree::Mounted;
use super::Found;
use crate::control::{self, DORMANT};
use crate::mountpoint::{self, mountinfo, stale};
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;

/// The longest wait for a change of the table of mounts.
const MOUNTS_MAX: Duration = Duration::from_secs(60);

/// The longest wait for the process of a mount that the table has.
const MOUNTING_MAX: Duration = Duration::from_secs(5);

/// The pause if the table can't be watched.
const RETRY: Duration = Duration::from_secs(10);

/// The tree of an account, as `user@host:port`, through this user's mount of it, if there is one that
/// works.
///
/// # Errors
/// If the mount does not have the tree, and is not passed over for a `takeover`.
pub(in crate::files) fn find(account: &str, takeover: bool) -> Result<Option<Found>, Failure> {
    let namespace = mountinfo::namespace().unwrap_or_default();
    for status in control::of_account(account) {
        if status.elsewhere || status.is_lost() || status.namespace != namespace {
            continue;
        }
        if status.state == DORMANT {
            if takeover {
                continue;
            }
            let other = status.other.as_deref().unwrap_or("another machine");
            let place = &status.mountpoint;
            let line = format!(
                "{account}: mounted at {place}, but the client on {other} has the tree; use that one, or \
                 take the tree from it with --takeover"
            );
            return Err(Failure::new(Exit::InUse, line));
        }
        let mountpoint = PathBuf::from(&status.mountpoint);
        if let Ok(mount) = Mounted::open(&mountpoint)
            && mount.device().ok() == status.device
        {
            return Ok(Some((Box::new(mount), mountpoint)));
        }
    }
    Ok(None)
}

/// Whether a mount of an account has no connection to the server now.
pub(in crate::files) fn is_disconnected(account: &str) -> bool {
    control::of_account(account).any(|status| status.disconnected.is_some())
}

/// Says which mounts of an account no process serves any more.
pub(in crate::files) fn warn_of_dead(account: &str) {
    let mut entries = mountinfo::all().unwrap_or_default();
    entries.retain(|entry| entry.source == account && stale::is_own(entry));
    for entry in entries.iter().filter(|entry| stale::is_stale(entry)) {
        let place = entry.mountpoint.display().to_string();
        complain(format_args!(
            "xfer: warning: {0}: no process serves this mount any more; remove it with: xfer unmount {0}",
            Shown(&place)
        ));
    }
}

/// A number that rises whenever something may have arrived in the inbox of a mount. Waits until it is
/// another than `seen`.
///
/// # Errors
/// If the mount has ended.
pub(in crate::files) fn news(mountpoint: &Path, seen: Option<u64>) -> Result<u64, Failure> {
    control::inbox_news(mountpoint, seen).unwrap_or_else(|| {
        let line = format!("{}: it is not mounted any more", mountpoint.display());
        Err(Failure::new(Exit::NotMounted, line))
    })
}

/// Waits for a while, until an account may be mounted.
///
/// # Errors
/// Never; a system without mounts has one.
pub(in crate::files) fn await_mount(account: &str) -> Result<(), Failure> {
    let Ok(table) = File::open("/proc/self/mountinfo") else {
        sleep(RETRY);
        return Ok(());
    };
    let is_source = |entry: &mountinfo::Entry| entry.source == account;
    let is_mounting = mountinfo::all().is_ok_and(|all| all.iter().any(is_source));
    let longest = if is_mounting { MOUNTING_MAX } else { MOUNTS_MAX };
    // The kernel signals a change of the table so (proc_pid_mountinfo(5)).
    let mut changed = [PollFd::new(&table, PollFlags::PRI | PollFlags::ERR)];
    let longest = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: 0 };
    let _ = poll(&mut changed, Some(&longest));
    Ok(())
}

/// The place in a tree that a path of this machine leads to. A link at its end is not followed.
pub(super) fn place_of(text: &OsStr) -> Option<OsString> {
    if text.as_bytes().starts_with(b":") || !matches!(Either::parse(text), Ok(Either::Here(_))) {
        return None;
    }
    let path = mountpoint::resolve_parent(Path::new(text)).ok()?;
    let (mountpoint, account) = control::mount_around(&path)?;
    let below = path.strip_prefix(mountpoint).ok()?;
    // With a `/`, digits and a colon at the beginning are no port.
    let whole = [account.as_bytes(), b":/", below.as_os_str().as_bytes()].concat();
    Some(OsString::from_vec(whole))
}
