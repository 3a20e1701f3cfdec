//! A bus with a logind on it that a test tells what to announce: python-dbusmock's.

use std::path::Path;

use super::bus::{Bus, Kind};
use crate::{PATIENCE, wait_until};

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

/// A bus and a logind. Both end when this is dropped.
#[derive(Debug)]
pub struct Logind(Bus);

impl Logind {
    /// Starts both, with the bus's socket in a directory.
    pub fn start(directory: &Path) -> Logind {
        let logind = Logind(Bus::start(directory, Kind::System, "logind"));
        wait_until("logind", PATIENCE, || logind.call("inhibitors").is_some());
        logind
    }

    /// The address that the bus will have, with its socket in a directory.
    pub fn address_in(directory: &Path) -> String {
        Bus::address_in(directory)
    }

    /// The bus's address, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        self.0.address()
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
        let done = self.0.run(CALL, &[what]);
        (done.code == Some(0)).then_some(done.stdout)
    }
}
