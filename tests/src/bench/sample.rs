//! One run of a row on a filesystem: set up, timed, checked, taken down.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::filesystem::{Filesystem, Mounted, Sides};
use super::fixtures::Fixtures;
use super::profile::{Profile, Profiling};
use super::proof;
use super::requests::{Counting, Requests};
use super::rows::{Before, Row};
use super::timed::{Deadline, Said, Stop, run};
use crate::network::{Network, Traffic};

/// The measurements of one run.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The time until the program ended and its data was durable.
    pub took: Duration,
    /// The traffic over the cable in that time.
    pub traffic: Traffic,
    /// The resources that the processes used in that time; peaks count from the start of a process.
    pub used: Sides,
    /// The server's counters in that time.
    pub counts: BTreeMap<String, u64>,
    /// The kernel's requests to the filesystem in that time.
    pub requests: Option<Requests>,
}

/// The purpose of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose<'a> {
    /// Measure its time.
    Time,
    /// Count the kernel's requests, which makes it slower.
    Requests,
    /// Draw a flame graph of each process into this directory, which makes it slower.
    Profile(&'a Path),
}

/// The place where rows are run.
pub struct Stage<'a> {
    /// The network between client and server.
    pub network: &'a Network,
    /// The stored data, and the files that programs bring.
    pub fixtures: &'a Fixtures,
    /// The directory in which each run makes its own.
    pub directory: &'a Path,
    /// The time limit of a program, until durable.
    pub limit: Duration,
}

impl Stage<'_> {
    /// Runs a row on a filesystem, set up for this run.
    ///
    /// # Errors
    /// If the setup, the program, or the proof of its work fails, or the program takes too
    /// long.
    pub fn measure(
        &self,
        filesystem: &dyn Filesystem,
        row: &Row,
        purpose: Purpose<'_>,
    ) -> Result<Sample, Stop> {
        // The harness fails by panicking; here a panic must spoil one figure and not the whole table.
        let measured = catch_unwind(AssertUnwindSafe(|| {
            let place = tempfile::Builder::new().prefix("xfer-bench-").tempdir_in(self.directory);
            let place = place.unwrap();
            let fixture = self.fixtures.directory(row.fixture);
            let mut mounted = filesystem.mount(self.network, place.path(), &fixture);
            let (sample, output, profile) = self.work(row, &mut *mounted, purpose, place.path())?;
            proof::check(row, self.fixtures, &mut *mounted, &output, place.path())?;
            if let (Some(profile), Purpose::Profile(directory)) = (profile, purpose) {
                profile.draw(directory, row.name);
            }
            Ok(sample)
        }));
        measured.unwrap_or_else(|panic| Err(Stop::Failed(message(&*panic))))
    }

    fn work(
        &self,
        row: &Row,
        mounted: &mut dyn Mounted,
        purpose: Purpose<'_>,
        place: &Path,
    ) -> Result<(Sample, Said, Option<Profile>), Stop> {
        let root = mounted.root().to_owned();
        self.prepare(row, &root)?;
        let (counting, profiling) = match purpose {
            Purpose::Time => (None, None),
            Purpose::Requests => (Counting::begin(&root), None),
            Purpose::Profile(_) => {
                (None, mounted.pids().map(|pids| Profiling::begin(pids, &place.join("perf.data"))))
            }
        };
        let before = (self.network.traffic(), mounted.usage(), counts(mounted));
        let mut command = row.command(self.fixtures, &root);
        command.stdout(row.proof.stdout());
        let (begin, deadline) = (Instant::now(), Deadline::after(self.limit));
        let output = run(&mut command, deadline)?;
        if row.proof.changes() {
            mounted.settle(deadline)?;
        }
        let took = begin.elapsed();
        let (traffic, used) = (self.network.traffic() - before.0, mounted.usage());
        let profile = profiling.map(Profiling::end);
        let requests = counting.and_then(|counting| counting.requests());
        let mut counts = counts(mounted);
        counts.iter_mut().for_each(|(name, count)| *count -= before.2.get(name).unwrap_or(&0));
        let used =
            Sides { client: used.client - before.1.client, server: used.server - before.1.server };
        Ok((Sample { took, traffic, used, counts, requests }, output, profile))
    }

    /// Brings the caches into the state that the row asks for.
    fn prepare(&self, row: &Row, root: &Path) -> Result<(), Stop> {
        let mut command = row.command(self.fixtures, root);
        let deadline = Deadline::after(self.limit);
        match row.before {
            Before::Warm => run(command.stdout(Stdio::null()), deadline).map(drop)?,
            Before::Cold => empty_page_caches(),
        }
        // The program and its input files must come from memory and not from the disk.
        for word in command.get_args().map(PathBuf::from).filter(|word| word.is_absolute()) {
            let mut file = File::open(word).unwrap();
            std::io::copy(&mut file, &mut std::io::sink()).unwrap();
        }
        run(Command::new(command.get_program()).arg("--version").stdout(Stdio::null()), deadline)?;
        run(Command::new("sync").arg("--version").stdout(Stdio::null()), deadline).map(drop)
    }
}

/// Empties the kernel's caches, for rows with cold caches.
pub(super) fn empty_page_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("benches run as root");
}

fn counts(mounted: &dyn Mounted) -> BTreeMap<String, u64> {
    let Some(Value::Object(counts)) = mounted.counts() else { return BTreeMap::new() };
    counts.into_iter().filter_map(|(name, count)| Some((name, count.as_u64()?))).collect()
}

pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it failed without a word".to_owned())
}
