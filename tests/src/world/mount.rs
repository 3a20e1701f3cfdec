//! A real `xfer-mount` and its mount point.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::programs::{Finished, Running, program, run_within, shell};
use crate::world::World;
use crate::world::watchdog::detach;
use crate::{PATIENCE, wait_until};

/// The options of a mount that is not started yet.
pub struct Mounting<'a> {
    world: &'a World,
    program: PathBuf,
    user: String,
    root: PathBuf,
    host: Option<String>,
    address: SocketAddr,
    password_file: Option<PathBuf>,
    /// Whether the command line names the server's certificate.
    names_certificate: bool,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

impl<'a> Mounting<'a> {
    pub(crate) fn new(world: &'a World, user: &str) -> Mounting<'a> {
        Mounting {
            world,
            program: program("xfer-mount"),
            user: user.to_owned(),
            root: world.mount_point(user),
            host: None,
            address: world.server.address,
            password_file: Some(world.password_file(user)),
            names_certificate: true,
            options: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Mounts with another file of the program.
    #[must_use]
    pub fn by(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Mounts at another place.
    #[must_use]
    pub fn at(mut self, root: &Path) -> Self {
        self.root = root.to_owned();
        self
    }

    /// Connects to another address, such as a relay's.
    #[must_use]
    pub fn through(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Connects to the server's port at whatever addresses this name has.
    #[must_use]
    pub fn by_name(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Takes the password from another file.
    #[must_use]
    pub fn password_file(mut self, file: &Path) -> Self {
        self.password_file = Some(file.to_owned());
        self
    }

    /// Gives no password, so that this machine's key is used.
    #[must_use]
    pub fn by_key(mut self) -> Self {
        self.password_file = None;
        self
    }

    /// Gives no password and names no certificate: other options or settings do, if anything does.
    #[must_use]
    pub fn by_settings(mut self) -> Self {
        self.names_certificate = false;
        self.by_key()
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.world.at_home(&mut command).envs(self.environment.iter().cloned());
        command.args(&self.options);
        if self.names_certificate {
            command.arg("--fingerprint").arg(&self.world.server.fingerprint);
        }
        if let Some(file) = &self.password_file {
            command.arg("--password-file").arg(file);
        }
        let server = match &self.host {
            Some(host) => format!("{host}:{}", self.address.port()),
            None => self.address.to_string(),
        };
        command.arg(format!("{}@{server}", self.user)).arg(&self.root);
        command
    }

    /// Mounts, and waits until the mount is usable.
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
            // In the foreground nothing announces that `xfer` can reach the mount.
            mount.is_mounted() && mount.xfer("status", &[]).code == Some(0)
        });
        mount
    }

    /// Mounts in the background, as users do; returns the command's result.
    #[track_caller]
    pub fn in_background(self) -> Finished {
        self.world.watchdog.watch_mount(self.root.clone());
        run_within(&mut self.command(), PATIENCE)
    }
}

/// A mounted account. Dropping it unmounts, by force if need be.
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

    /// The path of an entry below the mount point.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Runs a shell script in the mount point; returns its output.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        shell(&self.root, script)
    }

    /// The whole output of `xfer-mount`.
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// The id of the process that serves it.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Whether the kernel has it mounted.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.root)
    }

    /// Runs an `xfer` command for this mount: the command's name, and arguments after the mount point.
    #[track_caller]
    pub fn xfer(&self, name: &str, options: &[&str]) -> Finished {
        let mut command = Command::new(program("xfer"));
        command.arg(name).arg(&self.root).args(options).env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", self.home.join("run"));
        run_within(&mut command, PATIENCE)
    }

    /// Whether it has a connection to the server now.
    #[track_caller]
    pub fn is_connected(&self) -> bool {
        self.xfer("status", &["--json"]).succeeded().stdout.contains("\"connected\"")
    }

    /// Waits until everything is on the server's disk.
    #[track_caller]
    pub fn sync(&self) {
        self.xfer("sync", &[]).succeeded();
    }

    /// Unmounts as a user does, and waits until its process has exited successfully.
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

    /// Waits until `xfer-mount` prints a line that contains `text`.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        self.running.line(text, |line| line.contains(text).then_some(()));
    }

    /// Unmounts without expecting success, as is needed when the session is over; returns the
    /// process's exit code.
    #[track_caller]
    pub fn unmounted_by_force(&mut self) -> Option<i32> {
        detach(&self.root);
        self.ended()
    }

    /// Kills the process, and takes away the mount point that it leaves.
    #[track_caller]
    pub fn die(&mut self) {
        self.signal(Signal::KILL);
        self.unmounted_by_force();
    }

    /// Waits for the process to exit, and returns its exit code.
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

/// Whether a path is a mount point, from the kernel's table. Does not touch the mount itself.
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}
