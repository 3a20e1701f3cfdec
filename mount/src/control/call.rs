//! The side of `xfer`: finds the mounts of this user, asks them, shows what they say.
//!
//! Plain blocking I/O; every read has a deadline. Mount points themselves are not touched, so a
//! mount that hangs can't make this hang; but for one that no process answers for.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xfer_protocol::shown::{Shown, shown_json};

use super::{Answer, Ask, LINE_BYTES_MAX, Status, directory, find, show};
use crate::cli::XferCommand;
use crate::exit::{Exit, Failure};
use crate::{mountinfo, mountpoint, stale};

/// How long a mount may say nothing while it is asked something.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long the kernel's mount may take to go once the mount's process says that it is done.
const GONE_MAX: Duration = Duration::from_secs(10);

/// After which time a mount that stays is taken for a copy in this mount namespace.
const COPY_AFTER: Duration = Duration::from_secs(1);

/// Does what `xfer` is asked to do; results go to standard output.
///
/// # Errors
/// If a directory is not a mount of this user, or its mount can't do what is asked.
pub fn run(command: XferCommand) -> Result<(), Failure> {
    match command {
        XferCommand::Status { mountpoint: None, json } => status_of_all(json),
        XferCommand::Status { mountpoint: Some(path), json } => status_of(&path, json),
        XferCommand::Sync { mountpoint } => {
            let call = Call::find(&mountpoint)?;
            call.follow(Ask::Sync)
        }
        XferCommand::Unmount { mountpoint } => unmount(&mountpoint),
    }
}

fn unmount(path: &Path) -> Result<(), Failure> {
    let call = match Call::find(path) {
        Ok(call) => call,
        Err(failure) => return if remove_stale(path)? { Ok(()) } else { Err(failure) },
    };
    let mountpoint = call.mountpoint.clone();
    call.follow(Ask::Unmount)?;
    wait_until_gone(&mountpoint)
}

/// Removes a mount whose process was killed; whether there was one.
fn remove_stale(path: &Path) -> Result<bool, Failure> {
    let place = mountpoint::resolve(path).unwrap_or_else(|_| path.to_owned());
    let removed = stale::remove_at(&place);
    let removed = removed.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    if removed {
        eprintln!(
            "xfer: {}: removed; no process served it any more. If that was killed, changes that were \
             not yet on the server are lost",
            Shown(&place.to_string_lossy())
        );
    }
    Ok(removed)
}

fn status_of_all(json: bool) -> Result<(), Failure> {
    let mut mounts = Vec::new();
    for call in directory::sockets().into_iter().filter_map(|path| Call::to(&path, path.clone())) {
        match call.status() {
            Ok(status) => mounts.push(status),
            Err(failure) => eprintln!("xfer: {failure}"),
        }
    }
    mounts.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    match (json, mounts.is_empty()) {
        (true, _) => print_json(&mounts),
        (false, true) => print("no xfer mounts\n"),
        (false, false) => print(&show::table(&mounts)),
    }
}

fn status_of(mountpoint: &Path, json: bool) -> Result<(), Failure> {
    let status = Call::find(mountpoint)?.status()?;
    if json { print_json(&status) } else { print(&show::details(&status)) }
}

/// A mount that can be asked one thing.
pub(super) struct Call {
    stream: UnixStream,
    mountpoint: PathBuf,
}

impl Call {
    /// The mount at `path`. The last part of the path is followed, if it is a link, only when
    /// nothing is found without.
    fn find(path: &Path) -> Result<Call, Failure> {
        let unresolved = mountpoint::resolve_parent(path).ok();
        let resolved = || fs::canonicalize(path).ok();
        let at =
            |place: PathBuf| find::socket_of(&place).and_then(|socket| Call::to(&socket, place));
        unresolved.and_then(at).or_else(|| resolved().and_then(at)).ok_or_else(|| {
            let line = format!(
                "{}: not an xfer mount of this user; `xfer status` lists those there are",
                path.display()
            );
            Failure::new(Exit::NotMounted, line)
        })
    }

    /// The mount that listens on `socket`, if it lives.
    pub(super) fn to(socket: &Path, mountpoint: PathBuf) -> Option<Call> {
        Some(Call { stream: connect(socket)?, mountpoint })
    }

    /// How it is.
    pub(super) fn status(mut self) -> Result<Status, Failure> {
        let asked = self.ask(Ask::Status).and_then(|mut answers| next(&mut answers));
        match asked.map_err(|error| self.silent(&error))? {
            Answer::Status(status) => Ok(*status),
            Answer::Failed { why, .. } => Err(self.failed(&why, Exit::Other)),
            Answer::Progress { .. } | Answer::Done => {
                Err(self.failed("it answers something else", Exit::Other))
            }
        }
    }

    /// Asks, and shows progress until it is done.
    fn follow(mut self, ask: Ask) -> Result<(), Failure> {
        let mut answers = self.ask(ask).map_err(|error| self.silent(&error))?;
        let mut meter = Meter::new();
        loop {
            match next(&mut answers).map_err(|error| self.silent(&error))? {
                Answer::Progress { pending_ops, pending_bytes } => {
                    meter.show(&show::pending(pending_ops, pending_bytes));
                }
                Answer::Done => return Ok(()),
                Answer::Failed { why, lost } => {
                    drop(meter);
                    let exit = if lost { Exit::Lost } else { Exit::Other };
                    return Err(self.failed(&why, exit));
                }
                Answer::Status(_) => {
                    return Err(self.failed("it answers something else", Exit::Other));
                }
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> io::Result<BufReader<UnixStream>> {
        let mut line = serde_json::to_vec(&ask)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        Ok(BufReader::new(self.stream.try_clone()?))
    }

    fn failed(&self, why: &str, exit: Exit) -> Failure {
        Failure::new(exit, format!("{}: {why}", self.mountpoint.display()))
    }

    fn silent(&self, error: &io::Error) -> Failure {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock => "the mount's process does not answer".to_owned(),
            io::ErrorKind::UnexpectedEof => {
                "the mount's process ended without an answer; what was written last may be lost"
                    .to_owned()
            }
            _ => format!("the mount's process: {error}"),
        };
        self.failed(&why, Exit::Other)
    }
}

fn next(answers: &mut BufReader<UnixStream>) -> io::Result<Answer> {
    let mut line = Vec::new();
    let length = answers.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Connects to a socket; one that a killed process left behind is removed.
fn connect(path: &Path) -> Option<UnixStream> {
    match UnixStream::connect(path) {
        Ok(stream) => {
            stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
            stream.set_write_timeout(Some(SILENCE_MAX)).ok()?;
            Some(stream)
        }
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = fs::remove_file(path);
            }
            None
        }
    }
}

fn wait_until_gone(mountpoint: &Path) -> Result<(), Failure> {
    const POLL_EVERY: Duration = Duration::from_millis(20);
    let start = Instant::now();
    let mut looked = false;
    while start.elapsed() < GONE_MAX {
        let entry = mountinfo::find(mountpoint)
            .map_err(|error| Failure::new(Exit::Other, format!("/proc: {error}")))?;
        if !entry.is_some_and(|entry| entry.is_fuse()) {
            return Ok(());
        }
        if !looked && start.elapsed() > COPY_AFTER {
            // Unmounted where its process is, but this may be another namespace.
            looked = true;
            let _ = stale::remove_at(mountpoint);
        }
        std::thread::sleep(POLL_EVERY);
    }
    let path = mountpoint.display();
    let line = format!(
        "{path}: everything is durable, but the mount is still there; try: fusermount3 -u {path}"
    );
    Err(Failure::new(Exit::Other, line))
}

/// One line on the terminal that is written again and again; nothing if there is none.
struct Meter {
    terminal: Option<io::Stderr>,
}

impl Meter {
    fn new() -> Meter {
        Meter { terminal: Some(io::stderr()).filter(IsTerminal::is_terminal) }
    }

    fn show(&mut self, text: &str) {
        if let Some(terminal) = &mut self.terminal {
            let _ = write!(terminal, "\r\x1b[Kto be made durable: {text}");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            let _ = write!(terminal, "\r\x1b[K");
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    print(&format!("{}\n", shown_json(&text)))
}

/// A reader that has seen enough (`xfer status | head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, format!("standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
