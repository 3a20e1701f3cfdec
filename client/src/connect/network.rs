//! Changes of this machine's network, as the kernel announces them (rtnetlink(7)).
//!
//! The announcements are not read: any of them is a reason to look again. Without them (in a sandbox,
//! say), nothing is lost but time.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

/// The groups of announcements: addresses and routes, of IPv4 and IPv6 (`RTMGRP_*` in
/// linux/rtnetlink.h).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// The size of the buffer for an announcement, in bytes. A longer one is cut, which does not matter,
/// since none is read.
const ANNOUNCEMENT_BYTES: usize = 8 << 10;

/// The kernel's announcements.
#[derive(Default)]
pub(super) struct NetworkChanges(OnceCell<Option<AsyncFd<OwnedFd>>>);

impl NetworkChanges {
    /// Waits until an address or a route of this machine comes or goes.
    pub(super) async fn next(&self) {
        let announcements = self.0.get_or_init(|| async { listen().ok() }).await;
        let Some(announcements) = announcements else { return std::future::pending().await };
        let heard = announcements.async_io(Interest::READABLE, |socket| {
            let mut buffer = [0; ANNOUNCEMENT_BYTES];
            let mut heard = Err(io::ErrorKind::WouldBlock.into());
            // Those that came together count as one. An overrun queue is a change too.
            loop {
                match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                    Ok(_) | Err(rustix::io::Errno::NOBUFS) => heard = Ok(()),
                    Err(rustix::io::Errno::WOULDBLOCK) => return heard,
                    Err(error) => return Err(error.into()),
                }
            }
        });
        if heard.await.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether this machine still has an address.
pub(super) fn has_address(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let bound = UdpSocket::bind(address);
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // SAFETY: the socket is open, and is neither replaced nor closed before the `AsyncFd` that owns
    // it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
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
