//! The identity of this machine, since several may share a home directory.

use std::fs;

/// Where it is kept, according to machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

/// The machine's identity or, without one, its name, which may change with the network.
pub fn identity() -> String {
    let id = fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let id = id.trim();
    match !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => id.to_owned(),
        false => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}
