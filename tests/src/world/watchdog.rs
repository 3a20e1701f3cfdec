//! Ends a test that hangs: after its time limit, mounts are detached and servers killed. Then
//! everything that waits for them fails, and the test with it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::scale;

/// Detaches a test's mounts and kills its processes when its time is over.
#[derive(Debug)]
pub(crate) struct Watchdog {
    watched: Arc<Mutex<Watched>>,
    /// Dropped with the watchdog, which ends its thread.
    _alive: Sender<()>,
}

#[derive(Debug, Default)]
struct Watched {
    processes: Vec<u32>,
    mounts: Vec<PathBuf>,
}

impl Watchdog {
    pub(crate) fn new() -> Watchdog {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (alive, dropped) = channel::<()>();
        let theirs = watched.clone();
        std::thread::spawn(move || {
            let limit = scale::time_limit();
            if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                println!("the test took longer than {limit:?}: its processes are killed");
                theirs.lock().unwrap().cut_loose();
            }
        });
        Watchdog { watched, _alive: alive }
    }

    pub(crate) fn watch_process(&self, pid: u32) {
        self.watched.lock().unwrap().processes.push(pid);
    }

    pub(crate) fn watch_mount(&self, path: PathBuf) {
        self.watched.lock().unwrap().mounts.push(path);
    }
}

impl Watched {
    fn cut_loose(&self) {
        for pid in &self.processes {
            if let Some(pid) = Pid::from_raw(*pid as i32) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        self.mounts.iter().for_each(|path| detach(path));
    }
}

/// Detaches a mount, even if it is in use or its process does not answer.
pub(crate) fn detach(path: &Path) {
    if unmount(path, UnmountFlags::DETACH).is_err() {
        // Without the right to unmount, use the setuid helper. A path without a mount is not a failure.
        let _ = std::process::Command::new("fusermount3").arg("-uzq").arg(path).output();
    }
}
