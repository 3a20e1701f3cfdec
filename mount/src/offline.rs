//! Working offline: what an earlier mount has left on this machine's disk is sent before the next one
//! begins.
//!
//! **Invariant:** what was left is removed only once it is durable on the server, or is kept as a
//! rescue.

use std::io;
use std::sync::Arc;

use tokio::runtime::Runtime;
use xfer_client::connect::Peer;
use xfer_client::core::{Change, Ending, Options};
use xfer_client::drive::{Client, Surroundings};
use xfer_client::offline::Left;
use xfer_protocol::Seq;

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
        let over = match runtime.block_on(peer.resume(ticket, &key)) {
            Ok(session) => {
                let applied = session.link.grant.applied;
                let changes = following(&left, applied);
                let surroundings =
                    Surroundings { journal: Some(Arc::new(left.place())), ..Surroundings::real() };
                let replay = Client::replay(session, changes, options.clone(), surroundings);
                runtime.block_on(replay).err().map(|lost| lost.ending)
            }
            Err(error) if error.ends_session() => {
                keep(&left, label, &error.to_string())?;
                None
            }
            Err(error) => return Err(error.into()),
        };
        match over {
            None => {}
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

/// The changes that follow on those that the server has applied.
fn following(left: &Left, applied: Seq) -> Vec<Change> {
    let mut next = applied.next();
    let changes = left.changes_after(applied).into_iter();
    let gapless = changes.take_while(|change| {
        let follows = change.seq == next;
        next = next.next();
        follows
    });
    gapless.collect()
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
