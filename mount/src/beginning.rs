//! How a session of this user begins: what an earlier mount has left is sent first, then the login, with
//! questions on the terminal where needed.

use std::path::PathBuf;

use tokio::runtime::Runtime;
#[cfg(not(target_os = "linux"))]
use xfer_client::connect::Peer;
use xfer_client::connect::{ConnectError, Identity, Login, Target, TrustMode};
use xfer_client::core::Options;
use xfer_client::offline::Place;
use xfer_protocol::SessionId;
use xfer_protocol::message::Purpose;
use xfer_protocol::shown::Shown;

use crate::command::config::PasswordSource;
use crate::command::identity;
use crate::command::options::Retry;
use crate::command::terminal;
#[cfg(target_os = "linux")]
use crate::offline::send_left;
use crate::process::exit::Failure;
use crate::process::report::report;
use crate::reaching::reach_within;
use crate::session_note::{SessionNote, SessionNotes};

/// What a login needs.
pub struct Beginning<'a> {
    /// The account and its server.
    pub target: &'a Target,
    /// How the server proves who it is.
    pub trust: &'a TrustMode,
    /// The file of known servers; `None` for the user's own.
    pub known_hosts: Option<PathBuf>,
    /// Where the password comes from.
    pub password: &'a PasswordSource,
    /// Whether to take the tree from another client.
    pub takeover: bool,
    /// The settings of the client to come.
    pub options: Options,
    /// How long to wait for a server that can't be reached.
    pub retry: Retry,
}

impl Beginning<'_> {
    /// Logs in, asking on the terminal where needed.
    ///
    /// # Errors
    /// If the server can't be reached, is not trusted, or refuses.
    pub fn login(&self, runtime: &Runtime) -> Result<Login, Failure> {
        let known_hosts = self.known_hosts.clone();
        let peer = reach_within(self.retry, self.target, self.trust, known_hosts, runtime)?;
        let purpose = if self.takeover { Purpose::TakeOver } else { Purpose::Mount };
        let options = &self.options;
        let in_use = send_left(&peer, options, purpose, runtime)?;
        let mut identity = identity::obtain(self.password, peer.label())?;
        let gone = SessionNotes::of(peer.label()).and_then(|notes| notes.last_gone());
        // Another process may be sending what its mount has left.
        let replaces = gone.filter(|session| !Place::is_held(peer.label(), *session));
        let log_in = |identity: &Identity, purpose| {
            runtime.block_on(peer.login(identity.clone(), purpose, replaces, options.terms()))
        };
        // A session that began now would overtake what waits here.
        let logged_in = match in_use.map_or_else(|| log_in(&identity, purpose), Err) {
            Err(error) if error.is_unknown_key() && terminal::terminal().is_some() => {
                report(&Failure::from(error).line);
                identity = identity::by_password(self.password, peer.label())?;
                log_in(&identity, purpose)
            }
            logged_in => logged_in,
        };
        let login = match logged_in {
            Err(error) if error.is_in_use() && self.wants_takeover(&error, peer.label()) => {
                send_left(&peer, options, Purpose::TakeOver, runtime)?;
                log_in(&identity, Purpose::TakeOver)?
            }
            login => login?,
        };
        login.warnings.iter().for_each(|warning| report(&format!("warning: {warning}")));
        Ok(login)
    }

    /// Asks a user who has just typed the password whether to take the tree from another mount.
    fn wants_takeover(&self, error: &ConnectError, label: &str) -> bool {
        if !matches!(self.password, PasswordSource::Prompt) {
            return false;
        }
        let error = error.to_string();
        let mounted = mounted_here(label).map(|place| place.display().to_string());
        let here = mounted.map(|place| format!("; here it is mounted at {}", Shown(&place)));
        let here = here.unwrap_or_default();
        terminal::agrees(&format!("{}{here}. Take it over? [y/N] ", Shown(&error)))
    }
}

/// Where the account is mounted by this user on this machine.
#[cfg(target_os = "linux")]
fn mounted_here(label: &str) -> Option<std::path::PathBuf> {
    crate::control::mount_of(label)
}

/// Nothing is mounted on other systems.
#[cfg(not(target_os = "linux"))]
fn mounted_here(_label: &str) -> Option<std::path::PathBuf> {
    None
}

/// Notes the session, so that the next one of the account can replace it if this process crashes.
pub fn note_session(label: &str, session: SessionId) -> Option<SessionNote> {
    let noted = SessionNotes::of(label)?.note(session);
    let noted = noted.inspect_err(|error| {
        report(&format!(
            "warning: the session cannot be noted, so if this process crashes, the next mount may \
             have to wait or use --takeover: {error}"
        ));
    });
    noted.ok()
}

/// Only a mount leaves anything here.
#[cfg(not(target_os = "linux"))]
fn send_left(
    _peer: &Peer,
    _options: &Options,
    _purpose: Purpose,
    _runtime: &Runtime,
) -> Result<Option<ConnectError>, Failure> {
    Ok(None)
}
