//! A line in the system's log, for when there is no terminal any more.
//!
//! As good as it gets: a system without a log daemon has no place for the line.

use std::os::unix::net::UnixDatagram;

/// Facility *user*, severity *warning*.
const PRIORITY: u8 = (1 << 3) | 4;

/// Says `line` in the log.
pub fn say(line: &str) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A daemon that is stuck must not hold up whoever has something to say.
    let _ = socket.set_nonblocking(true);
    let message = format!("<{PRIORITY}>xfer-mount[{}]: {line}", std::process::id());
    let _ = socket.send_to(message.as_bytes(), "/dev/log");
}
