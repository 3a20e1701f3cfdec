//! The first steps of every command that talks to a server: connect, and decide whether to trust it.
//!
//! A mount may have to wait for the server, since a machine that boots has no network at first. Only a
//! server that can't be reached is waited for: what a user has to put right is said at once.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use xfer_client::connect::{self, KnownHosts, Peer, Target, TrustMode, TrustPolicy};

use crate::command::options::{Retry, Wait};
use crate::command::terminal::OnTerminal;
use crate::process::exit::{Exit, Failure};
use crate::process::report::report;

/// The pauses between tries: the first and the longest.
const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(5);

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
    reach_within(Retry::default(), target, mode, known_hosts, runtime)
}

/// Like [`reach`], and tries again for a while if the server can't be reached.
///
/// # Errors
/// As [`reach`].
pub fn reach_within(
    retry: Retry,
    target: &Target,
    mode: &TrustMode,
    known_hosts: Option<PathBuf>,
    runtime: &Runtime,
) -> Result<Peer, Failure> {
    let policy = TrustPolicy { mode: mode.clone(), known_hosts: file(known_hosts)? };
    let (start, mut pause) = (Instant::now(), AGAIN_MIN);
    let contact = loop {
        let failure = match runtime.block_on(connect::reach(target, &policy.mode)) {
            Ok(contact) => break contact,
            Err(error) => Failure::from(error),
        };
        let is_over = match retry.0 {
            Wait::Forever => false,
            Wait::AtMost(limit) => start.elapsed() + pause > limit,
        };
        if failure.exit != Exit::Unreachable || is_over {
            return Err(failure);
        }
        if pause == AGAIN_MIN {
            report(&format!("{}; trying again {}", failure.line, span(retry)));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(AGAIN_MAX);
    };
    Ok(contact.trust(&policy, &mut OnTerminal)?)
}

fn span(retry: Retry) -> String {
    match retry.0 {
        Wait::Forever => "until it answers".to_owned(),
        Wait::AtMost(limit) => format!("for {} s", limit.as_secs()),
    }
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
