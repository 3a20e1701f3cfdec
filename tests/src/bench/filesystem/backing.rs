//! The directory in which a filesystem that keeps plain files keeps them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bench::timed::{Deadline, Stop, run};
use crate::programs::Running;
use crate::run_within;
use crate::wait_until;

/// How long setting something up may take.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Makes the directory, with what is in `fixture`.
pub fn make(place: &Path, fixture: &Path) -> PathBuf {
    let backing = place.join("backing");
    let mut copy = Command::new("cp");
    run_within(copy.arg("--archive").arg(fixture).arg(&backing), LIMIT).succeeded();
    run_within(Command::new("sync").arg("-f").arg(&backing), LIMIT).succeeded();
    backing
}

/// Makes the directory to mount at.
pub fn mount_point(place: &Path) -> PathBuf {
    let root = place.join("mnt");
    std::fs::create_dir(&root).unwrap();
    root
}

/// Waits until a program that stays in the foreground has mounted.
pub fn wait_mounted(running: &mut Running, root: &Path) {
    wait_until("the mount to be usable", LIMIT, || {
        assert!(running.is_running(), "it ended:\n{}", running.said());
        crate::mount::is_mounted(root)
    });
}

/// Makes all of the directory durable, by one system call on its machine: generous to those whose
/// own `sync DIR` does not reach it.
///
/// # Errors
/// If that fails, or takes too long.
pub fn settle(backing: &Path, deadline: Deadline) -> Result<(), Stop> {
    run(Command::new("sync").arg("-f").arg(backing), deadline).map(drop)
}

/// Takes away what a program has mounted, and the program.
pub fn unmount(root: &Path) {
    if crate::mount::is_mounted(root) {
        crate::watchdog::detach(root);
    }
}
