//! Random operations by several processes on two directories. The directories must not differ
//! afterwards, and no operation may return different results on the two.
//!
//! The processes work on the same names. Mostly they take turns, so that results can be compared;
//! for a while all work at once, each in its own tree. The operations are all that a filesystem may
//! receive, except those that FUSE can't do or that reveal nothing about a filesystem: see
//! `docs/SEMANTICS.md`.

mod operation;
mod draw;
mod script;
mod side;
mod calls;
mod marks;
mod planted;
mod worker;
mod team;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Random;
use crate::snapshot::snapshot_of_what_was_set;
pub use planted::Plant;
use script::Script;
use team::Worker;
pub use worker::run;
use worker::{Answer, Order};

/// The number of worker processes.
const WORKERS: usize = 4;

/// The number of directories above a root. Links may lead up by one level each, and operations that
/// go that far must find the same on both sides.
const LEVELS_ABOVE: usize = 12;

/// A description of a difference.
pub type Difference = String;

/// Two directories, with the processes that work in them.
#[derive(Debug)]
pub struct Contest {
    random: Random,
    sides: [PathBuf; 2],
    plant: Option<Plant>,
    workers: Vec<Worker>,
    succeeded: BTreeSet<String>,
}

impl Contest {
    /// A contest in two directories, with an optional planted bug in the second.
    pub fn new(seed: u64, local: &Path, remote: &Path, plant: Option<Plant>) -> Contest {
        let sides = [local.to_owned(), remote.to_owned()];
        Contest {
            random: Random::new(seed),
            sides,
            plant,
            workers: Vec::new(),
            succeeded: BTreeSet::new(),
        }
    }

    /// Starts the processes. One of them drops root's rights, if this process has them.
    pub fn begin(&mut self) {
        self.workers = (0..WORKERS).map(|_| Worker::start()).collect();
        if rustix::process::geteuid().is_root() {
            self.workers[WORKERS - 1].ask(&Order::BecomeUser);
        }
    }

    /// Ends the processes, which closes everything that they hold open.
    pub fn end(&mut self) {
        self.workers.clear();
    }

    /// Lets the processes work on one tree, in turns.
    ///
    /// # Errors
    /// The first difference.
    pub fn take_turns(&mut self, count: usize) -> Result<(), Difference> {
        let order = self.begin_in("together");
        self.workers.iter_mut().for_each(|worker| {
            worker.ask(&order);
        });
        let script = Script::new(self.random.number(), WORKERS);
        let workers = &mut self.workers;
        let succeeded = script.play(count, |step| {
            let (operation, timed) = (step.operation.clone(), step.timed);
            match workers[step.worker].ask(&Order::Apply { operation, timed }) {
                Answer::Applied { outcomes } => outcomes,
                other @ (Answer::Done | Answer::Compared { .. }) => unreachable!("{other:?}"),
            }
        })?;
        self.succeeded.extend(succeeded);
        Ok(())
    }

    /// Lets the processes work at once, each in a tree of its own, while this thread runs `beside`.
    ///
    /// # Errors
    /// The first difference that each process found.
    pub fn work_at_once(&mut self, count: usize, beside: impl FnOnce()) -> Result<(), Difference> {
        for index in 0..WORKERS {
            let order = self.begin_in(&format!("alone-{index}"));
            self.workers[index].ask(&order);
        }
        for worker in &mut self.workers {
            let seed = self.random.number();
            worker.tell(&Order::Alone { seed, count: count / WORKERS });
        }
        beside();
        let answers: Vec<Answer> = self.workers.iter_mut().map(Worker::answer).collect();
        for answer in answers {
            match answer {
                Answer::Compared { succeeded } => self.succeeded.extend(succeeded?),
                Answer::Done | Answer::Applied { .. } => unreachable!("{answer:?}"),
            }
        }
        Ok(())
    }

    /// Compares everything.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self) -> Result<(), Difference> {
        self.compare_in("")
    }

    /// Compares only the tree in which the processes take turns.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare_a_part(&self) -> Result<(), Difference> {
        self.compare_in("together")
    }

    /// The number of operation kinds that never succeeded.
    pub fn never_succeeded(&self) -> usize {
        operation::KINDS - self.succeeded.len()
    }

    fn compare_in(&self, tree: &str) -> Result<(), Difference> {
        let [local, remote] = self.sides.each_ref().map(|side| {
            fs::create_dir_all(side.join(tree)).unwrap();
            snapshot_of_what_was_set(&side.join(tree))
        });
        let paths: BTreeSet<_> = local.keys().chain(remote.keys()).collect();
        for path in paths {
            let (expected, found) = (local.get(path), remote.get(path));
            if expected != found {
                return Err(format!("{}:\n{expected:?}\n{found:?}", path.display()));
            }
        }
        Ok(())
    }

    /// The order to work in a tree, which is created on both sides if missing.
    fn begin_in(&self, tree: &str) -> Order {
        let roots = self.sides.each_ref().map(|side| {
            let top = side.join(tree);
            let root = (0..LEVELS_ABOVE).fold(top.clone(), |above, _| above.join("level"));
            fs::create_dir_all(&root).unwrap();
            // Including the levels above, where links may lead.
            root.ancestors().take(LEVELS_ABOVE + 1).for_each(let_all_in);
            let above = fs::read_dir(&top).unwrap().count();
            assert_eq!(above, 1, "links led out of {}", top.display());
            add_crowd(&root);
            root
        });
        Order::Begin { roots, plant: self.plant }
    }
}

/// Makes a crowd, unless the name is taken.
fn add_crowd(root: &Path) {
    let crowd = root.join(draw::CROWD);
    if fs::create_dir(&crowd).is_ok() {
        let_all_in(&crowd);
        calls::listings::crowd().for_each(|name| fs::write(crowd.join(name), "").unwrap());
    }
}

fn let_all_in(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}
