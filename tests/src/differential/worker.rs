//! A process that does what it is told on both sides, with files and mappings of its own.
//!
//! It reads orders from its standard input, one a line, and answers each with a line.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::draw::IDS;
use super::operation::Operation;
use super::planted::Plant;
use super::script::Script;
use super::side::{Outcome, Side};

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To work on these roots from now on, and let go of others.
    Begin { roots: [PathBuf; 2], plant: Option<Plant> },
    /// To do one operation.
    Apply { operation: Operation, timed: bool },
    /// To do as many as this by itself, and to compare.
    Alone { seed: u64, count: usize },
    /// To give up the rights of root.
    BecomeUser,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Applied { outcomes: (Outcome, Outcome) },
    Compared { succeeded: Result<Vec<String>, String> },
}

/// Serves until its input ends.
pub fn run() {
    // What is made by another process must not depend on where that was started.
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

/// For the process as a whole: rustix changes one thread.
fn become_user() {
    let (id, groups) = (IDS[1], [IDS[1], IDS[2]]);
    // SAFETY: the list has as many groups as is said, and lives through the call; the others are
    // given numbers.
    let results = unsafe {
        [
            libc::setgroups(groups.len(), groups.as_ptr()),
            libc::setresgid(id, id, id),
            libc::setresuid(id, id, id),
        ]
    };
    assert_eq!(results, [0; 3], "{}", std::io::Error::last_os_error());
}
