//! The order of operations, and the comparison after each step.

use std::collections::{BTreeSet, VecDeque};

use super::draw;
use super::operation::Operation;
use super::side::Outcome;
use crate::Random;

/// The number of last steps that a failure shows.
const SHOWN: usize = 12;

/// One step: an operation and the process that does it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) worker: usize,
    pub(super) operation: Operation,
    /// Whether times are compared, too.
    pub(super) timed: bool,
}

/// Draws steps, and tracks which comparisons are valid when.
pub(super) struct Script {
    random: Random,
    workers: usize,
    /// Mappings written to and not synced since. A write to mapped memory changes a file's times:
    /// at once on a local filesystem, on FUSE when the kernel writes the page back, which it may do
    /// at any time. POSIX only requires it before the next msync returns.
    unsynced: BTreeSet<(usize, usize)>,
    last: VecDeque<String>,
    succeeded: BTreeSet<String>,
}

impl Script {
    pub(super) fn new(seed: u64, workers: usize) -> Script {
        Script {
            random: Random::new(seed),
            workers,
            unsynced: BTreeSet::new(),
            last: VecDeque::new(),
            succeeded: BTreeSet::new(),
        }
    }

    /// Draws `count` steps and does each on both sides with `apply`. Returns the kinds of operation
    /// that succeeded, or the first difference.
    pub(super) fn play(
        mut self,
        count: usize,
        mut apply: impl FnMut(&Step) -> (Outcome, Outcome),
    ) -> Result<BTreeSet<String>, String> {
        for index in 0..count {
            let step = self.next();
            self.last.push_back(format!("{step:?}"));
            if self.last.len() > SHOWN {
                self.last.pop_front();
            }
            let (expected, found) = apply(&step);
            if expected != found {
                let last: Vec<_> = self.last.into();
                return Err(format!(
                    "step {index}: expected {expected:?}\nfound {found:?}\nafter {}",
                    last.join("\n")
                ));
            }
            self.note(&step, found.result.is_ok());
        }
        Ok(self.succeeded)
    }

    fn next(&mut self) -> Step {
        let random = &mut self.random;
        if let Some((worker, map)) = self.unsynced.first().copied()
            && random.below(8) == 0
        {
            return Step { worker, operation: Operation::SyncMapped { map }, timed: false };
        }
        let worker = random.below(self.workers as u64) as usize;
        let timed = random.below(3) == 0 && self.unsynced.is_empty();
        let operation = draw::operation(random);
        match &operation {
            // Write-back would override the times that were set, and a write to a hole shows up as
            // data only after write-back.
            Operation::SetTimes { .. } | Operation::FindData { .. }
                if !self.unsynced.is_empty() =>
            {
                self.next()
            }
            Operation::WriteMapped { sync: false, .. } => Step { worker, operation, timed: false },
            _ => Step { worker, operation, timed },
        }
    }

    fn note(&mut self, step: &Step, success: bool) {
        if !success {
            return;
        }
        self.succeeded.insert(step.operation.kind());
        match step.operation {
            Operation::WriteMapped { map, sync: false, .. } => {
                self.unsynced.insert((step.worker, map));
            }
            Operation::WriteMapped { map, sync: true, .. }
            | Operation::SyncMapped { map }
            | Operation::Unmap { map }
            | Operation::Map { map, .. } => {
                self.unsynced.remove(&(step.worker, map));
            }
            _ => {}
        }
    }
}
