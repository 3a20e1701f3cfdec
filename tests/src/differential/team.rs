//! The worker processes, as their parent sees them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::worker::{Answer, Order};
use crate::programs::program;

/// A worker process and the pipes to it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    pub(super) fn start() -> Worker {
        let mut command = Command::new(program("differential-worker"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (orders, answers) = (child.stdin.take(), child.stdout.take().unwrap());
        Worker { child, orders, answers: BufReader::new(answers) }
    }

    pub(super) fn tell(&mut self, order: &Order) {
        let mut text = serde_json::to_string(order).unwrap();
        text.push('\n');
        self.orders.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The answer to the previous order.
    pub(super) fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let ended = |error| panic!("{error}: a worker ended: {:?}", self.child.wait());
        serde_json::from_str(&line).unwrap_or_else(ended)
    }

    pub(super) fn ask(&mut self, order: &Order) -> Answer {
        self.tell(order);
        self.answer()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        // Closing the pipe ends the process, which closes everything that it holds.
        self.orders = None;
        let _ = self.child.wait();
    }
}
