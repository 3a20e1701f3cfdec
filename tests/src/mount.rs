//! A real `xfer-mount` and the directory it serves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::programs::{Finished, Running, program, run_within, shell};
use crate::watchdog::detach;
use crate::world::World;
use crate::{PATIENCE, wait_until};

/// How a user's storage is about to be mounted.
pub struct Mounting<'a> {
    world: &'a World,
    user: String,
    root: PathBuf,
    address: SocketAddr,
    password_file: PathBuf,
    options: Vec<String>,
}

impl<'a> Mounting<'a> {
    pub(crate) fn new(world: &'a World, user: &str) -> Mounting<'a> {
        Mounting {
            world,
            user: user.to_owned(),
            root: world.mount_point(user),
            address: world.server.address,
            password_file: world.password_file(user),
            options: Vec::new(),
        }
    }

    /// At another place.
    #[must_use]
    pub fn at(mut self, root: &Path) -> Self {
        self.root = root.to_owned();
        self
    }

    /// Over another address, a relay's.
    #[must_use]
    pub fn through(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// With the password in another file.
    #[must_use]
    pub fn password_file(mut self, file: &Path) -> Self {
        self.password_file = file.to_owned();
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// The command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program("xfer-mount"));
        self.world.at_home(&mut command);
        command.args(&self.options).arg("--fingerprint").arg(&self.world.server.fingerprint);
        command.arg("--password-file").arg(&self.password_file);
        command.arg(format!("{}@{}", self.user, self.address)).arg(&self.root);
        command
    }

    /// Mounts, and waits until the mount can be used.
    #[track_caller]
    pub fn start(self) -> Mount {
        let mut command = self.command();
        let running = Running::start(command.arg("-f"));
        self.world.watchdog.watch_process(running.pid());
        self.world.watchdog.watch_mount(self.root.clone());
        let home = self.world.home();
        let mut mount = Mount { root: self.root, running, home };
        wait_until("the mount to be usable", PATIENCE, || {
            assert!(mount.running.is_running(), "xfer-mount ended:\n{}", mount.said());
            // In the foreground nothing else says when `xfer` can reach it too.
            mount.is_mounted() && mount.xfer("status", &[]).code == Some(0)
        });
        mount
    }

    /// Mounts in the background, as users do, and gives what the command said.
    #[track_caller]
    pub fn in_background(self) -> Finished {
        self.world.watchdog.watch_mount(self.root.clone());
        run_within(&mut self.command(), PATIENCE)
    }
}

/// Storage that is mounted. Taken away, by force if need be, when dropped.
#[derive(Debug)]
pub struct Mount {
    root: PathBuf,
    running: Running,
    home: PathBuf,
}

impl Mount {
    /// The mount point.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Runs a script of the shell in the mount point; gives what it printed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        shell(&self.root, script)
    }

    /// All that `xfer-mount` has said.
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// The number of the process that serves it.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Whether the kernel has it mounted.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.root)
    }

    /// Runs an `xfer` command for it: its name, and what follows the mount point.
    #[track_caller]
    pub fn xfer(&self, name: &str, options: &[&str]) -> Finished {
        let mut command = Command::new(program("xfer"));
        command.arg(name).arg(&self.root).args(options).env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", self.home.join("run"));
        run_within(&mut command, PATIENCE)
    }

    /// Waits until everything is on the server's disk.
    #[track_caller]
    pub fn sync(&self) {
        self.xfer("sync", &[]).succeeded();
    }

    /// Unmounts as a user does, and waits until its process has ended well.
    #[track_caller]
    pub fn unmount(mut self) {
        self.xfer("unmount", &[]).succeeded();
        assert_eq!(self.ended(), Some(0), "{}", self.said());
        assert!(!self.is_mounted());
    }

    /// Sends the process that serves it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits until `xfer-mount` says a line with `text` in it.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        self.running.line(text, |line| line.contains(text).then_some(()));
    }

    /// Unmounts without asking whether that is well, as one must when the session is over; gives
    /// the exit code of the process that served it.
    #[track_caller]
    pub fn unmounted_by_force(&mut self) -> Option<i32> {
        detach(&self.root);
        self.ended()
    }

    /// Waits for the end of the process that serves it, and gives its exit code.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        self.running.ended_within(PATIENCE)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted() {
            detach(&self.root);
        }
        self.running.signal(Signal::KILL);
    }
}

/// Whether something is mounted at a path, as the kernel says. Asks nothing of what is mounted.
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}
