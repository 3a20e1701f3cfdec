//! Changes of this machine's network.
//!
//! Where the system does not announce them (in a sandbox, say), nothing is lost but time.

use std::io;
use std::net::{SocketAddr, UdpSocket};

#[cfg(target_os = "linux")]
mod netlink;

#[cfg(target_os = "linux")]
pub(super) use netlink::NetworkChanges;

/// The announcements of a system that this program does not listen to.
#[cfg(not(target_os = "linux"))]
#[derive(Default)]
pub(super) struct NetworkChanges {}

#[cfg(not(target_os = "linux"))]
impl NetworkChanges {
    pub(super) async fn next(&self) {
        std::future::pending().await
    }
}

/// Whether this machine still has an address.
pub(super) fn has_address(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let bound = UdpSocket::bind(address);
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_is_told_from_one_of_another() {
        assert!(has_address(SocketAddr::from(([127, 0, 0, 1], 33000))));
        // No machine has an address in TEST-NET-1 (RFC 5737).
        assert!(!has_address(SocketAddr::from(([192, 0, 2, 1], 33000))));
    }
}
