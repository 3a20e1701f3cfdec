//! Invitations: one line to paste, with which the user's machine trusts this server, sets the
//! account's password and gets a key.

use std::net::Ipv6Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xfer_protocol::invitation::Invitation;
use xfer_protocol::message::InviteCode;
use xfer_protocol::{Name, Timestamp};
use xfer_store::embedded::StoreLock;
use xfer_store::{Account, CodeHash};

use super::super::running::{self, Server};
use super::ledger::{self, Context, Ledger};
use crate::listener::identity::{Fingerprint, Identity};
use crate::moment;
use crate::program::control::{Answer, Command};
use crate::program::exit::{Exit, Failure};

/// For how long an invitation is good, in seconds.
const GOOD_SECS: i64 = 24 * 60 * 60;

/// The port that clients try unless another is given.
const PORT_DEFAULT: u16 = 33_000;

/// A host name or address, and maybe a port, as users give it after the `@`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host {
    host: String,
    port: Option<u16>,
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Host, &'static str> {
        const RULE: &str = "give a host name, or an address (IPv6 in brackets), maybe with :PORT";
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                let _: Ipv6Addr = address.parse().map_err(|_| RULE)?;
                (
                    &text[..address.len() + 2],
                    port.strip_prefix(':').or((!port.is_empty()).then_some("x")),
                )
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_host = host.starts_with('[') || !host.is_empty() && host.chars().all(is_name);
        let port = port.map(|port| port.parse::<u16>().map_err(|_| RULE)).transpose()?;
        match is_host && port != Some(0) {
            true => Ok(Host { host: host.to_owned(), port }),
            false => Err(RULE),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Host, &'static str> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(Host { host, port }: Host) -> String {
        port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }
}

/// Invites the user of an existing account to enrol a machine.
pub fn again(context: &mut Context<'_>, name: &str, host: Option<&Host>) -> Result<(), Failure> {
    let (ledger, account) = ledger::find(context, name)?;
    invite(context, &ledger, &account, host)
}

/// Makes an invitation, and prints the line that uses it. It names this machine unless another host
/// is given, by which clients reach the server.
pub fn invite(
    context: &mut Context<'_>,
    ledger: &Ledger,
    account: &Account,
    host: Option<&Host>,
) -> Result<(), Failure> {
    let (port, fingerprint) = whereabouts(&context.store.dir)?;
    let code = InviteCode(draw()?);
    let now = Timestamp::from(SystemTime::now());
    let expires = Timestamp::new(now.secs() + GOOD_SECS, 0).unwrap_or(now);
    let hash = CodeHash(Sha256::digest(code.0).into());
    let made = xfer_store::Invitation { code: hash, expires };
    ledger.waiter.wait(ledger.keys().invite(account.id, made))?;
    let (host_is_guessed, is_running) = (host.is_none(), port.is_some());
    let (host, given) = match host {
        Some(Host { host, port }) => (host.clone(), *port),
        None => (machine_name(), None),
    };
    let port = given.or(port).unwrap_or_else(|| {
        context.console.note(&format!(
            "no server runs on this store, so the line names port {PORT_DEFAULT}; to name another: \
             --host {host}:PORT"
        ));
        PORT_DEFAULT
    });
    if host_is_guessed && is_running {
        context.console.note(&format!(
            "the line names this machine as {host}; if clients reach it by another name: --host NAME"
        ));
    }
    let invitation = Invitation { code, fingerprint: fingerprint.0 };
    context.console.note(&format!(
        "good for one machine, until {}; give it to {} in confidence:",
        moment::display(expires.secs()),
        account.name
    ));
    context.console.print(&line(&account.name, &with_port(&host, port), &invitation))
}

fn line(user: &Name, host: &str, invitation: &Invitation) -> String {
    format!("xfer login '{user}@{host}#{invitation}'")
}

fn with_port(host: &str, port: u16) -> String {
    if port == PORT_DEFAULT { host.to_owned() } else { format!("{host}:{port}") }
}

fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The port and the certificate's fingerprint of the server that runs on the store; without one, the
/// fingerprint that it will have unless it is started with another certificate.
fn whereabouts(store: &Path) -> Result<(Option<u16>, Fingerprint), Failure> {
    match Server::of(store).ask(&Command::Address) {
        Ok(Answer::Address { port, fingerprint }) => Ok((Some(port), fingerprint)),
        Ok(_) => Err(running::nonsense()),
        Err(Failure { exit: Exit::NotRunning, .. }) => {
            // The certificate may have to be made, which a server that starts does too.
            let _lock = StoreLock::take(store)?;
            let identity = Identity::of_store(store).map_err(|error| {
                let line =
                    format!("no certificate for clients to trust ({error}); check the store");
                Failure::new(Exit::Tls, line)
            })?;
            Ok((None, identity.fingerprint()))
        }
        Err(failure) => Err(failure),
    }
}

fn draw() -> Result<[u8; 16], Failure> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let mut bytes = [0; 16];
    random.fill(&mut bytes).map_err(|_| {
        Failure::new(Exit::Other, "the system gives no random bytes; try again later")
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_line_is_one_that_a_shell_passes_on_as_it_is() {
        let invitation = Invitation { code: InviteCode([0; 16]), fingerprint: [0; 32] };
        let alice = Name::new(b"alice").unwrap();
        let line = line(&alice, &with_port("files.example.org", 33_000), &invitation);
        assert_eq!(line, format!("xfer login 'alice@files.example.org#{}'", "A".repeat(64)));
        assert_eq!(with_port("host", 33_001), "host:33001");
    }

    #[test]
    fn a_host_is_a_name_or_an_address_maybe_with_a_port() {
        let host = |text: &str| text.parse::<Host>().map(|Host { host, port }| (host, port)).ok();
        let good = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(host("files.example.org"), good("files.example.org", None));
        assert_eq!(host("192.0.2.1:33001"), good("192.0.2.1", Some(33_001)));
        assert_eq!(host("[2001:db8::1]"), good("[2001:db8::1]", None));
        assert_eq!(host("[::1]:5"), good("[::1]", Some(5)));
        for text in ["files.example.org", "192.0.2.1:33001", "[::1]:5"] {
            assert_eq!(String::from(text.parse::<Host>().unwrap()), text);
        }
        for wrong in
            ["", "a b", "x'y", "::1", "h:99999", "http://x/", "h:", "h:0", "[x]", "[::1]5", ":5"]
        {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }
}
