//! Working offline: what an earlier mount has left on this machine's disk is sent before the next one
//! begins.

use std::io;
use std::sync::Arc;

use tokio::runtime::Runtime;
use xfer_client::connect::Peer;
use xfer_client::core::{Options, Trace};
use xfer_client::drive::{Rescue, Surroundings, Writing};
use xfer_client::offline::{Fate, Left, Unsent};
use xfer_protocol::message::Purpose;

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
    let damaged = |error| damaged(label, &error);
    for left in Left::of(label).map_err(damaged)? {
        let count = left.count();
        report(&format!("{label}: sending {count} changes that an earlier mount left here"));
        let keeper = Keeper { label: label.to_owned() };
        let fate = match left.leftover() {
            Some((leftover, key)) => {
                let (dial, journal) = (peer.dial_again(&key)?, Arc::new(left.place()));
                let settled =
                    leftover.settle(dial, purpose, options, journal, &keeper, Surroundings::real());
                runtime.block_on(settled).map_err(|error| unsent(label, error))?
            }
            None => {
                let why = "its claim to the session can't be read".to_owned();
                let kept = runtime.block_on(keeper.keep(why, left.trace().collect()));
                kept.map_err(|error| unsent(label, Unsent::Unkept(error)))?;
                Fate::Settled
            }
        };
        match fate {
            Fate::Settled => left.remove().map_err(damaged)?,
            Fate::Waiting => {
                report(&format!("{label}: they wait, since another mount has the account"));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Keeps what can't be sent any more.
struct Keeper {
    /// `user@host:port`.
    label: String,
}

impl Rescue for Keeper {
    fn keep(&self, why: String, changes: Vec<Trace>) -> Writing<'_> {
        Box::pin(async move {
            let path = rescue::keep(&self.label, &why, changes)?;
            report(&format!(
                "{}: {why}; what an earlier mount left here is kept in {}; see: xfer rescue list",
                self.label,
                path.display()
            ));
            Ok(())
        })
    }
}

fn unsent(label: &str, error: Unsent) -> Failure {
    match error {
        Unsent::Disk(error) => damaged(label, &error),
        Unsent::Unkept(error) => {
            let line = format!("{label}: what an earlier mount left here can't be kept: {error}");
            Failure::new(Exit::Other, line)
        }
        Unsent::Unreachable(error) => error.at(label).into(),
        Unsent::LinkLost(loss) => {
            let line =
                format!("{label}: {loss}; what an earlier mount left here waits for the next one");
            Failure::new(Exit::Unreachable, line)
        }
    }
}

fn damaged(label: &str, error: &io::Error) -> Failure {
    let line = format!("{label}: what an earlier mount left on this machine: {error}");
    Failure::new(Exit::Other, line)
}
