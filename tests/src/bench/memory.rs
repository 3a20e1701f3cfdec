//! Measures xfer's memory while it writes and reads far more data than that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::filesystem::{Filesystem, Mounted, Sides, Xfer};
use super::fixtures::Fixture;
use super::sample::{Stage, empty_page_caches, message};
use super::timed::{Deadline, Stop, run};

/// The memory bound of the client: its data cache and its log, with an allowance. It is below the
/// bound documented for users, since the tree is small and there is one session.
pub const CLIENT_MAX: u64 = (256 + 256 + 100) << 20;

/// The memory bound of the server; below the documented one for the same reason.
pub const SERVER_MAX: u64 = 200 << 20;

/// The time limit for one file.
const LIMIT: Duration = Duration::from_secs(600);

/// The result of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The resources used at both ends.
    pub used: Sides,
    /// The time to write everything, until durable.
    pub wrote: Duration,
    /// The time to read everything and compare it.
    pub read: Duration,
}

/// Writes `files` copies of the file `huge` to xfer, and reads them.
///
/// # Errors
/// If anything fails, or a file reads differently from how it was written.
pub fn measure(stage: &Stage<'_>, files: usize) -> Result<Memory, Stop> {
    let measured = catch_unwind(AssertUnwindSafe(|| {
        let place = tempfile::Builder::new().prefix("xfer-bench-").tempdir_in(stage.directory);
        let (place, empty) = (place.unwrap(), stage.fixtures.directory(Fixture::Empty));
        let mut mounted = Xfer.mount(stage.network, place.path(), &empty);
        write_and_read(stage, &mut *mounted, files)
    }));
    measured.unwrap_or_else(|panic| Err(Stop::Failed(message(&*panic))))
}

fn write_and_read(
    stage: &Stage<'_>,
    mounted: &mut dyn Mounted,
    files: usize,
) -> Result<Memory, Stop> {
    let huge = stage.fixtures.directory(Fixture::Huge).join("huge");
    let copies: Vec<_> = (0..files).map(|at| mounted.root().join(format!("copy-{at}"))).collect();
    let begin = Instant::now();
    for copy in &copies {
        run(Command::new("cp").arg(&huge).arg(copy), Deadline::after(LIMIT))?;
    }
    mounted.settle(Deadline::after(LIMIT))?;
    let wrote = begin.elapsed();
    // Otherwise the kernel would answer much of it from its cache without asking xfer.
    empty_page_caches();
    let begin = Instant::now();
    for copy in &copies {
        let mut compare = Command::new("cmp");
        run(compare.arg(&huge).arg(copy).stdout(Stdio::piped()), Deadline::after(LIMIT))?;
    }
    Ok(Memory { used: mounted.usage(), wrote, read: begin.elapsed() })
}
