//! A trusted server: every link to it goes to the same certificate or authorities, and every read
//! link to the address that the log link has reached. The name is looked up again for each new log
//! link, since this machine or the server may be in another network by then.
//!
//! **Invariant:** a password is sent only to a server whose certificate is trusted.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xfer_link::proof::SigningKey;
use xfer_protocol::message::{
    BINDING_LABEL, Binding, Credential, Done, Grant, Opened, Opening, Purpose, Resume, Return,
    Task, Terms,
};
use xfer_protocol::{SessionId, Timestamp};

use super::account::Identity;
use super::dial::{
    Begin, Bid, Credentials, Dial, Dialling, Happening, LogLink, Missed, Reader, Ticket, Writer,
};
use super::error::{EndpointError, Phase};
use super::greeting::{PHASE_MAX, greet, open, within};
use super::network::{self, NetworkChanges};
use super::retry::{BUSY_MAX, though_busy};
use super::target::Target;
use super::tcp;
use super::tls::{self, Stream, Verification};
use crate::core::can_be_granted;

/// The longest time that a login may take. Others may be before it in the queue, and each password
/// check is slow on purpose.
const LOGIN_MAX: Duration = Duration::from_secs(60);

/// The longest time that a takeover may take. The mount that has the tree drains its log first.
const TAKEOVER_MAX: Duration = Duration::from_secs(60);

/// The longest time that a server may take to continue a session. It first commits what it has of
/// the session on an earlier link. If it takes longer, the next try finds that done. The network may also
/// be another one by then.
const RESUME_MAX: Duration = Duration::from_secs(20);

/// The greatest age at which an unused connection is still used. A server waits only [`PHASE_MAX`]
/// for the first message.
const FRESH_MAX: Duration = Duration::from_secs(3);

/// The longest time to try to join a session. It is less than it takes to notice a silent
/// connection.
const ATTACH_MAX: Duration = Duration::from_secs(8);

/// The key of a session as bytes. It must be kept secret.
#[derive(Clone)]
pub struct SavedKey(pub Vec<u8>);

/// A trusted server, and the account on it.
pub(super) struct Server {
    target: Target,
    /// The address that the last log link has reached.
    address: Mutex<SocketAddr>,
    verification: Verification,
    /// The connection of the first contact, and the time at which it was made, until a login uses
    /// it.
    fresh: Mutex<Option<(Stream, Instant)>>,
    /// Proves that the session is this client's.
    key: SigningKey,
    changes: NetworkChanges,
    /// This machine's end of the last log link.
    local: Mutex<Option<SocketAddr>>,
    /// The socket of that link, as long as it is open.
    socket: Mutex<Weak<OwnedFd>>,
}

impl Dial for Server {
    fn log_link(&self, begin: Begin) -> Dialling<'_, LogLink> {
        Box::pin(async move {
            match begin {
                Begin::New { identity, purpose, replaces, terms } => {
                    Ok(self.log_in(identity, purpose, replaces, terms).await?.0)
                }
                Begin::Resume(ticket, bid) => self.resume(ticket, bid).await,
            }
        })
    }

    fn read_link(&self, credentials: Credentials) -> Dialling<'_, (Reader, Writer)> {
        Box::pin(async move {
            let attach = || self.attach_once(&credentials);
            though_busy(ATTACH_MAX, attach).await.map(halves)
        })
    }

    fn network_change(&self) -> Happening<'_> {
        Box::pin(self.changes.next())
    }

    fn give_up(&self) {
        if let Some(socket) = self.socket.lock().upgrade() {
            tcp::reset_when_closed(&socket);
        }
    }

    fn has_lost_address(&self) -> bool {
        self.local.lock().is_some_and(|local| !network::has_address(local))
    }
}

impl Server {
    /// A server that was reached at this address, over this connection.
    pub(super) fn new(
        target: Target,
        address: SocketAddr,
        verification: Verification,
        fresh: Mutex<Option<(Stream, Instant)>>,
    ) -> Result<Server, EndpointError> {
        let key = SigningKey::generate().map_err(|error| EndpointError::Tls(error.to_string()))?;
        Ok(Server::with_key(key, target, address, verification, fresh))
    }

    /// The same account and server, for a session that another client began with this key.
    pub(super) fn for_session(&self, key: &SavedKey) -> Result<Server, EndpointError> {
        let key =
            SigningKey::restore(&key.0).map_err(|error| EndpointError::Tls(error.to_string()))?;
        let (target, verification) = (self.target.clone(), self.verification.clone());
        let address = *self.address.lock();
        Ok(Server::with_key(key, target, address, verification, Mutex::default()))
    }

    fn with_key(
        key: SigningKey,
        target: Target,
        address: SocketAddr,
        verification: Verification,
        fresh: Mutex<Option<(Stream, Instant)>>,
    ) -> Server {
        let (changes, local) = (NetworkChanges::default(), Mutex::default());
        let socket = Mutex::default();
        let address = Mutex::new(address);
        Server { target, address, verification, fresh, key, changes, local, socket }
    }

    /// The key of the session, to be kept secret.
    pub(super) fn saved_key(&self) -> Result<SavedKey, EndpointError> {
        self.key.save().map(SavedKey).map_err(|error| EndpointError::Tls(error.to_string()))
    }

    /// Begins a session. Returns the server's time too.
    pub(super) async fn log_in(
        &self,
        identity: Identity,
        purpose: Purpose,
        replaces: Option<SessionId>,
        terms: Terms,
    ) -> Result<(LogLink, Timestamp), EndpointError> {
        let opening = |credential| {
            let (user, host, key) = (self.target.user.clone(), host_name(), self.key.public());
            Opening::Login { user, credential, purpose, host, key, replaces, terms }
        };
        let attempt = || self.log_in_once(&identity, &opening, purpose);
        let (grant, stream, time) = though_busy(BUSY_MAX, attempt).await?;
        check_grant(&grant)?;
        let (reader, writer) = self.log_halves(stream);
        Ok((LogLink { grant, missed: None, reader, writer }, time))
    }

    /// Logs in once, over the connection of the first contact if that is fresh.
    async fn log_in_once(
        &self,
        identity: &Identity,
        opening: &(impl Fn(Credential) -> Opening + Sync),
        purpose: Purpose,
    ) -> Result<(Grant, Stream, Timestamp), EndpointError> {
        let (mut stream, time) = self.greeted_first().await?;
        let opening = opening(identity.shown(&self.target.user, binding(&stream)?));
        let deadline = match purpose {
            Purpose::Mount => LOGIN_MAX,
            Purpose::TakeOver => TAKEOVER_MAX,
        };
        match within(deadline, Phase::Login, open(&mut stream, &opening, Phase::Login)).await? {
            Opened::Session(grant) => Ok((*grant, stream, time)),
            Opened::Attached | Opened::Resumed(_) | Opened::Returned(_) | Opened::Done(_) => {
                Err(EndpointError::Nonsense("attached, not logged in"))
            }
            Opened::Refused(refusal) => Err(EndpointError::Refused(refusal)),
        }
    }

    /// Has a task done that needs no session. `task` makes it for a connection, which it may have to
    /// sign.
    pub(super) async fn perform(
        &self,
        identity: &Identity,
        task: &(dyn Fn(Binding) -> Task + Sync),
    ) -> Result<Done, EndpointError> {
        though_busy(BUSY_MAX, || self.perform_once(identity, task)).await
    }

    async fn perform_once(
        &self,
        identity: &Identity,
        task: &(dyn Fn(Binding) -> Task + Sync),
    ) -> Result<Done, EndpointError> {
        let (mut stream, _) = self.greeted_first().await?;
        let (user, binding) = (self.target.user.clone(), binding(&stream)?);
        let credential = identity.shown(&user, binding);
        let opening = Opening::Account { user, credential, task: task(binding) };
        let opened = open(&mut stream, &opening, Phase::Login);
        match within(LOGIN_MAX, Phase::Login, opened).await? {
            Opened::Done(done) => Ok(done),
            Opened::Refused(refusal) => Err(EndpointError::Refused(refusal)),
            Opened::Session(_) | Opened::Resumed(_) | Opened::Returned(_) | Opened::Attached => {
                Err(EndpointError::Nonsense("logged in, and no task done"))
            }
        }
    }

    /// The account and its server.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Continues a session, at whatever address the server has now.
    async fn resume(&self, ticket: Ticket, bid: Bid) -> Result<LogLink, EndpointError> {
        let resolved = within(PHASE_MAX, Phase::Resolve, tcp::resolve(&self.target)).await;
        // A name may be known in one network and not in another.
        let addresses = resolved.unwrap_or_else(|_| vec![*self.address.lock()]);
        let (mut stream, _) = greet(self.connect(&addresses).await?).await?;
        let reached = stream.get_ref().0.peer_addr().map_err(EndpointError::Unreachable)?;
        let Ticket { session, secret, epoch, durable, attempt } = ticket;
        let (user, proof) =
            (self.target.user.clone(), self.key.prove_session(session, binding(&stream)?));
        let Bid { wish, terms } = bid;
        let request = Resume { user, session, secret, epoch, durable, attempt, wish, terms, proof };
        let opening = Opening::Resume(Box::new(request));
        let opened = open(&mut stream, &opening, Phase::Resume);
        let (grant, missed) = match within(RESUME_MAX, Phase::Resume, opened).await? {
            Opened::Resumed(grant) => (*grant, None),
            Opened::Returned(back) => {
                let Return { grant, base, changed } = *back;
                (grant, Some(Missed { base, changed }))
            }
            Opened::Attached | Opened::Session(_) | Opened::Done(_) => {
                return Err(EndpointError::Nonsense("attached, not continued"));
            }
            Opened::Refused(refusal) => return Err(EndpointError::Refused(refusal)),
        };
        check_grant(&grant)?;
        *self.address.lock() = reached;
        let (reader, writer) = self.log_halves(stream);
        Ok(LogLink { grant, missed, reader, writer })
    }

    /// The halves of a log link, which is the last one from now on.
    fn log_halves(&self, stream: Stream) -> (Reader, Writer) {
        let tcp = stream.get_ref().0;
        *self.local.lock() = tcp.local_addr().ok();
        let Ok(socket) = tcp.as_fd().try_clone_to_owned() else { return halves(stream) };
        let socket = Arc::new(socket);
        *self.socket.lock() = Arc::downgrade(&socket);
        let (reader, writer) = halves(stream);
        (Box::new(tcp::WithSocket { reader, _socket: socket }), writer)
    }

    /// Opens one more link of a session.
    async fn attach_once(&self, credentials: &Credentials) -> Result<Stream, EndpointError> {
        let (mut stream, _) = self.greeted().await?;
        let Credentials { session, secret } = credentials.clone();
        let opening = Opening::Attach { session, secret };
        let opened = open(&mut stream, &opening, Phase::Attach);
        match within(PHASE_MAX, Phase::Attach, opened).await? {
            Opened::Attached => Ok(stream),
            Opened::Session(_) | Opened::Resumed(_) | Opened::Returned(_) | Opened::Done(_) => {
                Err(EndpointError::Nonsense("logged in, not attached"))
            }
            Opened::Refused(refusal) => Err(EndpointError::Refused(refusal)),
        }
    }

    /// The connection of the first contact if that is fresh, or else one more, greeted.
    async fn greeted_first(&self) -> Result<(Stream, Timestamp), EndpointError> {
        let fresh = self.fresh.lock().take();
        match fresh {
            Some((stream, since)) if since.elapsed() < FRESH_MAX => greet(stream).await,
            Some(_) | None => self.greeted().await,
        }
    }

    /// Makes one more connection and greets the server. Returns the server's time too.
    async fn greeted(&self) -> Result<(Stream, Timestamp), EndpointError> {
        let address = *self.address.lock();
        greet(self.connect(&[address]).await?).await
    }

    /// Makes one more connection, to one of these addresses and the same key.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Stream, EndpointError> {
        let stream = within(PHASE_MAX, Phase::Connect, tcp::connect(addresses)).await?;
        let name = self.target.server_name().ok_or(EndpointError::Nonsense("the host's name"))?;
        let handshake = tls::handshake(stream, name, &self.verification);
        match within(PHASE_MAX, Phase::Handshake, handshake).await {
            // It is known to be an xfer server, so the network may have failed.
            Err(EndpointError::HangsUp(error)) => {
                Err(EndpointError::Broken(Phase::Handshake, error))
            }
            shaken => shaken,
        }
    }
}

/// The value that stands for this connection in a proof.
fn binding(stream: &Stream) -> Result<Binding, EndpointError> {
    let exported = stream.get_ref().1.export_keying_material([0; 32], BINDING_LABEL, None);
    exported.map(Binding).map_err(|error| EndpointError::Tls(error.to_string()))
}

fn halves(stream: Stream) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(stream);
    (Box::new(reader), Box::new(writer))
}

/// Checks the parts of a grant that the client relies on.
fn check_grant(grant: &Grant) -> Result<(), EndpointError> {
    let fits = can_be_granted(&grant.ids);
    // These are added to, and must not overflow. No tree comes to a quarter of what they can hold.
    let counts = [grant.applied.0, grant.usage.bytes, grant.usage.nodes];
    if !counts.iter().all(|count| *count < u64::MAX / 4) {
        return Err(EndpointError::Nonsense("the size of the tree"));
    }
    if fits { Ok(()) } else { Err(EndpointError::Nonsense("the numbers it grants")) }
}

/// This machine's name, cut to what a message takes. The server tells it to a login that it refuses
/// because of a session here.
pub fn host_name() -> String {
    const BYTES_MAX: usize = 64;
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fitting = name.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = fitting.take_while(|end| *end <= BYTES_MAX).last().unwrap_or(0);
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_fits_the_message() {
        assert!(host_name().len() <= 64);
    }
}
