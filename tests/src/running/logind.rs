//! A bus with a logind on it that a test tells what to announce: python-dbusmock's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::programs::run_within;
use crate::{PATIENCE, wait_until};

/// Debian's Python, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// A program for Python that calls logind on the bus `sys.argv[1]`.
const CALL: &str = "
import dbus, dbus.bus, sys
bus = dbus.bus.BusConnection(sys.argv[1])
logind = bus.get_object('org.freedesktop.login1', '/org/freedesktop/login1')
manager = 'org.freedesktop.login1.Manager'
if sys.argv[2] == 'inhibitors':
    print(*(entry[1] for entry in logind.ListInhibitors(dbus_interface=manager)))
else:
    logind.EmitSignal(manager, 'PrepareForSleep', 'b', [sys.argv[2] == 'sleep'],
                      dbus_interface='org.freedesktop.DBus.Mock')
";

/// The socket's name.
const SOCKET: &str = "bus";

/// A bus and a logind. Both end when this is dropped.
#[derive(Debug)]
pub struct Logind {
    address: String,
    programs: Vec<Child>,
    _socket: PathBuf,
}

impl Logind {
    /// Starts both, with the bus's socket in a directory.
    pub fn start(directory: &Path) -> Logind {
        let (socket, address) = (directory.join(SOCKET), Logind::address_in(directory));
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile"]).arg(format!("--address={address}"));
        let bus = bus.stdout(Stdio::null()).spawn().unwrap();
        wait_until("the bus", PATIENCE, || socket.exists());
        let mut logind = Command::new(PYTHON);
        logind.args(["-m", "dbusmock", "--system", "--template", "logind"]);
        logind.env("DBUS_SYSTEM_BUS_ADDRESS", &address).stdout(Stdio::null());
        let programs = vec![logind.spawn().unwrap(), bus];
        let logind = Logind { address, programs, _socket: socket };
        wait_until("logind", PATIENCE, || logind.call("inhibitors").is_some());
        logind
    }

    /// The address that the bus will have, with its socket in a directory.
    pub fn address_in(directory: &Path) -> String {
        format!("unix:path={}", directory.join(SOCKET).display())
    }

    /// The bus's address, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Announces that the machine is about to sleep.
    pub fn announce_sleep(&self) {
        self.call("sleep").unwrap();
    }

    /// Announces that the machine has woken up.
    pub fn announce_waking(&self) {
        self.call("wake").unwrap();
    }

    /// Whether a program keeps the machine from sleeping for a moment.
    pub fn is_delayed(&self) -> bool {
        self.call("inhibitors").unwrap().contains("xfer")
    }

    fn call(&self, what: &str) -> Option<String> {
        let mut python = Command::new(PYTHON);
        let done = run_within(python.args(["-c", CALL, &self.address, what]), PATIENCE);
        (done.code == Some(0)).then_some(done.stdout)
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
