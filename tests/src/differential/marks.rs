//! The times that an operation changes: POSIX says for each operation which of a node's times it
//! marks. Also records its effect on modes and links immediately.
//!
//! A change of a time is certain only if the clock has moved since it was last set. A local
//! filesystem's clock may stand still for some milliseconds, so wait for it to move before each
//! operation. Access times are left out: a local filesystem records some reads and not others.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{FileType, Stat, fstat};
use rustix::time::{ClockId, clock_gettime};

use super::calls::attributes::node;
use super::operation::{Operation, Target};
use super::side::Side;
use crate::PATIENCE;

/// The nodes that an operation names, and their directories.
pub(super) struct Watched {
    nodes: Vec<Option<(OwnedFd, Times)>>,
}

struct Times {
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl Times {
    fn of(stat: &Stat) -> Times {
        Times {
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Watched {
    /// Records the times before an operation.
    pub(super) fn new(side: &Side, operation: &Operation) -> Watched {
        let targets = operation.targets();
        let both = targets.iter().flat_map(|target| [parent(target), Some(target.clone())]);
        let mut found: Vec<_> = both.map(|target| node(side, &target?).ok()).collect();
        if let Operation::WriteMapped { map, .. } = operation {
            found.push(side.maps[*map].as_ref().and_then(|mapping| mapping.node().ok()));
        }
        let with_times = |node: Option<OwnedFd>| {
            let node = node?;
            let times = times(&node)?;
            Some((node, times))
        };
        let nodes: Vec<_> = found.into_iter().map(with_times).collect();
        let known = nodes.iter().flatten().map(|(_, times)| times);
        wait_for_clock(known.map(|times| times.ctime).max().unwrap_or_default());
        Watched { nodes }
    }

    /// The times that have changed since.
    pub(super) fn marks(&self) -> Vec<String> {
        let mark = |node: &Option<(OwnedFd, Times)>| {
            let now = node.as_ref().and_then(|(node, _)| fstat(node).ok());
            let (Some(now), Some((_, before))) = (now, node) else { return "-".to_owned() };
            let (mode, links) = (now.st_mode, now.st_nlink);
            let now = Times::of(&now);
            let mtime = if now.mtime == before.mtime { "" } else { "mtime " };
            let ctime = if now.ctime == before.ctime { "" } else { "ctime" };
            format!("{mode:o} {links} {mtime}{ctime}")
        };
        self.nodes.iter().map(mark).collect()
    }
}

/// The directory of a path's last component.
fn parent(target: &Target) -> Option<Target> {
    match target {
        Target::Path { path, .. } => {
            let path =
                path.trim_end_matches('/').rsplit_once('/').map_or(".", |(parent, _)| parent);
            Some(Target::Path { path: path.to_owned(), follow: true })
        }
        Target::Open { .. } => None,
    }
}

/// A node's times. Those of a pipe are left out: its bytes never reach the filesystem.
fn times(node: &OwnedFd) -> Option<Times> {
    let stat = fstat(node).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    (kind != FileType::Fifo).then(|| Times::of(&stat))
}

fn wait_for_clock(latest: (i64, u64)) {
    let start = Instant::now();
    loop {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if (now.tv_sec, now.tv_nsec as u64) > latest {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the clock stands still before {latest:?}");
        std::thread::yield_now();
    }
}
