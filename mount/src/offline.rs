//! Working offline: what an earlier mount has left on this machine's disk is sent before the next one
//! begins.
//!
//! **Invariant:** what was left is removed only once it is durable on the server, or is kept as a
//! rescue.

use std::io;
use std::sync::Arc;

use tokio::runtime::Runtime;
use xfer_client::connect::Peer;
use xfer_client::core::{Change, Ending, LinkLoss, Options};
use xfer_client::drive::{Client, Journal, Surroundings};
use xfer_client::offline::Left;
use xfer_protocol::Seq;
use xfer_protocol::message::Refusal;

use crate::process::exit::{Exit, Failure};
use crate::process::report::report;
use crate::rescue::Rescues;

/// Sends what earlier mounts of the account have left. What the server does not take any more becomes
/// a rescue.
///
/// # Errors
/// If the server can't be reached now. What was left stays for the next time.
pub fn send_left(peer: &Peer, options: &Options, runtime: &Runtime) -> Result<(), Failure> {
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
        let place = left.place();
        runtime
            .block_on(place.note_ticket(ticket.clone()))
            .map_err(|error| unreadable(label, &error))?;
        let why = match runtime.block_on(peer.resume(ticket, &key)) {
            Ok(session) => {
                let applied = session.link.grant.applied;
                let changes = left.changes_after(applied);
                if is_gapless(&changes, applied) {
                    let journal: Option<Arc<dyn Journal>> = Some(Arc::new(place));
                    let surroundings = Surroundings { journal, ..Surroundings::real() };
                    let options = options.clone();
                    let replay = Client::replay(session, attempt, changes, options, surroundings);
                    runtime.block_on(replay).err().map(|lost| lost.ending)
                } else {
                    Some(Ending::Refused(Refusal::RolledBack))
                }
            }
            Err(error) if error.ends_session() => {
                keep(&left, label, &error.to_string())?;
                None
            }
            Err(error) => return Err(error.into()),
        };
        match why {
            None => {}
            Some(ending @ Ending::LinkLost(LinkLoss::DiskFull)) => {
                keep(&left, label, &ending.to_string())?;
            }
            Some(Ending::LinkLost(loss)) => {
                let line = format!(
                    "{label}: {loss}; what an earlier mount left here waits for the next one"
                );
                return Err(Failure::new(Exit::Unreachable, line));
            }
            Some(ending) => keep(&left, label, &ending.to_string())?,
        }
        left.remove().map_err(|error| unreadable(label, &error))?;
    }
    Ok(())
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
    let none = || io::Error::new(io::ErrorKind::NotFound, "there is no home directory");
    let kept = Rescues::of_user().ok_or_else(none);
    let kept = kept.and_then(|rescues| rescues.keep(label, why, left.trace().map(Ok)));
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
