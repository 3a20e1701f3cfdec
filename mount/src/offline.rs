//! Working offline: what an earlier mount has left on this machine's disk is sent before the next one
//! begins.
//!
//! **Invariant:** what was left is removed only once it is durable on the server, or is kept as a
//! rescue.

use std::io;
use std::sync::Arc;

use tokio::runtime::Runtime;
use xfer_client::connect::{NewSession, Peer};
use xfer_client::core::{Change, Ending, LinkLoss, Options};
use xfer_client::drive::{Client, Journal, Surroundings};
use xfer_client::offline::Left;
use xfer_protocol::Seq;
use xfer_protocol::message::{Purpose, Refusal};

use crate::process::exit::{Exit, Failure};
use crate::process::report::report;
use crate::rescue;

/// Sends what earlier mounts of the account have left. What the server does not take any more becomes
/// a rescue. If another mount has the account, everything stays for later, unless that one is to be
/// taken over.
///
/// # Errors
/// If the server can't be reached now. What was left stays for the next time.
pub fn send_left(
    peer: &Peer,
    options: &Options,
    purpose: Purpose,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let label = peer.label();
    let left = Left::of(label).map_err(|error| unreadable(label, &error))?;
    for left in left {
        let count = left.count();
        report(&format!("{label}: sending {count} changes that an earlier mount left here"));
        let Some((ticket, key)) = left.ticket() else {
            keep(&left, label, "its claim to the session can't be read")?;
            left.remove().map_err(|error| unreadable(label, &error))?;
            continue;
        };
        let attempt = ticket.attempt;
        // Before it is used, since the server takes no request with this number a second time.
        let noted = runtime.block_on(left.place().note_ticket(ticket.clone()));
        noted.map_err(|error| unreadable(label, &error))?;
        let why = match runtime.block_on(peer.resume(ticket, &key)) {
            Ok(session) => match session.link.missed.clone() {
                None => runtime.block_on(send(session, attempt, &left, options)),
                Some(missed) => {
                    // Before the server learns that this client knows of the changes.
                    if !left.changes_after(missed.base).is_empty() {
                        keep(&left, label, &Ending::Displaced.to_string())?;
                    }
                    left.remove().map_err(|error| unreadable(label, &error))?;
                    // A session that can't be ended now is replaced by the next one.
                    let (none, surroundings) = (Vec::new(), Surroundings::real());
                    let ended =
                        Client::replay(session, attempt, none, options.clone(), surroundings);
                    let _ = runtime.block_on(ended);
                    continue;
                }
            },
            Err(error) if error.is_in_use() && purpose == Purpose::Mount => {
                report(&format!("{label}: they wait, since another mount has the account"));
                return Ok(());
            }
            Err(error) if error.is_in_use() || error.ends_session() => {
                Err(Sent::No(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        match why {
            Ok(()) => {}
            Err(Sent::No(why)) => keep(&left, label, &why)?,
            Err(Sent::NotNow(loss)) => {
                let line = format!(
                    "{label}: {loss}; what an earlier mount left here waits for the next one"
                );
                return Err(Failure::new(Exit::Unreachable, line));
            }
        }
        left.remove().map_err(|error| unreadable(label, &error))?;
    }
    Ok(())
}

/// Why what was left is not on the server.
enum Sent {
    /// It never will be.
    No(String),
    /// The link was lost.
    NotNow(LinkLoss),
}

/// Sends what was left over a session that goes on, and ends that.
async fn send(
    session: NewSession,
    attempt: u64,
    left: &Left,
    options: &Options,
) -> Result<(), Sent> {
    let applied = session.link.grant.applied;
    let changes = left.changes_after(applied);
    if !is_gapless(&changes, applied) {
        return Err(Sent::No(Ending::Refused(Refusal::RolledBack).to_string()));
    }
    let journal: Option<Arc<dyn Journal>> = Some(Arc::new(left.place()));
    let surroundings = Surroundings { journal, ..Surroundings::real() };
    let sent = Client::replay(session, attempt, changes, options.clone(), surroundings).await;
    match sent.map_err(|lost| lost.ending) {
        Ok(()) => Ok(()),
        Err(ending @ Ending::LinkLost(LinkLoss::DiskFull)) => Err(Sent::No(ending.to_string())),
        Err(Ending::LinkLost(loss)) => Err(Sent::NotNow(loss)),
        Err(ending) => Err(Sent::No(ending.to_string())),
    }
}

/// Whether changes follow on those that the server has applied, and on each other.
fn is_gapless(changes: &[Change], applied: Seq) -> bool {
    let mut next = applied.next();
    changes.iter().all(|change| {
        let follows = change.seq == next;
        next = next.next();
        follows
    })
}

/// Keeps what was left as a rescue.
fn keep(left: &Left, label: &str, why: &str) -> Result<(), Failure> {
    let kept = rescue::keep(label, why, left.trace());
    let path = kept.map_err(|error| {
        let line = format!("{label}: what an earlier mount left here can't be kept: {error}");
        Failure::new(Exit::Other, line)
    })?;
    report(&format!(
        "{label}: {why}; what an earlier mount left here is kept in {}; see: xfer rescue list",
        path.display()
    ));
    Ok(())
}

fn unreadable(label: &str, error: &io::Error) -> Failure {
    let line = format!("{label}: what an earlier mount left on this machine: {error}");
    Failure::new(Exit::Other, line)
}
