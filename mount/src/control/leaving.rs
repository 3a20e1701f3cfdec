//! Leaving a mount that is to be unmounted: this very process must not keep it busy.

use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::process::exit::{Exit, Failure};

/// Leaves the mount, if the working directory is in it, and closes the descriptors in it that this process
/// has inherited.
///
/// # Errors
/// If its output goes there.
pub(super) fn leave(mountpoint: &Path) -> Result<(), Failure> {
    let other = |error: std::io::Error| Failure::new(Exit::Other, error.to_string());
    std::env::set_current_dir("/").map_err(other)?;
    for fd in within(mountpoint) {
        match fd {
            libc::STDIN_FILENO => {
                let null = File::open("/dev/null").map_err(other)?;
                rustix::stdio::dup2_stdin(null).map_err(|error| other(error.into()))?;
            }
            libc::STDOUT_FILENO | libc::STDERR_FILENO => {
                let line = format!(
                    "{}: the output of this command goes into the mount and keeps it busy; send it elsewhere",
                    mountpoint.display()
                );
                return Err(Failure::new(Exit::Other, line));
            }
            // SAFETY: it was inherited, since `xfer` opens nothing in a mount; so nothing in this
            // process owns it.
            inherited => drop(unsafe { OwnedFd::from_raw_fd(inherited) }),
        }
    }
    Ok(())
}

/// The descriptors that refer to something in the mount. The links are not followed, which would ask it.
fn within(mountpoint: &Path) -> Vec<RawFd> {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let is_within = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(mountpoint));
    let within = open.filter(|entry| is_within(&entry.path()));
    within.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
