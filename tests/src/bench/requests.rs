//! Counts the requests that the kernel sends to a FUSE filesystem, by kind.
//!
//! The kernel writes each request into a trace buffer (tracepoint `fuse:fuse_request_send`), which
//! is read afterwards. Tracing takes time, so timed runs are not counted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The number of requests of each kind.
pub type Requests = BTreeMap<String, u64>;

const TRACEFS: &str = "/sys/kernel/tracing";

/// The size of each CPU's buffer in KiB: room for some hundred thousand requests.
const BUFFER_KIB: &str = "16384";

/// Counts the requests of one mount until it is dropped.
#[derive(Debug)]
pub struct Counting {
    instance: PathBuf,
}

impl Counting {
    /// Begins to count, if the kernel supports it and `root` is the mount point of a FUSE filesystem.
    pub fn begin(root: &Path) -> Option<Counting> {
        let tracefs = Path::new(TRACEFS);
        if !tracefs.join("instances").exists() {
            let mount = ["-t", "tracefs", "tracefs", TRACEFS];
            let _ = Command::new("mount").args(mount).output();
        }
        let instance = tracefs.join(format!("instances/xfer-bench-{}", std::process::id()));
        fs::create_dir(&instance).ok()?;
        let counting = Counting { instance };
        let event = Path::new("events/fuse/fuse_request_send");
        let device = fs::metadata(root).ok()?.dev();
        // The device of a FUSE filesystem has major number 0, so the minor number is its connection.
        let filter = format!("connection == {}", rustix::fs::minor(device));
        counting.set("buffer_size_kb", BUFFER_KIB)?;
        counting.set(event.join("filter"), &filter)?;
        counting.set(event.join("enable"), "1")?;
        Some(counting)
    }

    /// The counts so far; `None` if the buffer overflowed.
    pub fn requests(&self) -> Option<Requests> {
        self.set("tracing_on", "0")?;
        for cpu in fs::read_dir(self.instance.join("per_cpu")).ok()?.flatten() {
            let stats = fs::read_to_string(cpu.path().join("stats")).ok()?;
            let overrun = stats.lines().find_map(|line| line.strip_prefix("overrun: "))?;
            if overrun != "0" {
                return None;
            }
        }
        Some(parse(&fs::read_to_string(self.instance.join("trace")).ok()?))
    }

    fn set(&self, file: impl AsRef<Path>, value: &str) -> Option<()> {
        fs::write(self.instance.join(file), value).ok()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Lines like `cat-17 [000] ..... 1.5: fuse_request_send: connection 54 req 4 opcode 1 (FUSE_LOOKUP) len 44`.
fn parse(trace: &str) -> Requests {
    let mut requests = Requests::new();
    for line in trace.lines().filter(|line| line.contains(" fuse_request_send: ")) {
        let kind = line.split_once(" opcode ").map_or("", |(_, rest)| rest);
        let number = kind.split(' ').next().unwrap_or_default();
        let name = kind.split_once("(FUSE_").and_then(|(_, rest)| rest.split_once(')'));
        let name = name.map_or_else(|| format!("opcode {number}"), |(name, _)| name.to_owned());
        *requests.entry(name).or_default() += 1;
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_their_kind() {
        let line = |kind| {
            format!(
                " cat-17 [000] ..... 1.5: fuse_request_send: connection 54 req 4 opcode {kind} len 4\n"
            )
        };
        let trace = [
            "# header\n".to_owned(),
            line("1 (FUSE_LOOKUP)"),
            line("1 (FUSE_LOOKUP)"),
            line("53 (53)"),
        ];
        let expected = [("LOOKUP".to_owned(), 2), ("opcode 53".to_owned(), 1)];
        assert_eq!(parse(&trace.concat()), Requests::from(expected));
    }
}
