//! The first steps of every command that talks to a server: connect, and decide whether to trust it.

use std::path::PathBuf;

use tokio::runtime::Runtime;
use xfer_client::connect::{self, KnownHosts, Peer, Target, TrustMode, TrustPolicy};

use crate::command::terminal::OnTerminal;
use crate::process::exit::{Exit, Failure};

/// Connects to a server, and asks on the terminal whether to trust it if that is not known.
/// `known_hosts` is `None` for the user's own file.
///
/// # Errors
/// If it can't be reached, or is not trusted.
pub fn reach(
    target: &Target,
    mode: &TrustMode,
    known_hosts: Option<PathBuf>,
    runtime: &Runtime,
) -> Result<Peer, Failure> {
    let policy = TrustPolicy { mode: mode.clone(), known_hosts: file(known_hosts)? };
    let contact = runtime.block_on(connect::reach(target, &policy.mode))?;
    Ok(contact.trust(&policy, &mut OnTerminal)?)
}

/// The file of known servers.
///
/// # Errors
/// If none is given, and there is no home.
pub fn file(known_hosts: Option<PathBuf>) -> Result<KnownHosts, Failure> {
    let path = known_hosts.or_else(KnownHosts::default_path).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home directory for known hosts; give --known-hosts")
    })?;
    Ok(KnownHosts::new(path))
}
