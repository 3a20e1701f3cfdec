//! The beginning of links as on a real server: greetings, and what the link is for, with a password
//! that is checked. Only the encryption is left out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{DuplexStream, split};
use tokio::time::{Instant, timeout};
use xfer_client::connect::{EndpointError, Phase};
use xfer_link::LinkError;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::OPENING_TIMEOUT_MS;
use xfer_protocol::message::{Binding, ClientHello, Opened, Opening, ServerHello};
use xfer_server::engine::Engine;
use xfer_server::listener::half_open::{HalfOpen, Step};
use xfer_server::login::opening::{Admitted, Door};
use xfer_server::login::source::Source;
use xfer_store::Store;

/// The password of every account behind a gate.
pub(super) const PASSWORD: &[u8] = b"right";

/// Its hash, with so little work that a check takes no time.
pub(super) const HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$Y2hlYXAgZm9yIHRlc3RzIQ$cadUNu0YD4v10k6gU4cqIw";

/// How long either side waits for a greeting.
const HELLO_MAX: Duration = Duration::from_millis(OPENING_TIMEOUT_MS);

/// Where links come in.
pub(super) struct Gate {
    door: Door,
    places: Arc<HalfOpen>,
}

impl Gate {
    /// A gate to the accounts of a store.
    pub(super) fn over(store: &Store) -> Gate {
        let door = Door::new(store.register());
        Gate { door, places: Arc::default() }
    }

    /// Serves a link from its first byte to its end.
    pub(super) async fn serve(&self, engine: Arc<Engine>, from: IpAddr, mut stream: DuplexStream) {
        let mut place = self.places.enter(Source::of(from));
        place.advance(Step::Opening);
        let deadline = Instant::now() + HELLO_MAX;
        let opening = self.door.open(&mut stream, Binding::default(), from, place, deadline);
        let Ok(admitted) = opening.await else { return };
        let (reader, writer) = split(stream);
        match admitted {
            Admitted::Log(who) => engine.run_session(who, reader, writer).await,
            Admitted::Resumed(resuming) => match engine.prove(resuming).await {
                Ok(proved) => engine.run_resumed(proved, reader, writer).await,
                Err(refusal) => engine.refuse(refusal, writer).await,
            },
            Admitted::Task(done) => engine.run_task(done, writer).await,
            Admitted::Read { session, secret } => {
                engine.run_reads(session, secret, reader, writer).await;
            }
        }
    }
}

/// Begins a link from the client's side, and returns the server's answer.
pub(super) async fn knock(
    stream: &mut DuplexStream,
    opening: &Opening,
    phase: Phase,
) -> Result<Opened, EndpointError> {
    let greeting = async {
        let hello = ClientHello::new("xfer-tests");
        xfer_link::send(stream, &hello, &[], Bounds::OPENING).await?;
        xfer_link::receive::<ServerHello, _>(stream, Bounds::OPENING).await
    };
    let (answer, _) = within(HELLO_MAX, phase, greeting).await?;
    assert!(matches!(answer, ServerHello::Welcome { .. }), "{answer:?}");
    let exchange = async {
        xfer_link::send(stream, opening, &[], Bounds::OPENING).await?;
        xfer_link::receive(stream, Bounds::OPEN).await
    };
    let (opened, _) = within(patience(opening), phase, exchange).await?;
    Ok(opened)
}

/// How long a real client waits for the answer to an opening.
fn patience(opening: &Opening) -> Duration {
    match opening {
        Opening::Login { .. } | Opening::Account { .. } => Duration::from_secs(60),
        Opening::Resume(_) => Duration::from_secs(20),
        Opening::Attach { .. } => HELLO_MAX,
    }
}

async fn within<T>(
    longest: Duration,
    phase: Phase,
    step: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, EndpointError> {
    match timeout(longest, step).await {
        Ok(done) => {
            done.map_err(|error| EndpointError::Broken(phase, std::io::Error::other(error)))
        }
        Err(_elapsed) => Err(EndpointError::TimedOut(phase)),
    }
}
