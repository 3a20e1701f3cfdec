//! Freezing programs as the kernel does before it suspends the machine: by a control group.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{PATIENCE, wait_until};

/// The freezer of the first version of control groups; else there is the second.
const FIRST: &str = "/sys/fs/cgroup/freezer";

/// The root of the second version.
const SECOND: &str = "/sys/fs/cgroup";

/// A group of programs that are frozen together. Dropping it thaws them.
#[derive(Debug)]
pub struct Freezer {
    group: PathBuf,
    is_first: bool,
}

impl Freezer {
    /// A new group with this process in it.
    pub fn new(name: &str, pid: u32) -> Freezer {
        let is_first = Path::new(FIRST).exists();
        let root = if is_first { FIRST } else { SECOND };
        let group = Path::new(root).join(format!("xfer-{name}-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
        Freezer { group, is_first }
    }

    /// Freezes it, and waits until all of it is frozen.
    pub fn freeze(&self) {
        self.set(true);
        wait_until("the programs to be frozen", PATIENCE, || self.is_frozen());
    }

    /// Thaws it.
    pub fn thaw(&self) {
        self.set(false);
    }

    fn set(&self, frozen: bool) {
        let (file, states) = match self.is_first {
            true => ("freezer.state", ["THAWED", "FROZEN"]),
            false => ("cgroup.freeze", ["0", "1"]),
        };
        fs::write(self.group.join(file), states[usize::from(frozen)]).unwrap();
    }

    fn is_frozen(&self) -> bool {
        let (file, state) = match self.is_first {
            true => ("freezer.state", "FROZEN"),
            false => ("cgroup.events", "frozen 1"),
        };
        fs::read_to_string(self.group.join(file)).unwrap().contains(state)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set(false);
        // A group goes once its processes have left it or ended.
        let processes = if self.is_first { FIRST } else { SECOND };
        let pids = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            let _ = fs::write(Path::new(processes).join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
