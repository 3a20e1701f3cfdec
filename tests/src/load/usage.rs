//! A process's resource usage, from /proc.

use std::ops::Sub;
use std::time::Duration;

/// The unit of times in /proc/PID/stat, the same on all present Linux systems.
const TICK: Duration = Duration::from_millis(10);

/// A process's usage up to some moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The peak of resident memory, in bytes.
    pub resident_max: u64,
    /// The number of threads.
    pub threads: u64,
    /// CPU time.
    pub cpu: Duration,
}

impl Usage {
    /// The usage of the process with this id.
    pub fn of(pid: u32) -> Usage {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        Usage {
            resident: number(&status, "VmRSS:") << 10,
            resident_max: number(&status, "VmHWM:") << 10,
            threads: number(&status, "Threads:"),
            cpu: TICK * ticks(&stat),
        }
    }

    /// The usage of this process.
    pub fn own() -> Usage {
        Usage::of(std::process::id())
    }
}

/// The difference between two moments: memory and threads added, and CPU time used.
impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            resident: self.resident.saturating_sub(earlier.resident),
            resident_max: self.resident_max.saturating_sub(earlier.resident),
            threads: self.threads.saturating_sub(earlier.threads),
            cpu: self.cpu - earlier.cpu,
        }
    }
}

/// Raises this process's limit of open files as far as allowed: each session needs up to four.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn number(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// User and system time: the 14th and 15th fields; the second is a name in brackets.
fn ticks(stat: &str) -> u32 {
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes_up() {
        let before = Usage::own();
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let added = Usage::own() - before;
        assert!(before.threads > 0 && added.resident > 24 << 20, "{added:?}");
        drop(block);
    }
}
