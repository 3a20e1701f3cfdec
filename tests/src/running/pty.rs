//! A program on its own terminal, with a test that types.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

use crate::programs::run_by;
use crate::{PATIENCE, wait_until};

/// A program and its terminal.
#[derive(Debug)]
pub struct OnPty {
    child: Child,
    terminal: File,
    said: Arc<Mutex<Vec<u8>>>,
    /// The length of the output that [`OnPty::says`] has already consumed.
    read: usize,
    /// Kept open so that the terminal outlives the program and can be inspected.
    slave: OwnedFd,
}

impl OnPty {
    /// Starts a command as a session leader, on a new terminal.
    pub fn start(command: &Command) -> OnPty {
        let (terminal, slave) = open();
        let mut leader = Command::new("setsid");
        run_by(leader.arg("--ctty"), command);
        let end = || slave.try_clone().unwrap();
        let child = leader.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (theirs, mut output) = (said.clone(), terminal.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                theirs.lock().unwrap().extend(&bytes[..len]);
            }
        });
        OnPty { child, terminal, said, read: 0, slave }
    }

    /// Everything on the terminal so far: the program's output and the echo.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// Waits until `text` appears, after the text waited for before.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        wait_until(&format!("{text:?} on the terminal; so far: {}", self.said()), PATIENCE, || {
            let said = self.said.lock().unwrap();
            let rest = String::from_utf8_lossy(&said[self.read..]).into_owned();
            let at = rest.find(text);
            if let Some(at) = at {
                self.read += at + text.len();
            }
            at.is_some()
        });
    }

    /// Types these keys.
    pub fn types(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal echoes typed keys.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the program to exit and returns its exit code; `None` if a signal ended it. All that it
    /// said is known then.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the program on the terminal to end", PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // What comes after it on the terminal is read after it.
        rustix::io::write(&self.slave, b"\0").unwrap();
        wait_until("all of its output", PATIENCE, || {
            self.said.lock().unwrap().pop_if(|last| *last == b'\0').is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for OnPty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- the terminal showed:\n{}", self.said());
        } else {
            super::programs::must_be_ours("", &self.said());
        }
    }
}

/// A new terminal: the user's side and the programs' side.
fn open() -> (File, OwnedFd) {
    let (mut user, mut programs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: the call fills in the two descriptors, and its other arguments may be null.
    let result = unsafe {
        libc::openpty(
            &mut user,
            &mut programs,
            none,
            none.cast_const().cast(),
            none.cast_const().cast(),
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both descriptors are open, and nothing else owns them.
    let pair = unsafe { (File::from_raw_fd(user), OwnedFd::from_raw_fd(programs)) };
    for end in [
        rustix::io::fcntl_setfd(&pair.0, rustix::io::FdFlags::CLOEXEC),
        rustix::io::fcntl_setfd(&pair.1, rustix::io::FdFlags::CLOEXEC),
    ] {
        end.unwrap();
    }
    pair
}
