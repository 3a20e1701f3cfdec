//! Runs programs, timed to the microsecond and abandoned after a limit.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::signal::unix::{SignalKind, signal};

/// How often to check for an interrupt while a program runs.
const POLL: Duration = Duration::from_millis(200);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT and SIGTERM end the run, so that mounts and servers are removed in order.
pub fn stop_on_signals() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            let mut interrupt = signal(SignalKind::interrupt()).unwrap();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
}

/// Whether the user interrupted the run.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Why there is no figure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The run exceeded this limit.
    Over(Duration),
    /// The run failed.
    Failed(String),
}

impl Stop {
    /// The failure for a run that the user interrupted.
    pub fn interrupted() -> Stop {
        Stop::Failed("interrupted".to_owned())
    }
}

/// A program's standard output; empty if that is discarded.
pub type Said = Vec<u8>;

/// The end of a time limit.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
    at: Instant,
}

impl Deadline {
    /// A deadline this long from now.
    pub fn after(limit: Duration) -> Deadline {
        Deadline { limit, at: Instant::now() + limit }
    }

    /// The time left.
    ///
    /// # Errors
    /// If no time is left, or the user interrupted the run.
    pub fn left(self) -> Result<Duration, Stop> {
        if is_interrupted() {
            return Err(Stop::interrupted());
        }
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Stop::Over(self.limit)) } else { Ok(left) }
    }
}

/// Runs a program to its end and returns its output.
///
/// # Errors
/// If it fails, or exceeds the deadline and is killed.
pub fn run(command: &mut Command, deadline: Deadline) -> Result<Said, Stop> {
    let text = format!("{command:?}");
    let failed = |what: String| Stop::Failed(format!("{text}: {what}"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let status = wait(&mut child, deadline)?;
    let said = |stream: Option<Receiver<Said>>| stream.and_then(|said| said.recv().ok());
    let (stdout, stderr) = (said(stdout).unwrap_or_default(), said(stderr).unwrap_or_default());
    if status.success() {
        return Ok(stdout);
    }
    let said = [stdout, stderr].concat();
    Err(failed(format!("{status}: {}", String::from_utf8_lossy(&said))))
}

fn wait(child: &mut Child, deadline: Deadline) -> Result<ExitStatus, Stop> {
    let pid = Pid::from_raw(child.id() as i32).expect("a child's number is not 0");
    let ended = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status);
        }
        let left = deadline.left().inspect_err(|_| {
            // Don't wait for it: a program blocked in a filesystem may die only when that goes.
            let _ = child.kill();
        })?;
        let left = Timespec::try_from(left.min(POLL)).expect("a short time");
        let _ = poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left));
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> Receiver<Said> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}
