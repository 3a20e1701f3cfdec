//! The steps to a session that the user takes part in: contact, trust, login.
//!
//! **Invariant:** a server waits for no human. The first contact's connection is dropped if the
//! user took too long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use xfer_protocol::message::{PublicKey, Purpose, Silence, Terms};
use xfer_protocol::{SessionId, Timestamp};

use super::account::Identity;
use super::dial::{Dial, NewSession};
use super::error::{ConnectError, EndpointError, Phase};
use super::greeting::{PHASE_MAX, within};
use super::retry::{BUSY_MAX, though_busy};
use super::server::{SavedKey, Server};
use super::target::Target;
use super::tcp;
use super::tls::{self, Stream, Verification};
use super::trust::{Asker, Fingerprint, TrustMode, TrustPolicy};

/// The largest difference between the two clocks without a warning.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// A server that was reached. Its key is not trusted yet, unless authorities vouched for it.
pub struct Contact {
    target: Target,
    address: SocketAddr,
    verification: Verification,
    shown: Fingerprint,
    stream: Stream,
    since: Instant,
}

/// A trusted server.
pub struct Peer {
    pub(super) server: Arc<Server>,
    label: String,
}

/// The result of a login.
pub struct Login {
    /// The session.
    pub session: NewSession,
    /// Warnings for the user, a line each.
    pub warnings: Vec<String>,
    /// Proves that the session is this client's, also after a crash.
    pub key: SavedKey,
    /// The key of this device, if that began it.
    pub device: Option<PublicKey>,
}

/// Connects to the server and looks at its certificate. Nothing is sent to it beyond the TLS
/// handshake.
///
/// # Errors
/// If the host is not found or does not answer, or is no xfer server, or authorities were given
/// and don't vouch for it.
pub async fn reach(target: &Target, mode: &TrustMode) -> Result<Contact, ConnectError> {
    let verification = match mode {
        TrustMode::Authorities(file) => Verification::Authorities(tls::read_authorities(file)?),
        TrustMode::Ask
        | TrustMode::AcceptNew
        | TrustMode::Fingerprint(_)
        | TrustMode::Vouched(_) => Verification::See,
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
    /// Decides whether to trust the server. Asks the user if need be.
    ///
    /// If the server is not trusted.
    pub fn trust(self, policy: &TrustPolicy, asker: &mut dyn Asker) -> Result<Peer, ConnectError> {
        policy.decide(&self.target.endpoint(), self.shown, asker)?;
        let verification = match self.verification {
            Verification::See => Verification::Pinned(self.shown),
            kept @ (Verification::Pinned(_) | Verification::Authorities(_)) => kept,
        };
        let label = self.target.to_string();
        let fresh = Mutex::new(Some((self.stream, self.since)));
        let server = Server::new(self.target, self.address, verification, fresh)
            .map_err(|error| error.at(&label))?;
        Ok(Peer { server: Arc::new(server), label })
    }
}

impl Peer {
    /// `user@host:port`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The way to a session that another client on this machine began and left.
    ///
    /// # Errors
    /// If `key` is damaged.
    pub fn dial_again(&self, key: &SavedKey) -> Result<Arc<dyn Dial>, ConnectError> {
        let server = self.server.for_session(key).map_err(|error| error.at(&self.label))?;
        Ok(Arc::new(server))
    }

    /// Logs in. The connection of the first contact is used if it is still fresh. `replaces` is a
    /// session of the account whose client has crashed on this machine.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks.
    pub async fn login(
        &self,
        identity: Identity,
        purpose: Purpose,
        replaces: Option<SessionId>,
        terms: Terms,
    ) -> Result<Login, ConnectError> {
        let Peer { server, label } = self;
        let device = match &identity {
            Identity::Device(key) => Some(key.public()),
            Identity::Password(_) | Identity::Invitation(_) => None,
        };
        let login = server.log_in(identity, purpose, replaces, terms).await;
        let (link, time) = login.map_err(|error| error.at(label))?;
        let key = server.saved_key().map_err(|error| error.at(label))?;
        let skew = skew_warning(time, SystemTime::now());
        let patience = patience_warning(terms.silence, link.grant.silence);
        let warnings = skew.into_iter().chain(patience).collect();
        let session = NewSession { link, dial: server.clone() };
        Ok(Login { session, warnings, key, device })
    }
}

fn patience_warning(asked: Silence, agreed: Silence) -> Option<String> {
    (agreed > asked).then(|| {
        format!(
            "the server wants a dead connection to be noticed after {} s, not {} s",
            agreed.time().as_secs_f32(),
            asked.time().as_secs_f32()
        )
    })
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
}
