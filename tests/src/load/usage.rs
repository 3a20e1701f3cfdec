//! What a process takes up, as /proc tells.

use std::ops::Sub;
use std::time::Duration;

/// The unit of times in /proc/PID/stat: the same in every Linux of our time.
const TICK: Duration = Duration::from_millis(10);

/// What a process took up by some moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Memory in RAM, in bytes.
    pub resident: u64,
    /// The most that it ever was, in bytes.
    pub resident_max: u64,
    /// Threads.
    pub threads: u64,
    /// Time on processors.
    pub cpu: Duration,
}

impl Usage {
    /// Of the process with this number.
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

    /// Of this process.
    pub fn own() -> Usage {
        Usage::of(std::process::id())
    }
}

/// What was added: memory and threads beyond those of the earlier moment, and time since.
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

/// Lets this process open as many files as the system allows: each session takes up to four.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn number(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Time as a user and in the kernel: the 14th and 15th field, the second being a name in brackets.
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
