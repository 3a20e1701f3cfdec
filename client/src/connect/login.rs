//! The steps to a session, each with its deadline.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use xfer_protocol::Ino;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::{IDS_MAX, OPENING_TIMEOUT_MS};
use xfer_protocol::message::{
    ClientHello, Grant, Opened, Opening, Password, Purpose, Refusal, Secret, ServerHello, VERSION,
};
use xfer_protocol::{SessionId, Timestamp};

use super::error::{ConnectError, EndpointError, NotXfer, Phase};
use super::tls::{self, Verification};
use super::trust::{Asker, TrustMode, TrustPolicy};
use super::{Fingerprint, Target, tcp};
use crate::session::{Reader, Session, Writer};
use xfer_link::LinkError;

/// How long each phase may take.
const PHASE_MAX: Duration = Duration::from_millis(OPENING_TIMEOUT_MS);

/// How long a login may take: many others may be before it, and checking each one's password takes a
/// while on purpose.
const LOGIN_MAX: Duration = Duration::from_secs(60);

/// How long a login may take that ends another mount, which first sends what it has.
const TAKEOVER_MAX: Duration = Duration::from_secs(60);

/// How old a connection may be that nothing was said on and still be used; a server waits only
/// [`PHASE_MAX`] for the first word.
const FRESH_MAX: Duration = Duration::from_secs(3);

/// How long to wait before trying again, at first and at most, if the server is busy.
const AGAIN: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);

/// For how long it is tried again, at each step to a session, if the server is busy.
const BUSY_MAX: Duration = Duration::from_secs(30);

/// For how long it is, if the server hangs up and may be anything: what is no xfer server is to be told
/// soon.
const HANGS_UP_MAX: Duration = Duration::from_secs(10);

/// For how long a session is tried to be joined, less than what a silent connection takes to be
/// noticed.
const ATTACH_MAX: Duration = Duration::from_secs(8);

/// How far the two clocks may be apart without a warning.
const SKEW_MAX: Duration = Duration::from_secs(300);

type Stream = TlsStream<TcpStream>;

/// A server that answered, whose key is not trusted yet (unless authorities vouched for it).
pub struct Contact {
    target: Target,
    address: SocketAddr,
    verification: Verification,
    shown: Fingerprint,
    stream: Stream,
    since: Instant,
}

/// A server that is trusted.
pub struct Peer {
    endpoint: Endpoint,
    user: String,
    label: String,
    fresh: Option<(Stream, Instant)>,
}

/// What a login gives.
pub struct Login {
    /// The session.
    pub session: Session,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Connects and sees who answers. Says nothing yet.
///
/// # Errors
/// If the host is not found or does not answer, or is no xfer server, or authorities were given
/// and don't vouch for it.
pub async fn reach(target: &Target, mode: &TrustMode) -> Result<Contact, ConnectError> {
    let verification = match mode {
        TrustMode::Authorities(file) => Verification::Authorities(tls::read_authorities(file)?),
        TrustMode::Ask | TrustMode::AcceptNew | TrustMode::Fingerprint(_) => Verification::See,
    };
    let contact = || first_contact(target, verification.clone());
    let contact = though_busy(BUSY_MAX, contact).await;
    contact.map_err(|error| error.at(target.endpoint()))
}

async fn first_contact(
    target: &Target,
    verification: Verification,
) -> Result<Contact, EndpointError> {
    let addresses = within(PHASE_MAX, Phase::Resolve, tcp::resolve(target)).await?;
    let stream = within(PHASE_MAX, Phase::Connect, tcp::connect(&addresses)).await?;
    let address = stream.peer_addr().map_err(EndpointError::Unreachable)?;
    let name = target.server_name().ok_or(EndpointError::Nonsense("the host's name"))?;
    let handshake = tls::handshake(stream, name, &verification);
    let stream = within(PHASE_MAX, Phase::Handshake, handshake).await?;
    let shown = tls::fingerprint(&stream)?;
    let since = Instant::now();
    Ok(Contact { target: target.clone(), address, verification, shown, stream, since })
}

impl Contact {
    /// Decides whether to trust the server; asks the user if need be.
    ///
    /// # Errors
    /// If it is not to be trusted.
    pub fn trust(self, policy: &TrustPolicy, asker: &mut dyn Asker) -> Result<Peer, ConnectError> {
        policy.decide(&self.target.endpoint(), self.shown, asker)?;
        let verification = match self.verification {
            Verification::See => Verification::Pinned(self.shown),
            kept @ (Verification::Pinned(_) | Verification::Authorities(_)) => kept,
        };
        Ok(Peer {
            label: self.target.to_string(),
            user: self.target.user.clone(),
            endpoint: Endpoint { target: self.target, address: self.address, verification },
            fresh: Some((self.stream, self.since)),
        })
    }
}

impl Peer {
    /// `user@host:port`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Logs in. The connection of the first contact is used if it is still fresh.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks.
    pub async fn login(self, password: Password, purpose: Purpose) -> Result<Login, ConnectError> {
        let label = self.label.clone();
        self.begin(password, purpose).await.map_err(|error| error.at(label))
    }

    async fn begin(self, password: Password, purpose: Purpose) -> Result<Login, EndpointError> {
        let Peer { endpoint, user, label: _, mut fresh } = self;
        let opening = Opening::Login { user, password, purpose, host: host_name() };
        let attempt = || log_in(&endpoint, fresh.take(), &opening, purpose);
        let (grant, stream, server_time) = though_busy(BUSY_MAX, attempt).await?;
        check_grant(&grant)?;
        let warnings = skew_warning(server_time, SystemTime::now()).into_iter().collect();
        Ok(Login { session: session(endpoint, grant, stream), warnings })
    }
}

/// Logs in once, over the connection of the first contact if there is one that is fresh.
async fn log_in(
    endpoint: &Endpoint,
    fresh: Option<(Stream, Instant)>,
    opening: &Opening,
    purpose: Purpose,
) -> Result<(Grant, Stream, Timestamp), EndpointError> {
    let (mut stream, server_time) = match fresh {
        Some((stream, since)) if since.elapsed() < FRESH_MAX => greet(stream).await?,
        Some(_) | None => endpoint.greeted().await?,
    };
    let deadline = match purpose {
        Purpose::Mount => LOGIN_MAX,
        Purpose::TakeOver => TAKEOVER_MAX,
    };
    match within(deadline, Phase::Login, open(&mut stream, opening, Phase::Login)).await? {
        Opened::Session(grant) => Ok((*grant, stream, server_time)),
        Opened::Attached => Err(EndpointError::Nonsense("attached, not logged in")),
        Opened::Refused(refusal) => Err(EndpointError::Refused(refusal)),
    }
}

/// Where more links of a session lead, and what is expected there.
struct Endpoint {
    target: Target,
    address: SocketAddr,
    verification: Verification,
}

impl Endpoint {
    /// One more connection, to the same address and the same key.
    async fn open(&self) -> Result<Stream, EndpointError> {
        let stream = within(PHASE_MAX, Phase::Connect, tcp::connect(&[self.address])).await?;
        let name = self.target.server_name().ok_or(EndpointError::Nonsense("the host's name"))?;
        let handshake = tls::handshake(stream, name, &self.verification);
        match within(PHASE_MAX, Phase::Handshake, handshake).await {
            // It is known to be an xfer server.
            Err(EndpointError::HangsUp(error)) => {
                Err(EndpointError::Broken(Phase::Handshake, error))
            }
            shaken => shaken,
        }
    }

    /// One more link of the session, though the server may be busy.
    async fn attach(&self, session: SessionId, secret: Secret) -> Result<Stream, EndpointError> {
        though_busy(ATTACH_MAX, || self.attach_once(session, secret.clone())).await
    }

    /// One more connection, and what time it is at its other end.
    async fn greeted(&self) -> Result<(Stream, Timestamp), EndpointError> {
        greet(self.open().await?).await
    }

    /// One more link of the session.
    async fn attach_once(
        &self,
        session: SessionId,
        secret: Secret,
    ) -> Result<Stream, EndpointError> {
        let (mut stream, _) = self.greeted().await?;
        let opening = Opening::Attach { session, secret };
        let opened = open(&mut stream, &opening, Phase::Attach);
        match within(PHASE_MAX, Phase::Attach, opened).await? {
            Opened::Attached => Ok(stream),
            Opened::Session(_) => Err(EndpointError::Nonsense("logged in, not attached")),
            Opened::Refused(refusal) => Err(EndpointError::Refused(refusal)),
        }
    }
}

/// Tries again while the server may just be busy, for as long as `limit`.
async fn though_busy<T, F>(
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, EndpointError>
where
    F: Future<Output = Result<T, EndpointError>>,
{
    let start = Instant::now();
    let (mut pause, mut is_busy) = (AGAIN.start, false);
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            // One that said that it is busy is an xfer server.
            Err(EndpointError::HangsUp(_)) if is_busy => EndpointError::Refused(Refusal::Busy),
            Err(error) => error,
        };
        is_busy |= matches!(error, EndpointError::Refused(Refusal::Busy));
        let patience = patience_with(&error).map(|patience| patience.min(limit));
        if patience.is_none_or(|patience| start.elapsed() + pause >= patience) {
            return Err(error);
        }
        tracing::debug!("connecting again: {error}");
        tokio::time::sleep(spread(pause)).await;
        pause = (pause * 2).min(AGAIN.end);
    }
}

/// For how long it is tried again after such an error, if it may be that the server is busy.
fn patience_with(error: &EndpointError) -> Option<Duration> {
    match error {
        EndpointError::Refused(Refusal::Busy) => Some(BUSY_MAX),
        EndpointError::HangsUp(_) => Some(HANGS_UP_MAX),
        // Not once the password was sent: the session may have begun.
        EndpointError::Broken(Phase::Handshake | Phase::Hello | Phase::Attach, _) => Some(BUSY_MAX),
        EndpointError::Broken(Phase::Resolve | Phase::Connect | Phase::Login, _)
        | EndpointError::Refused(_)
        | EndpointError::NotXfer(_)
        | EndpointError::NotFound(_)
        | EndpointError::NothingThere
        | EndpointError::Unreachable(_)
        | EndpointError::TimedOut(_)
        | EndpointError::Certificate(_)
        | EndpointError::Tls(_)
        | EndpointError::KeySwapped
        | EndpointError::Version { .. }
        | EndpointError::Nonsense(_) => None,
    }
}

/// Half of a pause to all of it, at random: those who were turned away together don't come again
/// together.
fn spread(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) >> 32;
    pause / 2 + pause.mul_f64(random as f64 / f64::from(u32::MAX)) / 2
}

fn session(endpoint: Endpoint, grant: Grant, stream: Stream) -> Session {
    let endpoint = Arc::new(endpoint);
    let (id, secret) = (grant.session, grant.secret.clone());
    let dial = move || {
        let (endpoint, secret) = (endpoint.clone(), secret.clone());
        let dialling = async move { endpoint.attach(id, secret).await.map(halves).map_err(as_io) };
        Box::pin(dialling) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    };
    let (reader, writer) = halves(stream);
    Session { grant, reader, writer, dial: Arc::new(dial) }
}

fn halves(stream: Stream) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(stream);
    (Box::new(reader), Box::new(writer))
}

fn as_io(error: EndpointError) -> io::Error {
    let kind = match &error {
        EndpointError::TimedOut(_) => io::ErrorKind::TimedOut,
        EndpointError::Unreachable(error)
        | EndpointError::HangsUp(error)
        | EndpointError::Broken(_, error) => error.kind(),
        EndpointError::NothingThere => io::ErrorKind::ConnectionRefused,
        EndpointError::KeySwapped | EndpointError::Refused(_) => io::ErrorKind::PermissionDenied,
        EndpointError::NotFound(_)
        | EndpointError::NotXfer(_)
        | EndpointError::Certificate(_)
        | EndpointError::Tls(_)
        | EndpointError::Version { .. }
        | EndpointError::Nonsense(_) => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Agrees on the version; gives the server's time.
async fn greet(mut stream: Stream) -> Result<(Stream, Timestamp), EndpointError> {
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

async fn open(
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
        LinkError::Io(error) => EndpointError::Broken(phase, error),
        error @ (LinkError::Frame(_) | LinkError::Codec(_)) => match phase {
            Phase::Login | Phase::Attach => EndpointError::Nonsense("its answer to the login"),
            Phase::Resolve | Phase::Connect | Phase::Handshake | Phase::Hello => {
                NotXfer::Greeting(error.to_string()).into()
            }
        },
    }
}

/// The parts of a grant that the client relies on and can check.
fn check_grant(grant: &Grant) -> Result<(), EndpointError> {
    let ids = grant.ids;
    let fits =
        ids.first >= Ino::FIRST_GRANTED && ids.first <= ids.end && ids.end - ids.first <= IDS_MAX;
    // Counts that are added to: no tree comes to a quarter of what they can hold.
    let counts = [grant.applied.0, grant.usage.bytes, grant.usage.nodes];
    if !counts.iter().all(|count| *count < u64::MAX / 4) {
        return Err(EndpointError::Nonsense("the size of the tree"));
    }
    if fits { Ok(()) } else { Err(EndpointError::Nonsense("the numbers it grants")) }
}

fn skew_warning(server: Timestamp, own: SystemTime) -> Option<String> {
    let server = SystemTime::from(server);
    let (apart, word) = match server.duration_since(own) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (apart > SKEW_MAX).then(|| {
        format!(
            "the server's clock is {} s {word} this machine's: times of files will look odd; \
             set the clock that is wrong",
            apart.as_secs()
        )
    })
}

/// This machine's name, for whoever is refused because of this session.
fn host_name() -> String {
    const BYTES_MAX: usize = 64;
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fitting = name.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = fitting.take_while(|end| *end <= BYTES_MAX).last().unwrap_or(0);
    name[..end].to_owned()
}

async fn within<T>(
    deadline: Duration,
    phase: Phase,
    step: impl Future<Output = Result<T, EndpointError>>,
) -> Result<T, EndpointError> {
    timeout(deadline, step).await.unwrap_or(Err(EndpointError::TimedOut(phase)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check_skew(apart_secs: i64, expected: Option<&str>) {
        let server = Timestamp::new(1_000_000 + apart_secs, 0).unwrap();
        let own = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let warning = skew_warning(server, own);
        assert_eq!(warning.is_some(), expected.is_some());
        assert!(warning.unwrap_or_default().contains(expected.unwrap_or_default()));
    }

    #[test]
    fn clocks_far_apart_are_warned_of() {
        check_skew(0, None);
        check_skew(300, None);
        check_skew(-300, None);
        check_skew(301, Some("301 s ahead of"));
        check_skew(-4000, Some("4000 s behind"));
    }

    #[test]
    fn those_turned_away_together_come_again_at_different_times() {
        let pause = Duration::from_secs(1);
        let pauses: Vec<Duration> = (0..100).map(|_| spread(pause)).collect();
        assert!(pauses.iter().all(|spread| (pause / 2..=pause).contains(spread)), "{pauses:?}");
        let early = pauses.iter().filter(|spread| **spread < pause * 3 / 4).count();
        assert!((10..90).contains(&early), "{pauses:?}");
    }

    #[test]
    fn a_host_name_fits_the_message() {
        assert!(host_name().len() <= 64);
    }
}
