//! Resources that processes use: CPU time and peak memory.

use std::collections::HashMap;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::time::Duration;

/// The kernel reports times in hundredths of a second (`USER_HZ`), whatever its own clock.
const TICKS_PER_S: f64 = 100.0;

/// The resources used by some processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time.
    pub cpu: Duration,
    /// The peak of resident memory, in bytes; the sum for several processes.
    pub peak: u64,
}

impl Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage { cpu: self.cpu + other.cpu, peak: self.peak + other.peak }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(all: I) -> Usage {
        all.fold(Usage::default(), Add::add)
    }
}

impl Sub for Usage {
    type Output = Usage;

    /// The usage since `earlier`. Peaks can't be subtracted.
    fn sub(self, earlier: Usage) -> Usage {
        Usage { cpu: self.cpu.saturating_sub(earlier.cpu), peak: self.peak }
    }
}

/// The usage so far of a process and all its descendants.
pub fn of_family(pid: u32) -> Usage {
    let parents = parents();
    let is_member = |mut pid_of: u32| loop {
        if pid_of == pid {
            return true;
        }
        match parents.get(&pid_of) {
            Some(parent) => pid_of = *parent,
            None => return false,
        }
    };
    parents.keys().filter(|one| is_member(**one)).map(|one| of_process(*one)).sum()
}

fn parents() -> HashMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect()
}

/// A process that has ended counts as zero.
fn of_process(pid: u32) -> Usage {
    let ticks = |stat: Vec<String>| -> u64 {
        // utime, stime, and the same for reaped children.
        stat.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
    };
    let cpu = stat(pid).map_or(0.0, |stat| ticks(stat) as f64 / TICKS_PER_S);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Usage { cpu: Duration::from_secs_f64(cpu), peak: kib.unwrap_or(0) << 10 }
}

/// The fields of `/proc/PID/stat` after the name, which may contain spaces: the state, the parent, ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}
