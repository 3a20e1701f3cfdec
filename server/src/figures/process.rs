//! The figures of this process, as the kernel has them.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What the process takes. A figure is absent where `/proc` can't be read.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// When it started, in seconds since 1970.
    pub started_secs: f64,
    /// The time that it has used of all cores, in seconds.
    pub cpu_secs: f64,
    /// Its memory (resident), in bytes.
    pub resident_bytes: Option<u64>,
    /// Its open descriptors.
    pub open_descriptors: Option<u64>,
    /// The most descriptors that it may have; absent if there is no limit.
    pub descriptors_max: Option<u64>,
}

impl Process {
    pub(super) fn read(started: SystemTime) -> Process {
        let since_1970 = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Process {
            started_secs: since_1970.as_secs_f64(),
            cpu_secs: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: resident_bytes(),
            open_descriptors: open_descriptors(),
            descriptors_max: getrlimit(Resource::Nofile).current,
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

fn open_descriptors() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them was opened to count them.
    Some(count.saturating_sub(1))
}
