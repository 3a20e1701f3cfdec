//! A TCP connection to a host, by whichever of its addresses answers first.
//!
//! The next address is tried when one fails, or beside it after a short while. So an address family
//! that leads nowhere costs a moment and not the whole deadline.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use xfer_protocol::limits::IDLE_HEARTBEAT_MS;
use xfer_protocol::message::Silence;

use super::dial::Reader;
use super::error::EndpointError;
use super::target::Target;

/// The time after which the next address is tried beside one that has not answered.
const STAGGER: Duration = Duration::from_millis(250);

/// The longest time that sent data may stay unacknowledged by TCP before the connection counts as
/// broken. It is long, since a server that is busy with a large change reads nothing meanwhile,
/// though it sends signs of life. A silent server is noticed much earlier.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);

/// The time of silence after which the kernel asks whether the peer is there. On a log link, the
/// client asks itself before that.
const KEEPALIVE_AFTER: Duration =
    Duration::from_millis(IDLE_HEARTBEAT_MS).saturating_add(Silence::LONGEST.time());

/// The time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a host, in the order in which they should be tried.
pub(super) async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, EndpointError> {
    let host = (target.host.as_str(), target.port);
    let found = lookup_host(host).await.map_err(EndpointError::NotFound)?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    match addresses.is_empty() {
        true => Err(EndpointError::NotFound(io::ErrorKind::AddrNotAvailable.into())),
        false => Ok(addresses),
    }
}

/// Connects to the address that answers first. The caller sets the deadline.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, EndpointError> {
    let mut waiting = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        match timeout(STAGGER, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => {
                prepare(&stream).map_err(EndpointError::Unreachable)?;
                return Ok(stream);
            }
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(panicked))) => last = io::Error::other(panicked),
            Ok(None) => return Err(explain(last)),
            Err(_elapsed) => {}
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    // Elsewhere the system decides how long it waits.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

/// Has the system throw away what a connection did not deliver once it is closed.
pub(super) fn reset_when_closed(socket: &OwnedFd) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!("cannot reset the connection: {error}");
    }
}

/// A half of a connection that is read from, and its socket, which is closed together with it.
pub(super) struct WithSocket {
    pub(super) reader: Reader,
    pub(super) _socket: Arc<OwnedFd>,
}

impl AsyncRead for WithSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, into)
    }
}

fn explain(error: io::Error) -> EndpointError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => EndpointError::NothingThere,
        _ => EndpointError::Unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    /// An address at which nothing listens.
    async fn deaf() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn the_address_that_answers_is_taken_and_its_link_breaks_when_nothing_is_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let stream = connect(&[deaf().await, deaf().await, there]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        let user_timeout = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(user_timeout, Some(UNACKNOWLEDGED_MAX));
    }

    #[tokio::test]
    async fn nothing_is_there_if_no_address_answers() {
        let error = connect(&[deaf().await, deaf().await]).await.unwrap_err();
        assert!(matches!(error, EndpointError::NothingThere), "{error}");
    }

    #[tokio::test]
    async fn a_name_is_resolved_to_all_its_addresses() {
        let addresses = resolve(&"alice@localhost:33000".parse().unwrap()).await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        let unknown = resolve(&"alice@host.invalid:33000".parse().unwrap()).await.unwrap_err();
        assert!(matches!(unknown, EndpointError::NotFound(_)), "{unknown}");
    }
}
