//! Working offline: what an earlier mount has left on this machine's disk is sent before the next one
//! begins.

use std::io;
use std::sync::Arc;

use tokio::runtime::Runtime;
use xfer_client::connect::{ConnectError, Peer};
use xfer_client::core::{Options, Trace};
use xfer_client::drive::{Rescue, Surroundings, Writing};
use xfer_client::durable::is_full;
use xfer_client::offline::{Damage, Left, Unsent, directory};
use xfer_protocol::message::Purpose;
use xfer_protocol::size;

use crate::process::exit::{Exit, Failure};
use crate::process::report::report;
use crate::rescue;

/// What to do if this machine's disk is full.
const MAKE_ROOM: &str = "; free some space there, and mount again";

/// Sends what earlier mounts of the account have left. What the server does not take any more becomes
/// a rescue. If another mount has the account, and is not to be taken over, what can't be sent stays
/// for later, and the server's refusal is returned.
///
/// # Errors
/// If the server can't be reached now. What was left stays for the next time.
pub fn send_left(
    peer: &Peer,
    options: &Options,
    purpose: Purpose,
    runtime: &Runtime,
) -> Result<Option<ConnectError>, Failure> {
    let label = peer.label();
    for other in Left::elsewhere(label).map_err(|error| unusable(label, &error))? {
        report(&format!(
            "{other}: changes of an earlier mount wait here, and are sent when it is mounted by this name"
        ));
    }
    let mut in_use = None;
    for mut left in Left::of(label).map_err(|error| unusable(label, &error))? {
        let keeper = Keeper { label: label.to_owned() };
        let was_damaged = settle_damage(label, &mut left, &keeper, runtime)?;
        let count = left.count();
        if count > 0 {
            let changes = size::count(count as u64, "change");
            report(&format!("{label}: sending {changes} that an earlier mount left here"));
        }
        let settled = match left.leftover() {
            Some((leftover, key)) => {
                let (dial, journal) = (peer.dial_again(&key)?, Arc::new(left.place()));
                let real = Surroundings::real();
                runtime.block_on(leftover.settle(dial, purpose, options, journal, &keeper, real))
            }
            // It was kept with what stands behind the damage.
            None if was_damaged => Ok(()),
            None => {
                let why = "its claim to the session cannot be read".to_owned();
                let keeping = keeper.keep(why, left.trace().collect());
                runtime.block_on(keeping).map_err(Unsent::Unkept)
            }
        };
        match settled {
            Ok(()) => left.remove().map_err(|error| unusable(label, &error))?,
            Err(Unsent::InUse(error)) => {
                report(&format!("{label}: they wait, since another client has the account"));
                in_use = Some(error.at(label));
            }
            Err(error) => return Err(unsent(label, error)),
        }
    }
    Ok(in_use)
}

/// Rescues all that can be read of a damaged journal, if some of it can't be sent, and keeps the journal
/// aside. Returns whether there is such a rescue. To be called before anything is sent, which replaces
/// the journal.
fn settle_damage(
    label: &str,
    left: &mut Left,
    keeper: &Keeper,
    runtime: &Runtime,
) -> Result<bool, Failure> {
    let Some(Damage { trace, bytes }) = left.damage() else { return Ok(false) };
    let is_rescued = !trace.is_empty();
    if is_rescued {
        let why = "its journal is damaged, so changes may be missing".to_owned();
        let keeping = keeper.keep(why, trace);
        runtime.block_on(keeping).map_err(|error| unsent(label, Unsent::Unkept(error)))?;
    }
    let aside = left.set_damage_aside().map_err(|error| unusable(label, &error))?;
    report(&format!(
        "{label}: {} of what an earlier mount left here cannot be read, as after a crash of the machine; \
         all of it stays in {}",
        size::display(bytes),
        aside.display()
    ));
    Ok(is_rescued)
}

/// Keeps what can't be sent any more.
struct Keeper {
    /// `user@host:port`.
    label: String,
}

impl Rescue for Keeper {
    fn keep(&self, why: String, changes: Vec<Trace>) -> Writing<'_> {
        Box::pin(async move {
            let path = rescue::keep(&self.label, &why, &changes)?;
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
        Unsent::Disk(error) => unusable(label, &error),
        Unsent::Unkept(error) => {
            let what = "what an earlier mount left here cannot be kept in";
            let remedy = if is_full(&error) { MAKE_ROOM } else { "" };
            Failure::new(Exit::Other, format!("{label}: {what} {error}{remedy}"))
        }
        Unsent::InUse(error) | Unsent::Unreachable(error) => error.at(label).into(),
        Unsent::LinkLost(loss) => {
            let line =
                format!("{label}: {loss}; what an earlier mount left here waits for the next one");
            Failure::new(Exit::Unreachable, line)
        }
    }
}

fn unusable(label: &str, error: &io::Error) -> Failure {
    let place = directory(label).map(|path| path.display().to_string()).unwrap_or_default();
    let remedy = match error.kind() {
        _ if is_full(error) => MAKE_ROOM,
        // It says what to do.
        io::ErrorKind::InvalidData => "",
        _ => "; to mount without it, move that directory away",
    };
    let line =
        format!("{label}: what an earlier mount left in {place} cannot be used: {error}{remedy}");
    Failure::new(Exit::Other, line)
}
