//! Moving to the background once the mount is usable.
//!
//! The process forks at its very beginning, while it has a single thread and no runtime. The parent
//! waits. The child does the work, at first still on the terminal so that it can ask questions and
//! show errors. When the mount is usable, it lets go of the terminal and tells the parent, which
//! exits with 0. If the child ends earlier, the parent exits with the child's exit code.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use xfer_terminal::signals::{self, Caught, Event};

use crate::process::exit::Exit;

/// Whether this process has let go of the terminal.
static DETACHED: AtomicBool = AtomicBool::new(false);

/// Whether this process is in the background, with no terminal to print on.
pub fn is_detached() -> bool {
    DETACHED.load(Ordering::Relaxed)
}

/// The two processes after the fork.
pub enum Forked {
    /// The process that was started; it waits for the other.
    Parent(Waiting),
    /// The process that does the work.
    Child(Attached),
}

/// The parent's side of the fork.
pub struct Waiting {
    child: Pid,
    ready: OwnedFd,
}

/// The child's side of the fork, while it still has the terminal.
pub struct Attached {
    ready: OwnedFd,
    inherited: Vec<RawFd>,
}

/// Forks. Must be called before there is any other thread.
///
/// # Errors
/// If the system can't create another process.
pub fn fork() -> io::Result<Forked> {
    let (reader, writer) = io::pipe()?;
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    // SAFETY: the process has a single thread (the caller ensures it; `main` does nothing before),
    // so the child inherits no held lock and no half-changed state.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        _ if pid < 0 => Err(io::Error::last_os_error()),
        None => {
            drop(reader);
            let inherited = descriptors_but(&writer)?;
            Ok(Forked::Child(Attached { ready: writer, inherited }))
        }
        Some(child) => Ok(Forked::Parent(Waiting { child, ready: reader })),
    }
}

/// All open descriptors except the standard ones and `own`.
fn descriptors_but(own: &OwnedFd) -> io::Result<Vec<RawFd>> {
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?.flatten().filter_map(number).collect();
    // The descriptor that listed them is closed by now.
    let is_open = |fd: &RawFd| fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    let others = open.into_iter().filter(|fd| *fd > libc::STDERR_FILENO && *fd != own.as_raw_fd());
    Ok(others.filter(is_open).collect())
}

/// Why the child's outcome is unknown or bad.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// A signal that users send ended it.
    #[error("interrupted")]
    Interrupted,
    /// Another signal killed it.
    #[error("the mount's process was killed by signal {0}")]
    Killed(i32),
    /// A system call failed.
    #[error("cannot wait for the mount's process: {0}")]
    System(#[from] io::Error),
}

impl Waiting {
    /// Waits until the mount is usable or the child has ended; returns the exit code.
    ///
    /// The child handles signals, since it may be asking on the terminal. The parent forwards them
    /// and outlives the child, so that the shell gets the terminal back as it was.
    ///
    /// # Errors
    /// If waiting fails, or a signal ended the child.
    pub fn wait(self) -> Result<u8, WaitError> {
        let mut caught = Caught::new(&signals::OF_USERS)?;
        while let Event::Signal(signal) = caught.wait(&self.ready)? {
            let _ = self.signal(signal);
            if signal == libc::SIGTSTP && self.child_stops()? {
                drop(caught);
                signals::stop();
                let _ = self.signal(libc::SIGCONT);
                caught = Caught::new(&signals::OF_USERS)?;
            }
        }
        let mut byte = [0];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.ready, &mut byte));
        if read.map_err(io::Error::from)? == 1 {
            return Ok(0);
        }
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.child), WaitOptions::empty())
        });
        let (_, status) =
            status.and_then(|ended| ended.ok_or(Errno::CHILD)).map_err(io::Error::from)?;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ok(u8::try_from(code).unwrap_or(Exit::Other.code())),
            (None, Some(signal)) if signals::OF_USERS.contains(&signal) => {
                Err(WaitError::Interrupted)
            }
            (None, Some(signal)) => Err(WaitError::Killed(signal)),
            (None, None) => Err(io::Error::from(Errno::CHILD).into()),
        }
    }

    fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
        Ok(rustix::process::kill_process(self.child, signal)?)
    }

    /// Waits a little for the child to stop, and tells whether it has. A process in an orphaned
    /// process group does not stop.
    fn child_stops(&self) -> io::Result<bool> {
        const STOPS_WITHIN: Duration = Duration::from_secs(1);
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let end = Instant::now() + STOPS_WITHIN;
        while Instant::now() < end {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::Pid(self.child), options) {
                Ok(Some(_)) => return Ok(true),
                Ok(None) | Err(Errno::INTR) => std::thread::sleep(LOOK_EVERY),
                Err(Errno::CHILD) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

impl Attached {
    /// Lets go of the terminal, the working directory and all inherited descriptors, then tells the
    /// parent that the mount is usable. Not earlier: a password file may be among the descriptors.
    ///
    /// # Errors
    /// If a system call fails; the parent then goes on waiting.
    pub fn detach(self) -> io::Result<()> {
        rustix::process::setsid()?;
        rustix::process::chdir("/")?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        for fd in self.inherited {
            // SAFETY: it was open before this program's own code opened anything, so no other value
            // owns it, and it can't have been closed and reused since.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        DETACHED.store(true, Ordering::Relaxed);
        match rustix::io::write(&self.ready, &[1]) {
            // The parent was killed; the mount is usable all the same.
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
