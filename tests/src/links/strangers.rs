//! Strangers who keep a server's port busy: each is always being admitted, and reconnects when it is
//! turned away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    ALPN, ClientHello, Credential, Opened, Opening, Password, PublicKey, Purpose, ServerHello,
    Terms,
};

use crate::{PATIENCE, wait_until};

/// How far a stranger goes before it waits to be turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Connects and sends nothing.
    Silent,
    /// Begins a TLS handshake.
    HalfHandshake,
    /// Completes the handshake and sends nothing more.
    Encrypted,
    /// Logs in to an account that does not exist.
    Guesses,
}

/// The addresses of the strangers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// All from one address.
    Here(Ipv4Addr),
    /// From a different address each time.
    Everywhere,
}

/// Strangers, until this is dropped.
pub struct Strangers {
    _runtime: Runtime,
    coming: Arc<Coming>,
}

struct Coming {
    server: SocketAddr,
    manner: Manner,
    from: Origin,
    config: Arc<ClientConfig>,
    /// The last address that one of them used.
    address: AtomicU32,
    /// How often one of them reached the point where it waits.
    arrived: AtomicUsize,
}

impl Strangers {
    /// Starts `count` strangers; returns once that many have gone as far as they will.
    pub fn come(server: SocketAddr, count: usize, manner: Manner, from: Origin) -> Strangers {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let coming = Arc::new(Coming {
            server,
            manner,
            from,
            config: config(),
            address: AtomicU32::new(Ipv4Addr::new(127, 1, 0, 0).to_bits()),
            arrived: AtomicUsize::new(0),
        });
        for _ in 0..count {
            let coming = coming.clone();
            runtime.spawn(async move {
                loop {
                    // It reconnects, however the attempt ended.
                    let _ = coming.one().await;
                }
            });
        }
        let strangers = Strangers { _runtime: runtime, coming };
        wait_until("strangers to come", PATIENCE, || strangers.arrived() >= count);
        strangers
    }

    /// How often one of them has gone as far as it will.
    pub fn arrived(&self) -> usize {
        self.coming.arrived.load(Ordering::Relaxed)
    }
}

impl Coming {
    async fn one(&self) -> std::io::Result<()> {
        let mut tcp = self.connect().await?;
        match self.manner {
            Manner::Silent => {}
            Manner::HalfHandshake => tcp.write_all(&self.first_flight()).await?,
            Manner::Encrypted => {
                let mut stream = self.encrypt(tcp).await?;
                return self.wait(&mut stream).await;
            }
            Manner::Guesses => {
                let mut stream = self.encrypt(tcp).await?;
                return self.guess(&mut stream).await;
            }
        }
        self.wait(&mut tcp).await
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let from = match self.from {
            Origin::Here(address) => address,
            Origin::Everywhere => Ipv4Addr::from_bits(self.address.fetch_add(1, Ordering::Relaxed)),
        };
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(self.server).await
    }

    fn connection(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(self.config.clone(), name).unwrap()
    }

    fn first_flight(&self) -> Vec<u8> {
        let mut flight = Vec::new();
        self.connection().write_tls(&mut flight).unwrap();
        flight
    }

    async fn encrypt(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.config.clone()).connect(name, tcp).await
    }

    /// Waits until the server closes the connection.
    async fn wait(&self, stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        stream.read_to_end(&mut Vec::new()).await.map(drop)
    }

    async fn guess(&self, stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
        let user = format!("user{}", self.arrived.load(Ordering::Relaxed));
        let credential = Credential::Password(Password(b"a guess".to_vec()));
        let (purpose, host) = (Purpose::Mount, "stranger".to_owned());
        let (key, replaces) = (PublicKey::default(), None);
        let opening = Opening::Login {
            user,
            credential,
            purpose,
            host,
            key,
            replaces,
            terms: Terms::default(),
        };
        let failed = std::io::Error::other;
        let bounds = Bounds::OPENING;
        let hello = ClientHello::new("stranger");
        xfer_link::send(stream, &hello, &[], bounds).await.map_err(failed)?;
        xfer_link::receive::<ServerHello, _>(stream, bounds).await.map_err(failed)?;
        xfer_link::send(stream, &opening, &[], bounds).await.map_err(failed)?;
        self.arrived.fetch_add(1, Ordering::Relaxed);
        xfer_link::receive::<Opened, _>(stream, bounds).await.map_err(failed)?;
        Ok(())
    }
}

/// The TLS of a client that accepts any server's certificate.
pub fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// Accepts any server's certificate.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
