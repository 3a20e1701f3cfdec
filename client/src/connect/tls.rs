//! TLS as xfer speaks it: 1.3 only, the post-quantum hybrid key exchange first, ALPN `xfer/1`.
//!
//! A server's own certificate is trusted by its fingerprint, so its name, its dates and its issuer
//! don't matter. That the server holds the private key is always verified. Certificates of
//! authorities are verified in the ordinary way, and in no other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible,
    RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xfer_protocol::message::{ALPN, Refusal};

use super::error::{ConnectError, EndpointError, NotXfer};
use super::trust::Fingerprint;

/// An encrypted connection.
pub(super) type Stream = TlsStream<TcpStream>;

/// The requirement on a server's certificate.
#[derive(Clone, Debug)]
pub(super) enum Verification {
    /// Any certificate, which is only looked at before it is decided whether to trust it.
    See,
    /// The one with this fingerprint.
    Pinned(Fingerprint),
    /// One that these authorities signed for the host's name.
    Authorities(Arc<RootCertStore>),
}

/// Reads the authorities of a PEM file.
pub(super) fn read_authorities(file: &Path) -> Result<Arc<RootCertStore>, ConnectError> {
    let failed = |why: String| ConnectError::Authorities { file: file.to_owned(), why };
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| failed(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM".to_owned()));
    }
    Ok(Arc::new(roots))
}

/// Does the handshake over a connection that was just made.
pub(super) async fn handshake(
    stream: TcpStream,
    name: ServerName<'static>,
    verification: &Verification,
) -> Result<Stream, EndpointError> {
    let config = client_config(verification).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(explain)?;
    match stream.get_ref().1.alpn_protocol() {
        Some(ALPN) => Ok(stream),
        Some(_) | None => Err(NotXfer::OtherTls.into()),
    }
}

/// The fingerprint of the certificate that the server has shown.
pub(super) fn fingerprint(stream: &Stream) -> Result<Fingerprint, EndpointError> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let leaf = shown.ok_or_else(|| EndpointError::Tls("no certificate".to_owned()))?;
    Ok(Fingerprint::of(leaf))
}

fn client_config(verification: &Verification) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(verification, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn verifier(
    verification: &Verification,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let algorithms = provider.signature_verification_algorithms;
    Ok(match verification {
        Verification::See => Arc::new(ByFingerprint { expected: None, algorithms }),
        Verification::Pinned(fingerprint) => {
            Arc::new(ByFingerprint { expected: Some(*fingerprint), algorithms })
        }
        Verification::Authorities(roots) => {
            let builder =
                WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
            builder.build().map_err(|error| rustls::Error::General(error.to_string()))?
        }
    })
}

/// Accepts a certificate by its fingerprint alone, or any certificate, to look at it.
#[derive(Debug)]
struct ByFingerprint {
    expected: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.expected {
            Some(expected) if expected != Fingerprint::of(end_entity) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Explains a failed handshake by what it tells about the other side.
fn explain(error: io::Error) -> EndpointError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return EndpointError::HangsUp(error);
    };
    match tls {
        rustls::Error::InvalidMessage(_) => NotXfer::NoTls.into(),
        rustls::Error::AlertReceived(AlertDescription::AccessDenied) => {
            EndpointError::Refused(Refusal::Busy)
        }
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => NotXfer::OldTls.into(),
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            NotXfer::OtherTls.into()
        }
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            EndpointError::KeySwapped
        }
        rustls::Error::InvalidCertificate(why) => EndpointError::Certificate(why.to_string()),
        other => EndpointError::Tls(other.to_string()),
    }
}
