//! The reasons why no session began, each with one line that says what to do. The options of a command
//! line that help are not named here: a program that has them adds them.

use std::io;
use std::path::PathBuf;

use time::OffsetDateTime;
use time::macros::format_description;
use xfer_protocol::Timestamp;
use xfer_protocol::message::{Refusal, VERSION};
use xfer_protocol::shown::shown;

use super::trust::TrustError;
use crate::core::Holder;

/// A reason why no session began.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of authorities can't be used.
    #[error("authorities in {}: {why}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// The problem with it.
        why: String,
    },
    /// The server, or the network on the way to it, failed or refused.
    #[error("{endpoint}: {error}")]
    Endpoint {
        /// `host:port`, or `user@host:port`.
        endpoint: String,
        /// The problem.
        #[source]
        error: EndpointError,
    },
    /// The server is not trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A problem with the server, or with the network on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The name has no address.
    #[error("no such host; check its spelling, and this machine's network")]
    NotFound(io::Error),
    /// Nothing listens on the port.
    #[error("connection refused; is xfer-server running there, and is it the right port?")]
    NothingThere,
    /// The network has no way to the host.
    #[error("cannot reach it ({0}); check the network and the server's firewall")]
    Unreachable(io::Error),
    /// There was no answer in time.
    #[error("no answer {0}; check host and port, the network and the server's firewall")]
    TimedOut(Phase),
    /// The peer is not an xfer server.
    #[error("this is not an xfer server: {0}; check host and port")]
    NotXfer(#[from] NotXfer),
    /// The peer closes connections before it has shown what it is.
    #[error(
        "it closes every connection during the TLS handshake ({0}): it is overloaded, or not an xfer \
         server; try again, or check host and port"
    )]
    HangsUp(io::Error),
    /// The authorities don't vouch for the certificate.
    #[error("its certificate is not valid: {0}; replace it")]
    Certificate(String),
    /// TLS failed in another way.
    #[error("TLS failed: {0}; check that both sides have the same version of xfer")]
    Tls(String),
    /// The server's key differs from the one that was trusted when the session began.
    #[error(
        "its certificate has changed since it was mounted; if its administrator confirms the new one, \
         unmount, and mount again, which says how to trust it, otherwise someone may be posing as the server"
    )]
    KeySwapped,
    /// The two sides have no version of the protocol in common.
    #[error(
        "it speaks versions {version_min} to {version_max} of the protocol, this client version \
         {VERSION}; update the older side"
    )]
    Version {
        /// The oldest version the server speaks.
        version_min: u16,
        /// The newest version the server speaks.
        version_max: u16,
    },
    /// The server is an xfer server, and refused.
    #[error("{}", refusal_line(.0))]
    Refused(Refusal),
    /// The connection broke.
    #[error("the connection broke {0} ({1}); try again, or see the server's log")]
    Broken(Phase, io::Error),
    /// The server's answer makes no sense.
    #[error("it sent an invalid answer ({0}); check that both sides have the same version of xfer")]
    Nonsense(&'static str),
}

/// How the peer shows that it is not an xfer server.
#[derive(Debug, thiserror::Error)]
pub enum NotXfer {
    /// It sent bytes that are not TLS.
    #[error("it does not speak TLS")]
    NoTls,
    /// It speaks an older version of TLS.
    #[error("it does not speak TLS 1.3")]
    OldTls,
    /// It speaks TLS for another protocol.
    #[error("it uses TLS for another protocol")]
    OtherTls,
    /// It agreed to speak xfer, and then did not.
    #[error("it did not send an xfer greeting ({0})")]
    Greeting(String),
}

/// The step during which an error occurred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Looking up the host's name.
    Resolve,
    /// Connecting by TCP.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Agreeing on a version.
    Hello,
    /// Logging in.
    Login,
    /// Opening one more link of a session.
    Attach,
    /// Continuing a session.
    Resume,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "while looking up its name",
            Phase::Connect => "while connecting",
            Phase::Handshake => "during the TLS handshake",
            Phase::Hello => "to the greeting",
            Phase::Login => "during login",
            Phase::Attach => "while joining the session",
            Phase::Resume => "while continuing the session",
        })
    }
}

impl ConnectError {
    /// Whether another client has the account's seat.
    pub fn is_in_use(&self) -> bool {
        match self {
            ConnectError::Endpoint { error, .. } => error.holder().is_some(),
            ConnectError::Authorities { .. } | ConnectError::Trust(_) => false,
        }
    }

    /// Whether the server has refused: it did not do what it was asked for.
    pub fn is_refusal(&self) -> bool {
        matches!(self, ConnectError::Endpoint { error: EndpointError::Refused(_), .. })
    }

    /// Whether the account does not know this device's key.
    pub fn is_unknown_key(&self) -> bool {
        let ConnectError::Endpoint { error, .. } = self else { return false };
        matches!(error, EndpointError::Refused(Refusal::UnknownKey))
    }
}

impl EndpointError {
    /// The refusal that ends a session for good, if it is one. Other problems may pass: the network
    /// comes back, the server is started or updated, or its certificate is put right.
    pub(crate) fn ends_session(&self) -> Option<Refusal> {
        let EndpointError::Refused(refusal) = self else { return None };
        match refusal {
            Refusal::NoSession
            | Refusal::WrongPassword
            | Refusal::RolledBack
            | Refusal::UnknownKey
            | Refusal::KeysOnly
            | Refusal::Disabled
            | Refusal::UsedInvitation
            | Refusal::PasswordNeeded
            | Refusal::TooManyKeys => Some(refusal.clone()),
            Refusal::Blocked { .. }
            | Refusal::InUse { .. }
            | Refusal::Stopping
            | Refusal::Busy
            | Refusal::Internal
            | Refusal::Claimed => None,
        }
    }

    /// The client that has the seat, if it was refused because of that.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let EndpointError::Refused(Refusal::InUse { host, address, .. }) = self else {
            return None;
        };
        Some(Holder { host: host.clone(), address: address.clone() })
    }

    /// This error together with the server that it is about.
    pub fn at(self, endpoint: impl Into<String>) -> ConnectError {
        ConnectError::Endpoint { endpoint: endpoint.into(), error: self }
    }
}

fn refusal_line(refusal: &Refusal) -> String {
    match refusal {
        Refusal::WrongPassword | Refusal::Blocked { .. } => refusal.to_string(),
        Refusal::InUse { host, address, since } => format!(
            "the account is in use on {} ({}), since {}",
            harmless(host),
            harmless(address),
            moment(*since)
        ),
        Refusal::NoSession => "the session is over; mount again".to_owned(),
        Refusal::Stopping => "the server is stopping; try again when it is back".to_owned(),
        Refusal::Busy => "the server is too busy; try again in a moment".to_owned(),
        Refusal::Internal => "the server failed; its log says why".to_owned(),
        Refusal::Claimed => {
            "the server's administrator is importing or exporting this account; try again later"
                .to_owned()
        }
        Refusal::RolledBack => refusal.to_string(),
        Refusal::UnknownKey => format!("{refusal}; log in again"),
        Refusal::Disabled => format!("{refusal}; ask the administrator to enable it"),
        Refusal::KeysOnly => format!("{refusal}; ask its administrator for an invitation"),
        Refusal::UsedInvitation => format!("{refusal}; ask for another"),
        Refusal::PasswordNeeded => format!("{refusal}; give the password"),
        Refusal::TooManyKeys => format!("{refusal}; revoke one that is not used any more"),
    }
}

/// Text from the server, made fit for a terminal: short, and with invisible characters escaped.
fn harmless(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    let end = text.char_indices().nth(CHARS_MAX).map_or(text.len(), |(end, _)| end);
    shown(&text[..end])
}

/// A time in UTC, since asking for the local offset is unsound once there are threads.
fn moment(time: Timestamp) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    OffsetDateTime::from_unix_timestamp(time.secs())
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_server_says_cannot_play_with_the_terminal() {
        let refusal = Refusal::InUse {
            host: "lap\x1b[2Jtop".to_owned(),
            address: "10.0.0.1".to_owned(),
            since: Timestamp::new(0, 0).unwrap(),
        };
        let error = EndpointError::Refused(refusal).at("alice@host:33000");
        assert_eq!(
            error.to_string(),
            "alice@host:33000: the account is in use on lap\\u{1b}[2Jtop (10.0.0.1), since \
             1970-01-01 00:00:00 UTC"
        );
    }

    #[test]
    fn a_block_says_for_how_long() {
        let error = EndpointError::Refused(Refusal::Blocked { seconds: 42 }).at("alice@host:1");
        assert_eq!(
            error.to_string(),
            "alice@host:1: blocked after too many wrong passwords; try again in 42 s"
        );
    }
}
