//! The port: accepts connections, encrypts them, identifies the client, and hands them on.
//!
//! Each connection has a task. Until it is admitted, it has one deadline for everything and holds
//! one of the bounded places of [`HalfOpen`]. Afterwards it belongs to the engine.

pub mod half_open;
pub mod tls;
pub mod identity;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use xfer_protocol::limits::{IDLE_HEARTBEAT_MS, OPENING_TIMEOUT_MS};
use xfer_protocol::message::Silence;
use xfer_protocol::message::{ALPN, BINDING_LABEL, BUSY_ALERT, Binding};

use crate::engine::Engine;
use crate::login::opening::{Admitted, Door, NotAdmitted};
use crate::login::source::Source;

use half_open::{Crowded, HalfOpen, Slot, Step};

/// The most connections that wait to be accepted; beyond it the kernel refuses them.
const BACKLOG: i32 = 1024;

/// The pause after the system ran out of descriptors or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest time to say goodbye to a connection that was turned away.
const FAREWELL: Duration = Duration::from_secs(1);

/// The shortest interval between log lines about too many connections.
const CROWD_NOTED_EVERY: Duration = Duration::from_secs(60);

/// Admits connections.
pub struct Listener {
    tls: TlsAcceptor,
    door: Door,
    engine: Arc<Engine>,
    half_open: Arc<HalfOpen>,
    /// The time of the last log line about too many connections.
    crowd_noted: Mutex<Option<Instant>>,
}

/// Why a connection was not admitted.
#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error("no TLS for {} s", OPENING_TIMEOUT_MS / 1000)]
    Silent,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("closed to make room for others: its TLS handshake was not complete")]
    Crowded,
    #[error("it uses TLS for another protocol")]
    OtherProtocol,
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
}

/// Listens on an address. `[::]` includes IPv4, and means IPv4 alone on a host without IPv6.
///
/// # Errors
/// If the address is in use, does not belong to this host, or is not permitted.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let no_ipv6 = |error: &io::Error| error.raw_os_error() == Some(EAFNOSUPPORT);
    let socket = match bind_socket(address) {
        Err(error) if no_ipv6(&error) && address.ip().is_unspecified() => {
            bind_socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))?
        }
        bound => bound?,
    };
    TcpListener::from_std(socket.into())
}

const EAFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

fn bind_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Lets a restarted server bind while old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

impl Listener {
    /// A listener that hands admitted connections to this engine.
    pub fn new(tls: Arc<ServerConfig>, door: Door, engine: Arc<Engine>) -> Listener {
        Listener {
            tls: tls.into(),
            door,
            engine,
            half_open: Arc::default(),
            crowd_noted: Mutex::default(),
        }
    }

    /// Who is let in.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Accepts connections until `stop`, then closes the port; returns the connections still running.
    pub async fn serve(
        self: Arc<Self>,
        port: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return connections,
                accepted = port.accept() => match accepted {
                    Ok((tcp, peer)) => self.accept(tcp, peer, &mut connections),
                    Err(error) => pause_after(error).await,
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr, to: &mut JoinSet<()>) {
        let place = self.half_open.enter(Source::of(peer.ip()));
        to.spawn(self.clone().connection(tcp, peer.ip(), place));
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, address: IpAddr, place: Slot) {
        let (admitted, stream) = match self.admit(tcp, address, place).await {
            Ok(admitted) => admitted,
            Err(turned) => {
                let address = address.to_canonical();
                match turned.is_for_others() {
                    true => self.note_crowd(address, &turned),
                    false => tracing::info!(%address, "turned away: {turned}"),
                }
                return;
            }
        };
        let (reader, writer) = tokio::io::split(stream);
        match admitted {
            Admitted::Log(who) => {
                let _known = self.half_open.know(Source::of(address));
                self.engine.run_session(who, reader, writer).await;
            }
            Admitted::Resumed(resuming) => match self.engine.prove(resuming).await {
                Ok(proved) => {
                    let _known = self.half_open.know(Source::of(address));
                    self.engine.run_resumed(proved, reader, writer).await;
                }
                Err(refusal) => self.engine.refuse(refusal, writer).await,
            },
            Admitted::Task(done) => self.engine.run_task(done, writer).await,
            Admitted::Read { session, secret } => {
                self.engine.run_reads(session, secret, reader, writer).await;
            }
        }
    }

    /// Logs that there are too many connections. Not for each one, since strangers can open any
    /// number of them.
    fn note_crowd(&self, address: IpAddr, turned: &Turned) {
        tracing::debug!(%address, "turned away: {turned}");
        let mut noted = self.crowd_noted.lock();
        if noted.is_none_or(|noted| noted.elapsed() >= CROWD_NOTED_EVERY) {
            *noted = Some(Instant::now());
            tracing::warn!(
                %address,
                "more connections come than there are places; some are closed, such as this one"
            );
        }
    }

    async fn admit(
        &self,
        tcp: TcpStream,
        address: IpAddr,
        mut place: Slot,
    ) -> Result<(Admitted, TlsStream<TcpStream>), Turned> {
        set_options(&tcp).map_err(Turned::Tls)?;
        let deadline = Instant::now() + Duration::from_millis(OPENING_TIMEOUT_MS);
        // `readable()` would not do: tokio considers every new socket readable.
        match place.keep(timeout_at(deadline, tcp.peek(&mut [0]))).await {
            Ok(said) => drop(said.map_err(|_| Turned::Silent)?.map_err(Turned::Tls)?),
            Err(Crowded) => {
                say_busy(&tcp);
                return Err(Turned::Crowded);
            }
        }
        place.advance(Step::Handshake);
        let handshake = place.keep(timeout_at(deadline, self.tls.accept(tcp))).await;
        let handshake = handshake.map_err(|Crowded| Turned::Crowded)?;
        let mut stream = handshake.map_err(|_| Turned::Silent)?.map_err(Turned::Tls)?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Turned::OtherProtocol);
        }
        place.advance(Step::Opening);
        let binding = binding(&stream).map_err(Turned::Tls)?;
        match self.door.open(&mut stream, binding, address, place, deadline).await {
            Ok(admitted) => Ok((admitted, stream)),
            Err(not_admitted) => {
                // Best effort: the connection is closed whether or not the client listens.
                let _ = tokio::time::timeout(FAREWELL, stream.shutdown()).await;
                Err(not_admitted.into())
            }
        }
    }
}

/// The value that stands for this connection in a client's proof.
fn binding(stream: &TlsStream<TcpStream>) -> io::Result<Binding> {
    let connection = stream.get_ref().1;
    let exported = connection.export_keying_material([0; 32], BINDING_LABEL, None);
    exported.map(Binding).map_err(io::Error::other)
}

impl Turned {
    /// Whether it was closed to make room, and not for anything that it did.
    fn is_for_others(&self) -> bool {
        match self {
            Turned::Crowded | Turned::NotAdmitted(NotAdmitted::Crowded) => true,
            Turned::Silent | Turned::Tls(_) | Turned::OtherProtocol | Turned::NotAdmitted(_) => {
                false
            }
        }
    }
}

/// Tells a client that the server is busy, before its handshake has begun. Best effort: the
/// connection is closed whether or not the client listens.
fn say_busy(tcp: &TcpStream) {
    // Bypass tokio, which may not know yet that the socket is ready.
    let socket = SockRef::from(tcp);
    // Closing a socket with unread data sends a reset, and the client would not see the alert.
    let _ = (&*socket).read(&mut [0; 4096]);
    let _ = (&*socket).write(&BUSY_ALERT);
}

/// The most unsent bytes in the kernel before a writer waits. It is small enough that some bytes go
/// out within the silence limit, so even on a slow line a writer sees that its peer is alive.
const UNSENT_MAX: u32 = 512 << 10;

/// With these the kernel detects a vanished peer sooner than its silence would.
fn set_options(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let silence = Silence::LONGEST.time();
    // An idle client sends something in time, so that this machine does not wake the client's.
    let idle = Duration::from_millis(IDLE_HEARTBEAT_MS) + silence;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(silence / 4);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(silence))
}

/// Waits after a connection could not be accepted, if the next one can't be either.
pub(crate) async fn pause_after(error: io::Error) {
    match error.kind() {
        // The client closed the connection before it was accepted; the next one may be fine.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            tracing::error!(%error, "a connection cannot be taken");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_link_to_a_client_that_acknowledges_nothing_breaks_after_the_longest_silence() {
        let port = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), port.accept());
        let (tcp, _) = accepted.unwrap();
        set_options(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(10)));
        assert!(socket.keepalive().unwrap() && tcp.nodelay().unwrap());
        drop(client.unwrap());
    }
}
