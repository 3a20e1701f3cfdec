//! Taking mounts away: in order, or out of sight at once.
//!
//! Not left to fuser: its way can be tried only once, and says nothing when the helper fails.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// Unmounts, if nothing is in use there.
///
/// # Errors
/// A line that says why not: most likely that it is busy.
pub fn unmount(path: &Path) -> Result<(), String> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unmount_by_helper(path),
        Err(Errno::BUSY) => Err(in_use(path)),
        Err(error) => Err(format!("unmount: {error}")),
    }
}

fn unmount_by_helper(path: &Path) -> Result<(), String> {
    let output =
        Command::new("fusermount3").env("LC_ALL", "C").args(["-u", "--"]).arg(path).output();
    let output = output.map_err(|error| format!("fusermount3: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(in_use(path)),
        false => Err(said.trim().to_owned()),
    }
}

fn in_use(path: &Path) -> String {
    format!(
        "a program has a file open or its working directory there; see: fuser -vm {}",
        path.display()
    )
}

/// Takes a mount out of sight at once, even if it is dead or busy, in the ways that this user may
/// have; the caller sees whether one worked.
pub fn detach(path: &Path) {
    let helper = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !helper.is_ok_and(|status| status.success()) {
        let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
    }
}
