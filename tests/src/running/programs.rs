//! Runs programs, ours and the system's, each with a time limit.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::waiting::holds_for;
use crate::{PATIENCE, wait_until};

/// Waits until a program has printed a line. Its output stays open: a program may write a line in
/// several parts, and a closed pipe would kill it at the second.
#[track_caller]
pub fn wait_for_line(program: &mut Child, line: &str) {
    let output = program.stdout.as_mut().expect("its output is a pipe");
    let mut said = vec![0; line.len() + 1];
    output.read_exact(&mut said).expect("it says something");
    assert_eq!(String::from_utf8_lossy(&said), format!("{line}\n"));
}

/// Has another program run a command: its words and its environment come after the other's.
pub fn run_by<'a>(other: &'a mut Command, command: &Command) -> &'a mut Command {
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other.arg(command.get_program()).args(command.get_args())
}

/// The result of a program that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Finished {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Fails the test unless the program exited with `code` and one error line; returns that line.
    #[track_caller]
    pub fn refused(self, code: u8) -> String {
        assert_eq!(self.code, Some(i32::from(code)), "{self}");
        let line = self.stderr.trim_end();
        assert_eq!(line.lines().count(), 1, "not one clear line: {self}");
        line.to_owned()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finished { command, code, stdout, stderr } = self;
        write!(f, "{command}\nexit code: {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

/// The path of one of the workspace's own programs.
///
/// # Panics
/// If it was not built: cargo builds programs of other members only when it builds them all.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    let hint = "run `cargo build --workspace` first, as tests/run.sh does";
    assert!(path.exists(), "{} is missing: {hint}", path.display());
    path
}

/// Runs a command to its end, with empty standard input.
///
/// # Panics
/// If it does not end within `limit` (it is then killed), or its output stays open for longer.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Finished {
    run_with_input(command, b"", limit)
}

/// Like [`run_within`], with `input` on its standard input.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Finished {
    let text = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{text}: {error}"));
    // A program that does not read its input closes it, which is not a failure.
    let _ = child.stdin.take().unwrap().write_all(input);
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let deadline = Instant::now() + limit;
    let status = ended_by(&mut child, deadline);
    let rest = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let missing = "it ended, but something it started keeps its output open";
    let stdout = stdout.recv_timeout(rest()).unwrap_or_else(|_| format!("({missing})"));
    let stderr = stderr.recv_timeout(rest()).unwrap_or_else(|_| format!("({missing})"));
    let code = status.and_then(|status| status.code());
    let finished = Finished { command: text, code, stdout, stderr };
    assert!(status.is_some(), "not ended within {limit:?}: {finished}");
    must_be_ours(&finished.command, &finished.stderr);
    finished
}

/// Fails the test if a program said a library's sentence, with a link for those who program with it (unless it
/// repeats what its command has), or one thing twice in an error line.
pub(super) fn must_be_ours(command: &str, said: &str) {
    let links = said.split_whitespace().filter(|word| word.contains("://"));
    let inner = |word: &'_ str| word.trim_matches(|c: char| c.is_ascii_punctuation()).to_owned();
    let foreign = links.map(inner).find(|link| !command.contains(link));
    assert_eq!(foreign, None, "a program refers its user to a page of the web: {said}");
    let is_complaint = |line: &&str| COMPLAINTS.iter().any(|program| line.starts_with(program));
    let twice = said.lines().filter(is_complaint).find_map(doubled);
    assert_eq!(twice, None, "a program says a thing twice in a line: {said}");
}

/// What error lines of our programs begin with.
const COMPLAINTS: [&str; 3] = ["xfer: ", "xfer-mount: ", "xfer-server: "];

/// A part of an error line that stands in it twice, as when two places name the same thing or the same reason.
fn doubled(line: &str) -> Option<&str> {
    let mut seen = BTreeSet::new();
    let parts = line.split([':', ';', ',']).map(str::trim);
    // A word or a number, such as a port, may well come again.
    parts.filter(|part| part.contains(' ') || part.contains('/')).find(|part| !seen.insert(*part))
}

/// A function of shell scripts that ends them unless a command fails. After `!`, the shell goes on either
/// way, except at the end.
pub const FAILS: &str =
    r#"fails() { if "$@" 2>/dev/null; then echo "did not fail: $*" >&2; exit 99; fi; }"#;

/// Runs a shell script in a directory; returns its output without the last line end.
///
/// # Panics
/// If any of its commands fails, or it takes too long.
#[track_caller]
pub fn shell(directory: &Path, script: &str) -> String {
    let mut command = Command::new("bash");
    let script = format!("{FAILS}\n{script}");
    command.args(["-euo", "pipefail", "-c", &script]).current_dir(directory).env("LC_ALL", "C");
    let finished = run_within(&mut command, PATIENCE).succeeded();
    finished.stdout.trim_end_matches('\n').to_owned()
}

fn ended_by(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Whether no thread of a process runs or will run by itself: it has stopped or ended, or waits in the kernel
/// for something (proc_pid_stat(5)).
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before the state may have anything in it.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| "TtDZX".contains(state))
    })
}

/// How long the output of a program that has ended is waited for.
const OUTPUT_READ_WITHIN: Duration = Duration::from_secs(2);

/// A running program of ours, with its output so far.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
}

impl Running {
    /// Starts the program.
    pub fn start(command: &mut Command) -> Running {
        let lines = Arc::new(Mutex::new(Vec::new()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A process group, so that a wrapping command (a tracer) and its program are killed together.
        command.process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let readers = [
            collect(child.stdout.take().unwrap(), lines.clone()),
            collect(child.stderr.take().unwrap(), lines.clone()),
        ];
        Running { child, lines, readers }
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far, on both streams.
    pub fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line in which `find` finds a value, and returns the value.
    pub fn line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let mut found = None;
        let mut over = false;
        wait_until(what, PATIENCE, || {
            found = self.lines.lock().unwrap().iter().find_map(|line| find(line));
            over = found.is_none() && self.child.try_wait().unwrap().is_some();
            found.is_some() || over
        });
        found.unwrap_or_else(|| panic!("ended without {what}:\n{}", self.said()))
    }

    /// Sends a signal to the process. One that is to stop has stopped when this returns: until then, each of
    /// its threads may still answer something.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        // A process that has already ended needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
        if signal == rustix::process::Signal::STOP {
            wait_until("it to stop", PATIENCE, || stands_still(self.pid()));
        }
    }

    /// Waits for the process to exit and returns its exit code; `None` if a signal ended it. All that it
    /// said is known then.
    pub fn ended_within(&mut self, limit: Duration) -> Option<i32> {
        match ended_by(&mut self.child, Instant::now() + limit) {
            Some(status) => {
                // A program that it started may have its output longer than that.
                holds_for(OUTPUT_READ_WITHIN, || !self.readers.iter().all(JoinHandle::is_finished));
                status.code()
            }
            None => panic!("still running after {limit:?}:\n{}", self.said()),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.pid() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
        let said = self.said();
        if std::thread::panicking() {
            println!("--- process {} said:\n{said}", self.pid());
        } else {
            must_be_ours("", &said);
        }
    }
}

fn collect(stream: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::doubled;

    #[test]
    fn what_a_line_says_twice_is_found() {
        let twice = "xfer: /mnt/a: no such directory: cannot mount: no such directory";
        assert_eq!(doubled(twice), Some("no such directory"));
        assert_eq!(doubled("xfer: /mnt/a: not mounted; run: xfer unmount /mnt/a"), None);
        assert_eq!(doubled("xfer: /mnt/a: busy: /mnt/a"), Some("/mnt/a"));
        assert_eq!(doubled("xfer: a@h:1: host h, port 1: refused"), None);
    }
}
