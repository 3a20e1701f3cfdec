//! The first messages on a connection: which version is spoken, and what the link is for.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::time::timeout;
use xfer_link::LinkError;
use xfer_protocol::Timestamp;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::OPENING_TIMEOUT_MS;
use xfer_protocol::message::{ClientHello, Opened, Opening, Refusal, ServerHello, VERSION};

use super::error::{EndpointError, NotXfer, Phase};
use super::tls::Stream;

/// The longest time that a phase may take.
pub(super) const PHASE_MAX: Duration = Duration::from_millis(OPENING_TIMEOUT_MS);

/// Agrees with the server on the version. Returns the server's time.
pub(super) async fn greet(mut stream: Stream) -> Result<(Stream, Timestamp), EndpointError> {
    let hello = ClientHello::new(concat!("xfer-mount ", env!("CARGO_PKG_VERSION")));
    let exchange = async {
        let sent = xfer_link::send(&mut stream, &hello, &[], Bounds::OPENING).await;
        sent.map_err(|error| link_error(Phase::Hello, error))?;
        let received = xfer_link::receive::<ServerHello, _>(&mut stream, Bounds::OPENING).await;
        received.map(|(message, _)| message).map_err(|error| link_error(Phase::Hello, error))
    };
    match within(PHASE_MAX, Phase::Hello, exchange).await? {
        ServerHello::Welcome { version: VERSION, time, .. } => Ok((stream, time)),
        ServerHello::Welcome { version, .. } => {
            Err(EndpointError::Version { version_min: version, version_max: version })
        }
        ServerHello::Incompatible { version_min, version_max } => {
            Err(EndpointError::Version { version_min, version_max })
        }
        ServerHello::Busy => Err(EndpointError::Refused(Refusal::Busy)),
    }
}

/// Sends the purpose of the link, and receives the server's answer. The caller sets the deadline.
pub(super) async fn open(
    stream: &mut Stream,
    opening: &Opening,
    phase: Phase,
) -> Result<Opened, EndpointError> {
    let sent = xfer_link::send(stream, opening, &[], Bounds::OPENING).await;
    sent.map_err(|error| link_error(phase, error))?;
    let received = xfer_link::receive(stream, Bounds::OPEN).await;
    received.map(|(opened, _)| opened).map_err(|error| link_error(phase, error))
}

fn link_error(phase: Phase, error: LinkError) -> EndpointError {
    match error {
        // The text of TLS's library is for programmers.
        LinkError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            EndpointError::Broken(phase, io::Error::new(error.kind(), "the server closed it"))
        }
        LinkError::Io(error) => EndpointError::Broken(phase, error),
        error @ (LinkError::Frame(_) | LinkError::Codec(_)) => match phase {
            Phase::Login | Phase::Attach | Phase::Resume => {
                EndpointError::Nonsense("its answer to the opening")
            }
            Phase::Resolve | Phase::Connect | Phase::Handshake | Phase::Hello => {
                NotXfer::Greeting(error.to_string()).into()
            }
        },
    }
}

/// Runs a step with a deadline.
pub(super) async fn within<T>(
    deadline: Duration,
    phase: Phase,
    step: impl Future<Output = Result<T, EndpointError>>,
) -> Result<T, EndpointError> {
    timeout(deadline, step).await.unwrap_or(Err(EndpointError::TimedOut(phase)))
}
