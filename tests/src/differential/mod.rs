//! Random operations of several processes on two directories, which must not differ afterwards, nor
//! in anything that an operation gives on the way.
//!
//! The processes work on the same names. Mostly they take turns, so that what each gives can be
//! compared; for a while each works in a tree of its own, all at once. The operations are all
//! that a filesystem is asked for, except what one of FUSE can't do or what says nothing about
//! a filesystem: see `docs/SEMANTICS.md`.

mod operation;

mod draw;

mod script;

mod side;

mod data;

mod mappings;

mod locks;

mod listings;

mod naming;

mod attributes;

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

/// How many processes work.
const WORKERS: usize = 4;

/// How many directories are above a root. Links may lead up, one step each; operations that go
/// that far find the same on both sides.
const LEVELS_ABOVE: usize = 12;

/// What differs, in words.
pub type Difference = String;

/// Two directories, and the processes that work in them.
#[derive(Debug)]
pub struct Contest {
    random: Random,
    sides: [PathBuf; 2],
    plant: Option<Plant>,
    workers: Vec<Worker>,
    succeeded: BTreeSet<String>,
}

impl Contest {
    /// A contest in two directories, with a bug planted in the second if that is asked for.
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

    /// Starts the processes. One of them has no rights of root, if this one has them.
    pub fn begin(&mut self) {
        self.workers = (0..WORKERS).map(|_| Worker::start()).collect();
        if rustix::process::geteuid().is_root() {
            self.workers[WORKERS - 1].ask(&Order::BecomeUser);
        }
    }

    /// Ends the processes, and with them all that they hold open.
    pub fn end(&mut self) {
        self.workers.clear();
    }

    /// Has the processes work on one tree, in turns.
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

    /// Has the processes work at once, each in a tree of its own. Meanwhile, `beside` is done.
    ///
    /// # Errors
    /// The first difference of each.
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

    /// Compares all that there is.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self) -> Result<(), Difference> {
        self.compare_in("")
    }

    /// Compares what the processes made taking turns, and leaves all else alone.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare_a_part(&self) -> Result<(), Difference> {
        self.compare_in("together")
    }

    /// The kinds of operation that never succeeded are how many.
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

    /// The order to work in a tree, which is made on both sides if it is not there.
    fn begin_in(&self, tree: &str) -> Order {
        let roots = self.sides.each_ref().map(|side| {
            let top = side.join(tree);
            let root = (0..LEVELS_ABOVE).fold(top.clone(), |above, _| above.join("level"));
            fs::create_dir_all(&root).unwrap();
            // Also into what is above, which links led to.
            root.ancestors().take(LEVELS_ABOVE + 1).for_each(let_all_in);
            let above = fs::read_dir(&top).unwrap().count();
            assert_eq!(above, 1, "links led out of {}", top.display());
            add_crowd(&root);
            root
        });
        Order::Begin { roots, plant: self.plant }
    }
}

/// Makes a crowd, unless something has that name.
fn add_crowd(root: &Path) {
    let crowd = root.join(draw::CROWD);
    if fs::create_dir(&crowd).is_ok() {
        let_all_in(&crowd);
        listings::crowd().for_each(|name| fs::write(crowd.join(name), "").unwrap());
    }
}

fn let_all_in(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}
