//! What a command is going to do: which node goes where. What can't be done is left out, and said.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::report::Report;
use super::tree::Meta;

/// A file, link or directory, and where it goes.
pub(super) struct Job {
    pub(super) from: PathBuf,
    pub(super) meta: Meta,
    pub(super) to: PathBuf,
}

/// Why one of two is left out.
pub(super) const SAME_PLACE: &str = "another file of this command goes to the same place";

/// Leaves out all but the first of those that go to the same place. `shown` is a source as users read it.
pub(super) fn without_collisions(
    jobs: &mut Vec<Job>,
    (report, what): (&Report, &str),
    shown: impl Fn(&Path) -> PathBuf,
) {
    let mut taken = BTreeSet::new();
    jobs.retain(|job| {
        let is_first = taken.insert(job.to.clone());
        if !is_first {
            report.fail_with(what, &shown(&job.from), SAME_PLACE);
        }
        is_first
    });
}

/// Makes the directories, each before those in it, and returns those that could not be made. What was to go into
/// one of these is left out. `make` says whether it has made one, and otherwise why not. Once nothing more can be
/// done, no more are tried.
pub(super) fn make_directories(
    directories: &mut Vec<Job>,
    jobs: &mut Vec<Job>,
    report: &Report,
    make: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let mut unmade: Vec<PathBuf> = Vec::new();
    let is_left_out =
        |job: &Job, unmade: &[PathBuf]| unmade.iter().any(|above| job.to.starts_with(above));
    directories.retain(|directory| {
        if is_left_out(directory, &unmade) {
            return false;
        }
        let is_made = !report.is_over() && make(&directory.to);
        if !is_made {
            unmade.push(directory.to.clone());
        }
        is_made
    });
    jobs.retain(|job| !is_left_out(job, &unmade));
    unmade
}
