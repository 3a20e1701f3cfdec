//! A desktop that shows notices, as far as programs can tell.

use std::path::{Path, PathBuf};

use super::bus::{Bus, Kind};
use crate::{PATIENCE, wait_until};

/// A program for Python that asks the service what it can do.
const CALL: &str = "
import dbus, dbus.bus, sys
bus = dbus.bus.BusConnection(sys.argv[1])
service = bus.get_object('org.freedesktop.Notifications', '/org/freedesktop/Notifications')
service.GetCapabilities(dbus_interface='org.freedesktop.Notifications')
";

/// A bus and a service that shows notices. Both end when this is dropped.
#[derive(Debug)]
pub struct Desktop {
    bus: Bus,
    log: PathBuf,
}

impl Desktop {
    /// Starts both, with the bus's socket in a directory.
    pub fn start(directory: &Path) -> Desktop {
        let bus = Bus::start(directory, Kind::Session, "notification_daemon");
        wait_until("the desktop", PATIENCE, || bus.run(CALL, &[]).code == Some(0));
        Desktop { bus, log: Bus::log_in(directory) }
    }

    /// The bus's address, for `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        self.bus.address()
    }

    /// The notices that were shown, each with all that it says.
    pub fn notices(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.split(" Notify ").skip(1).map(str::to_owned).collect()
    }
}
