//! How much memory xfer takes while far more than that is written and read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::filesystem::{Filesystem, Mounted, Sides, Xfer};
use super::fixtures::Fixture;
use super::sample::{Stage, empty_page_caches, message};
use super::timed::{Deadline, Stop, run};

/// The most memory that the client may take: what it keeps of data and of changes, and some more.
/// Less than what users are told, since the tree is small and there is one session.
pub const CLIENT_MAX: u64 = (256 + 256 + 100) << 20;

/// The most memory that the server may take; likewise.
pub const SERVER_MAX: u64 = 200 << 20;

/// How long one file may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// By whom.
    pub used: Sides,
    /// To write all of it, until durable.
    pub wrote: Duration,
    /// To read all of it, and compare.
    pub read: Duration,
}

/// Writes `files` copies of the file `huge` to xfer, and reads them.
///
/// # Errors
/// If anything fails, or a file does not read as it was written.
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
    // The kernel has much of it, too, and would not ask xfer.
    empty_page_caches();
    let begin = Instant::now();
    for copy in &copies {
        let mut compare = Command::new("cmp");
        run(compare.arg(&huge).arg(copy).stdout(Stdio::piped()), Deadline::after(LIMIT))?;
    }
    Ok(Memory { used: mounted.usage(), wrote, read: begin.elapsed() })
}
