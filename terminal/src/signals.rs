//! Signals as events that can be waited for together with a file, for a while.
//!
//! **Invariant:** a signal that was ignored (as SIGHUP is under `nohup`) stays ignored.
//! **Invariant:** once a [`Caught`] is dropped, each signal has its previous action again.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_os = "linux")]
use libc::__errno_location as errno_location;
#[cfg(not(target_os = "linux"))]
use libc::__error as errno_location;
use libc::c_int;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};

/// The signals that users send to end a program, and the one that stops it.
pub const OF_USERS: [c_int; 5] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGTSTP];

/// Carries signal numbers from the handler to the waiting thread. Never closed: a handler that runs
/// on another thread may be about to write to it.
static PIPE: OnceLock<Pipe> = OnceLock::new();

/// Whether a [`Caught`] exists.
static IN_USE: AtomicBool = AtomicBool::new(false);

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// Catches signals as long as it lives. Only one can exist at a time.
#[derive(Debug)]
pub struct Caught {
    before: Vec<(c_int, libc::sigaction)>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipe")
    }
}

/// The result of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The file is readable, or at its end.
    Readable,
    /// A signal arrived.
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
        // Discard signals that arrived last time and were not waited for.
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

    /// Waits until `file` is readable or a signal arrives; a signal is reported first.
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

    /// Catches signals until the process ends. It is about to end, and a second signal must not cut
    /// its last output short.
    pub fn until_the_end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // This can't fail: the kernel itself returned this action for this signal.
            let _ = set(*signal, before);
        }
        IN_USE.store(false, Ordering::Release);
    }
}

/// Stops this process as an uncaught SIGTSTP does; returns when it is continued.
pub fn stop() {
    // SAFETY: `raise` takes a number and accesses no memory of ours.
    unsafe { libc::raise(libc::SIGTSTP) };
}

/// Whether this process ignores a signal.
///
/// # Errors
/// If there is no such signal.
pub fn is_ignored(signal: c_int) -> io::Result<bool> {
    let mut now = MaybeUninit::zeroed();
    // SAFETY: the pointer is valid for the call, which changes no action.
    if unsafe { libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has initialised `now`.
    let now: libc::sigaction = unsafe { now.assume_init() };
    Ok(now.sa_sigaction == libc::SIG_IGN)
}

fn pipe() -> io::Result<&'static Pipe> {
    if let Some(pipe) = PIPE.get() {
        return Ok(pipe);
    }
    let (reader, writer) = io::pipe()?;
    ioctl_fionbio(&reader, true)?;
    ioctl_fionbio(&writer, true)?;
    Ok(PIPE.get_or_init(|| Pipe { reader: reader.into(), writer: writer.into() }))
}

fn handled() -> libc::sigaction {
    // SAFETY: an all-zero `sigaction` is valid: the default action, an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = note as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    action
}

/// Sets a signal's action and returns the previous one.
fn set(signal: c_int, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: both pointers are valid for the call, and `note` is async-signal-safe.
    let result = unsafe { libc::sigaction(signal, action, before.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has initialised `before`.
    Ok(unsafe { before.assume_init() })
}

/// The handler. Async-signal-safe: only an atomic load and a `write`, with `errno` preserved.
extern "C" fn note(signal: c_int) {
    use std::os::fd::AsRawFd;
    let Some(pipe) = PIPE.get() else { return };
    let number = [signal as u8];
    // SAFETY: `errno` is thread-local, the pipe is never closed, and `number` holds the one byte to
    // write. A failed write means that the pipe is full, and then it holds enough signals.
    unsafe {
        let errno = *errno_location();
        libc::write(pipe.writer.as_raw_fd(), number.as_ptr().cast(), 1);
        *errno_location() = errno;
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

    /// One test, since signal actions are shared by the whole process.
    #[test]
    fn signals_are_events_until_they_do_again_what_they_did_before() {
        let (reader, writer) = io::pipe().unwrap();
        let mut ignored = handled();
        ignored.sa_sigaction = libc::SIG_IGN;
        set(libc::SIGHUP, &ignored).unwrap();
        assert!(is_ignored(libc::SIGHUP).unwrap());
        assert!(!is_ignored(libc::SIGTERM).unwrap());
        let caught = Caught::new(&OF_USERS).unwrap();
        assert!(Caught::new(&OF_USERS).is_err());
        raise(libc::SIGHUP);
        raise(libc::SIGTERM);
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(caught.wait(&reader).unwrap(), Event::Signal(libc::SIGTERM));
        assert_eq!(caught.wait(&reader).unwrap(), Event::Readable);
        raise(libc::SIGINT);
        drop(caught);
        // A signal that arrived before and was not waited for must not be reported now.
        let caught = Caught::new(&OF_USERS).unwrap();
        assert_eq!(caught.wait(&reader).unwrap(), Event::Readable);
        drop(caught);
        let now = set(libc::SIGTERM, &ignored).unwrap();
        assert_eq!(now.sa_sigaction, libc::SIG_DFL);
        assert_eq!(set(libc::SIGHUP, &ignored).unwrap().sa_sigaction, libc::SIG_IGN);
    }
}
