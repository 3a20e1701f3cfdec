//! Linux's announcements of changes of the network (rtnetlink(7)).
//!
//! They are not read: any of them is a reason to look again.

use std::io;

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
pub(in crate::connect) struct NetworkChanges(OnceCell<Option<AsyncFd<OwnedFd>>>);

impl NetworkChanges {
    /// Waits until an address or a route of this machine comes or goes.
    pub(in crate::connect) async fn next(&self) {
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

fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // SAFETY: the socket is open, and is neither replaced nor closed before the `AsyncFd` that owns
    // it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
