//! Small servers for these tests: some nearly xfer's, some of other kinds.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use xfer_client::connect::Fingerprint;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    BUSY_ALERT, ClientHello, Credential, Grant, Opened, Opening, Refusal, Secret, ServerHello,
    Silence, VERSION,
};
use xfer_protocol::tree::{Quota, Room, Usage};
use xfer_protocol::{Epoch, IdRange, Name, Seq, SessionId, Timestamp};

/// How a server treats its clients.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Accepts `alice` with the password `secret`.
    Xfer,
    /// Refuses every client.
    Refuses(fn() -> Refusal),
    /// Like `Xfer`, with a clock that is an hour ahead.
    Ahead,
    /// Speaks only future versions of the protocol.
    Newer,
    /// Agrees on xfer in TLS, then sends another greeting.
    OtherGreeting,
    /// Speaks TLS 1.3 for another protocol.
    OtherProtocol,
    /// Speaks TLS 1.2 at most.
    OldTls,
    /// Speaks plain text.
    PlainText,
    /// Accepts the connection and sends nothing.
    Silent,
    /// Closes the connection at once.
    HangsUp,
    /// Dies when it has read a login.
    DiesInLogin,
    /// Like `Xfer`, but closes three of four connections at once.
    Crowded,
    /// Like `Xfer`, but busy at first: reports that in each of the possible ways in turn, one for
    /// each connection, then accepts the next.
    BusyAtFirst,
    /// On every other connection reports that it is busy and closes; otherwise just closes.
    BusyOrHangsUp,
}

/// The ways in which a server reports that it is busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Busy {
    /// By an alert in place of its handshake.
    Alert,
    /// In its greeting.
    Hello,
    /// In its answer to the opening.
    Opened,
}

impl Busy {
    fn in_order(connection: usize) -> Option<Busy> {
        [Busy::Alert, Busy::Hello, Busy::Opened].get(connection - 1).copied()
    }
}

/// A server on a port of its own; ends with the test's runtime.
pub struct Server {
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    pub certificate_pem: String,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub async fn start(manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = made.cert.der().clone();
        let server = Server {
            address: listener.local_addr().unwrap(),
            fingerprint: Fingerprint::of(&certificate),
            certificate_pem: made.cert.pem(),
            connections: Arc::default(),
        };
        let connections = server.connections.clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let acceptor = acceptor(manner, certificate, key);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = connections.fetch_add(1, Ordering::Relaxed) + 1;
                if matches!(manner, Manner::Crowded) && !count.is_multiple_of(4) {
                    continue;
                }
                let busy = match manner {
                    Manner::BusyAtFirst => Busy::in_order(count),
                    Manner::BusyOrHangsUp if !count.is_multiple_of(2) => Some(Busy::Alert),
                    Manner::BusyOrHangsUp => continue,
                    _ => None,
                };
                tokio::spawn(answer(manner, busy, acceptor.clone(), stream));
            }
        });
        server
    }

    /// The number of connections made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn target(&self) -> String {
        format!("alice@localhost:{}", self.address.port())
    }
}

fn acceptor(
    manner: Manner,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = match manner {
        Manner::OtherProtocol => vec![],
        _ => vec![b"xfer/1".to_vec()],
    };
    TlsAcceptor::from(Arc::new(config))
}

async fn answer(manner: Manner, busy: Option<Busy>, acceptor: TlsAcceptor, mut stream: TcpStream) {
    if busy == Some(Busy::Alert) {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(&BUSY_ALERT).await;
        return;
    }
    match manner {
        Manner::HangsUp => return,
        Manner::Silent => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        Manner::PlainText => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        Manner::OldTls => {
            // The alert `protocol_version`, as TLS 1.2 servers answer to a hello for 1.3 only.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 70]).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        _ => {}
    }
    if let Ok(stream) = acceptor.accept(stream).await {
        speak(manner, busy, stream).await;
    }
}

async fn speak(manner: Manner, busy: Option<Busy>, mut stream: TlsStream<TcpStream>) {
    let Ok((hello, _)) = xfer_link::receive::<ClientHello, _>(&mut stream, Bounds::OPENING).await
    else {
        return;
    };
    assert_eq!(hello.magic, *b"xfer");
    if matches!(manner, Manner::OtherGreeting) {
        let _ = stream.write_all(b"220 mail ready\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return;
    }
    let greeting = if busy == Some(Busy::Hello) { ServerHello::Busy } else { greeting(manner) };
    xfer_link::send(&mut stream, &greeting, &[], Bounds::OPENING).await.unwrap();
    let Ok((opening, _)) = xfer_link::receive::<Opening, _>(&mut stream, Bounds::OPENING).await
    else {
        return;
    };
    if matches!(manner, Manner::DiesInLogin) {
        return;
    }
    let opened = match busy {
        Some(Busy::Opened) => Opened::Refused(Refusal::Busy),
        Some(Busy::Alert | Busy::Hello) | None => opened(manner, opening),
    };
    xfer_link::send(&mut stream, &opened, &[], Bounds::OPEN).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

fn greeting(manner: Manner) -> ServerHello {
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    let time = if matches!(manner, Manner::Ahead) { now + hour } else { now };
    match manner {
        Manner::Newer => ServerHello::Incompatible { version_min: 8, version_max: 9 },
        _ => ServerHello::Welcome {
            version: VERSION,
            capabilities: 0,
            software: "test".to_owned(),
            time: Timestamp::from(time),
        },
    }
}

fn opened(manner: Manner, opening: Opening) -> Opened {
    if let Manner::Refuses(refusal) = manner {
        return Opened::Refused(refusal());
    }
    match opening {
        Opening::Login { user, credential: Credential::Password(password), .. }
            if user == "alice" && password.0 == b"secret" =>
        {
            Opened::Session(Box::new(grant()))
        }
        Opening::Login { .. } | Opening::Account { .. } => Opened::Refused(Refusal::WrongPassword),
        Opening::Attach { session, secret } => match session == grant().session {
            true if secret == grant().secret => Opened::Attached,
            _ => Opened::Refused(Refusal::NoSession),
        },
        Opening::Resume(_) => Opened::Refused(Refusal::NoSession),
    }
}

pub fn grant() -> Grant {
    Grant {
        session: SessionId([7; 16]),
        secret: Secret([9; 32]),
        resume: Secret([8; 32]),
        epoch: Epoch(1),
        applied: Seq(0),
        user: Name::new(b"alice").unwrap(),
        silence: Silence::default(),
        ids: vec![IdRange { first: 1024, end: 2048 }],
        usage: Usage::default(),
        quota: Quota::UNLIMITED,
        disk: Room { bytes: 1 << 30, files: 1 << 20 },
        limit: Room { bytes: 1 << 30, files: 1 << 20 },
        users: vec![],
        deliveries: vec![],
    }
}
