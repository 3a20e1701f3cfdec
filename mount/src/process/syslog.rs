//! Writes a line to the system's log, for when there is no terminal any more.
//!
//! Best effort: without a log daemon the line is lost.

use std::os::unix::net::UnixDatagram;

/// Facility *user*, severity *warning*.
const PRIORITY: u8 = (1 << 3) | 4;

/// Logs `line`.
pub fn say(line: &str) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A stuck daemon must not hold up this process.
    let _ = socket.set_nonblocking(true);
    let message = format!("<{PRIORITY}>xfer-mount[{}]: {line}", std::process::id());
    let _ = socket.send_to(message.as_bytes(), "/dev/log");
}
