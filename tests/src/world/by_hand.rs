//! A login by hand: the links of a session without a client on them, for a test to drive.

use std::path::Path;

use xfer_client::connect::{
    Identity, KnownHosts, NewSession, Target, TrustMode, TrustPolicy, reach,
};
use xfer_mount::command::terminal::OnTerminal;
use xfer_protocol::Name;
use xfer_protocol::message::{Password, Purpose, Terms};

use crate::accounts;
use crate::server::Server;

/// Logs in a user with the password [`accounts::PASSWORD`]. `home` is a directory for the user's
/// files.
///
/// # Errors
/// The reason why the login failed.
pub async fn login(server: &Server, user: &Name, home: &Path) -> Result<NewSession, String> {
    login_with(accounts::PASSWORD.into(), server, user, home).await
}

/// The same with another password.
///
/// # Errors
/// The reason why the login failed.
pub async fn login_with(
    password: Vec<u8>,
    server: &Server,
    user: &Name,
    home: &Path,
) -> Result<NewSession, String> {
    let label = format!("{user}@{}", server.address);
    let target: Target = label.parse().map_err(|_| format!("{label} is no target"))?;
    let mode = TrustMode::Fingerprint(server.fingerprint.parse().unwrap());
    let known_hosts = KnownHosts::new(home.join("known_hosts"));
    let contact = reach(&target, &mode).await.map_err(|error| error.to_string())?;
    let policy = TrustPolicy { mode, known_hosts };
    let peer = contact.trust(&policy, &mut OnTerminal).map_err(|error| error.to_string())?;
    let login =
        peer.login(Identity::Password(Password(password)), Purpose::Mount, None, Terms::default());
    Ok(login.await.map_err(|error| error.to_string())?.session)
}
