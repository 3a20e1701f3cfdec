//! Tells systemd that a mount in the foreground is usable (`Type=notify`).
//!
//! The protocol is one datagram to the socket that `$NOTIFY_SOCKET` names; see sd_notify(3).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the mount is usable, if something waits for that.
pub fn ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(socket.as_encoded_bytes(), b"READY=1") {
        tracing::warn!("systemd cannot be told that the mount is usable: {error}");
    }
}

fn send(name: &[u8], message: &[u8]) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let address = match name.strip_prefix(b"@") {
        Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(address: &SocketAddr, name: &[u8]) {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        send(name, b"READY=1").unwrap();
        let mut heard = [0; 32];
        let len = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..len], b"READY=1");
    }

    #[test]
    fn a_socket_is_a_path_or_a_hidden_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        check(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str().as_encoded_bytes());
        let hidden = format!("xfer-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&hidden).unwrap();
        check(&address, format!("@{hidden}").as_bytes());
        assert!(send(b"/no/such/socket", b"READY=1").is_err());
    }
}
