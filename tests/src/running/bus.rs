//! A D-Bus with a service on it that python-dbusmock plays.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::programs::{Finished, run_within};
use crate::{PATIENCE, wait_until};

/// Debian's Python, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// The socket's name.
const SOCKET: &str = "bus";

/// Which of the two buses of a machine it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The machine's.
    System,
    /// That of a login.
    Session,
}

/// A bus and a service. Both end when this is dropped.
#[derive(Debug)]
pub struct Bus {
    address: String,
    programs: Vec<Child>,
}

impl Bus {
    /// Starts a bus with its socket in a directory, and a service as a template of dbusmock has it. What it
    /// is called for is written to `log` in the directory.
    pub fn start(directory: &Path, kind: Kind, template: &str) -> Bus {
        let (socket, address) = (directory.join(SOCKET), Bus::address_in(directory));
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile"]).arg(format!("--address={address}"));
        let bus = bus.stdout(Stdio::null()).spawn().unwrap();
        wait_until("the bus", PATIENCE, || socket.exists());
        let (option, variable) = match kind {
            Kind::System => ("--system", "DBUS_SYSTEM_BUS_ADDRESS"),
            Kind::Session => ("--session", "DBUS_SESSION_BUS_ADDRESS"),
        };
        let mut service = Command::new(PYTHON);
        service.args(["-m", "dbusmock", option, "--template", template, "--logfile"]);
        service.arg(Bus::log_in(directory)).env(variable, &address).stdout(Stdio::null());
        Bus { address, programs: vec![service.spawn().unwrap(), bus] }
    }

    /// The address that the bus will have, with its socket in a directory.
    pub fn address_in(directory: &Path) -> String {
        format!("unix:path={}", directory.join(SOCKET).display())
    }

    /// What the service was called for.
    pub fn log_in(directory: &Path) -> PathBuf {
        directory.join("log")
    }

    /// The bus's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a program for Python, with the address and these arguments.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        let mut python = Command::new(PYTHON);
        python.args(["-c", program, &self.address]).args(arguments);
        run_within(&mut python, PATIENCE)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
