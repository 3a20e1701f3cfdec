//! Signals as events that can be waited for beside a file, for a while.
//!
//! **Invariant:** a signal that was ignored (as SIGHUP is under `nohup`) stays ignored.
//! **Invariant:** once a [`Caught`] is dropped, each signal does what it did before.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// The signals that end a program, and that which stops it, as a user sends them.
pub const OF_USERS: [c_int; 5] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGTSTP];

/// Takes the numbers of signals from the handler to whoever waits. Never closed: a handler that
/// runs on another thread may be about to write to it.
static PIPE: OnceLock<Pipe> = OnceLock::new();

/// Whether there is a [`Caught`].
static IN_USE: AtomicBool = AtomicBool::new(false);

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// Signals that are caught for as long as this lives. There can be one at a time.
#[derive(Debug)]
pub struct Caught {
    before: Vec<(c_int, libc::sigaction)>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipe")
    }
}

/// What was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The file can be read, or is at its end.
    Readable,
    /// A signal came.
    Signal(c_int),
}

impl Caught {
    /// Catches `signals` from now on.
    ///
    /// # Errors
    /// If the system refuses, or signals are caught already.
    pub fn new(signals: &[c_int]) -> io::Result<Caught> {
        let pipe = pipe()?;
        if IN_USE.swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // What came last time, after it was waited for.
        while rustix::io::read(&pipe.reader, &mut [0; 64]).is_ok() {}
        let mut caught = Caught { before: Vec::with_capacity(signals.len()) };
        for signal in signals {
            let before = set(*signal, &handled())?;
            if before.sa_sigaction == libc::SIG_IGN {
                set(*signal, &before)?;
            } else {
                caught.before.push((*signal, before));
            }
        }
        Ok(caught)
    }

    /// Waits until `file` can be read or a signal comes; a signal is told first.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(&self, file: impl AsFd) -> io::Result<Event> {
        let pipe = pipe()?;
        loop {
            let mut waited = [
                PollFd::new(&pipe.reader, PollFlags::IN),
                PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN),
            ];
            match poll(&mut waited, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_readable = !waited[1].revents().is_empty();
            let mut number = [0];
            match rustix::io::read(&pipe.reader, &mut number) {
                Ok(1) => return Ok(Event::Signal(c_int::from(number[0]))),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) if is_readable => {
                    return Ok(Event::Readable);
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Goes on catching until the process ends: it is about to, and a second signal must not cut
    /// its last words short.
    pub fn until_the_end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // Can't fail: the number and the action were good when they were set.
            let _ = set(*signal, before);
        }
        IN_USE.store(false, Ordering::Release);
    }
}

/// Stops this process as SIGTSTP does when nobody catches it; comes back when it is continued.
pub fn stop() {
    // SAFETY: `raise` takes a number and touches no memory of ours.
    unsafe { libc::raise(libc::SIGTSTP) };
}

fn pipe() -> io::Result<&'static Pipe> {
    if let Some(pipe) = PIPE.get() {
        return Ok(pipe);
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok(PIPE.get_or_init(|| Pipe { reader, writer }))
}

fn handled() -> libc::sigaction {
    // SAFETY: all zeros are a valid `sigaction`: the default action, an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = note as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    action
}

/// Sets what a signal does; gives what it did.
fn set(signal: c_int, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: both pointers are good for the call, and `note` is async-signal-safe.
    let result = unsafe { libc::sigaction(signal, action, before.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled `before`.
    Ok(unsafe { before.assume_init() })
}

/// The handler. Does only what a handler may: an atomic load and a `write`, keeping `errno`.
extern "C" fn note(signal: c_int) {
    use std::os::fd::AsRawFd;
    let Some(pipe) = PIPE.get() else { return };
    let number = [signal as u8];
    // SAFETY: `errno` is this thread's own, the pipe is never closed, and one byte is there to be
    // written. A pipe that is full holds signals enough.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(pipe.writer.as_raw_fd(), number.as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn raise(signal: c_int) {
        // SAFETY: as in `stop`.
        unsafe { libc::raise(signal) };
    }

    /// One test, since what signals do belongs to the whole process.
    #[test]
    fn signals_are_events_until_they_do_again_what_they_did_before() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut ignored = handled();
        ignored.sa_sigaction = libc::SIG_IGN;
        set(libc::SIGHUP, &ignored).unwrap();
        let caught = Caught::new(&OF_USERS).unwrap();
        assert!(Caught::new(&OF_USERS).is_err());
        raise(libc::SIGHUP);
        raise(libc::SIGTERM);
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(caught.wait(&reader).unwrap(), Event::Signal(libc::SIGTERM));
        assert_eq!(caught.wait(&reader).unwrap(), Event::Readable);
        raise(libc::SIGINT);
        drop(caught);
        // What came before and was not waited for is not told now.
        let caught = Caught::new(&OF_USERS).unwrap();
        assert_eq!(caught.wait(&reader).unwrap(), Event::Readable);
        drop(caught);
        let now = set(libc::SIGTERM, &ignored).unwrap();
        assert_eq!(now.sa_sigaction, libc::SIG_DFL);
        assert_eq!(set(libc::SIGHUP, &ignored).unwrap().sa_sigaction, libc::SIG_IGN);
    }
}
