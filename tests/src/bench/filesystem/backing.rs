//! The directory where a filesystem that stores plain files keeps them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bench::timed::{Deadline, Stop, run};
use crate::programs::Running;
use crate::run_within;
use crate::wait_until;

/// The time limit for setting something up.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Makes the directory, with the content of `fixture`.
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

/// Makes the whole directory durable with one system call on its machine. This favours filesystems
/// whose own `sync DIR` does not reach it.
///
/// # Errors
/// If that fails or exceeds the deadline.
pub fn settle(backing: &Path, deadline: Deadline) -> Result<(), Stop> {
    run(Command::new("sync").arg("-f").arg(backing), deadline).map(drop)
}

/// Unmounts a program's mount and ends the program.
pub fn unmount(root: &Path) {
    if crate::mount::is_mounted(root) {
        crate::world::watchdog::detach(root);
    }
}
