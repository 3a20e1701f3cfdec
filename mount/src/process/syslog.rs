//! Writes a line to the system's log, for when there is no terminal any more.
//!
//! Best effort: without a log daemon the line is lost.

use std::os::unix::net::UnixDatagram;

use tracing::Level;

/// The facility *user*.
const FACILITY: u8 = 1;

/// Logs `line` with the severity of this level.
pub fn say(level: Level, line: &str) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A stuck daemon must not hold up this process.
    let _ = socket.set_nonblocking(true);
    let priority = (FACILITY << 3) | severity(level);
    let message = format!("<{priority}>xfer-mount[{}]: {line}", std::process::id());
    let _ = socket.send_to(message.as_bytes(), "/dev/log");
}

/// The severities of syslog(3).
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
