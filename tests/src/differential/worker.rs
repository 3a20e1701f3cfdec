//! A process that does what it is told on both sides, with its own open files and mappings.
//!
//! It reads orders from standard input, one a line, and answers each with one line.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::draw::IDS;
use super::operation::Operation;
use super::planted::Plant;
use super::script::Script;
use super::side::{Outcome, Side};

/// An order to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Work on these roots from now on, and close everything held in others.
    Begin { roots: [PathBuf; 2], plant: Option<Plant> },
    /// Do one operation.
    Apply { operation: Operation, timed: bool },
    /// Draw and do this many operations alone, and compare the results.
    Alone { seed: u64, count: usize },
    /// Give up root's rights.
    BecomeUser,
}

/// A worker's answer to an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Applied { outcomes: (Outcome, Outcome) },
    Compared { succeeded: Result<Vec<String>, String> },
}

/// Serves orders until standard input ends.
pub fn run() {
    // Created modes must not depend on the environment that the test was started in.
    rustix::process::umask(Mode::from_bits_retain(0o022));
    let mut sides = None;
    for line in std::io::stdin().lock().lines() {
        let answer = obey(&mut sides, serde_json::from_str(&line.unwrap()).unwrap());
        let mut text = serde_json::to_string(&answer).unwrap();
        text.push('\n');
        std::io::stdout().write_all(text.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
}

fn obey(sides: &mut Option<[Side; 2]>, order: Order) -> Answer {
    match order {
        Order::Begin { roots: [local, remote], plant } => {
            *sides = Some([Side::new(&local, None), Side::new(&remote, plant)]);
            Answer::Done
        }
        Order::Apply { operation, timed } => {
            Answer::Applied { outcomes: apply(sides, &operation, timed) }
        }
        Order::Alone { seed, count } => {
            let script = Script::new(seed, 1);
            let succeeded = script.play(count, |step| apply(sides, &step.operation, step.timed));
            let succeeded = succeeded.map(|kinds| kinds.into_iter().collect());
            Answer::Compared { succeeded }
        }
        Order::BecomeUser => {
            become_user();
            Answer::Done
        }
    }
}

fn apply(sides: &mut Option<[Side; 2]>, operation: &Operation, timed: bool) -> (Outcome, Outcome) {
    let [local, remote] = sides.as_mut().unwrap();
    (local.apply(operation, timed), remote.apply(operation, timed))
}

/// For the whole process: rustix changes only the calling thread.
fn become_user() {
    let (id, groups) = (IDS[1], [IDS[1], IDS[2]]);
    // SAFETY: the list has the stated number of groups and lives through the call; the other
    // arguments are numbers.
    let results = unsafe {
        [
            libc::setgroups(groups.len(), groups.as_ptr()),
            libc::setresgid(id, id, id),
            libc::setresuid(id, id, id),
        ]
    };
    assert_eq!(results, [0; 3], "{}", std::io::Error::last_os_error());
}
