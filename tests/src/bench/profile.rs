//! Profiles the processes: perf(1) samples them while a row's program runs, and inferno draws a flame
//! graph of each side.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::filesystem::Pids;
use crate::programs::Running;
use crate::{PATIENCE, shell, wait_until};

/// perf, sampling until it is told to stop.
pub struct Profiling {
    perf: Running,
    profile: Profile,
}

/// The samples that perf took.
pub struct Profile {
    data: PathBuf,
    pids: Pids,
}

impl Profiling {
    /// Begins to sample processes; perf writes its samples to `data`.
    pub fn begin(pids: Pids, data: &Path) -> Profiling {
        let mut perf = Command::new("perf");
        // This clock also works on machines without cycle counters, such as many virtual ones.
        perf.args(["record", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,16384"]);
        perf.args(["-p", &format!("{},{}", pids.client, pids.server), "-o"]).arg(data);
        let mut perf = Running::start(&mut perf);
        wait_until("perf to begin", PATIENCE, || {
            assert!(perf.is_running(), "{}", perf.said());
            data.metadata().is_ok_and(|data| data.len() > 0)
        });
        Profiling { perf, profile: Profile { data: data.to_owned(), pids } }
    }

    /// Ends the sampling.
    pub fn end(mut self) -> Profile {
        self.perf.signal(Signal::INT);
        self.perf.ended_within(PATIENCE);
        self.profile
    }
}

impl Profile {
    /// Draws `NAME-client.svg` and `NAME-server.svg`. A process without samples gets no graph: a
    /// row may be shorter than the interval between two samples.
    pub fn draw(&self, directory: &Path, name: &str) {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        for (side, pid) in [("client", self.pids.client), ("server", self.pids.server)] {
            let script = format!(
                "folded=$(perf script -i '{}' --pid {pid} 2>/dev/null | inferno-collapse-perf)
                 rm -f '{name}-{side}.svg'
                 if [ -n \"$folded\" ]; then
                     echo \"$folded\" | inferno-flamegraph --title '{name}, {side}' > '{name}-{side}.svg'
                 fi",
                self.data.display(),
            );
            shell(directory, &script);
        }
    }
}
