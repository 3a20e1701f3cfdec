//! The mounts that end when this machine logs out.

use xfer_protocol::message::PublicKey;
use xfer_protocol::shown::Shown;

use crate::command::terminal;
use crate::control::{self, Status};
use crate::process::exit::{Exit, Failure};

/// Asks whether the mounts that the key has begun may end, and makes their changes durable. One that another key
/// of this machine has begun goes on.
pub(super) fn settle(label: &str, key: PublicKey, is_agreed: bool) -> Result<(), Failure> {
    let key = hex::encode(key.0);
    let is_by_it = |status: &Status| status.key.as_ref().is_none_or(|other| *other == key);
    let is_meant = |status: &Status| status.by_key && is_by_it(status) && !status.is_lost();
    let mounts: Vec<Status> = control::of_account(label).filter(is_meant).collect();
    let Some(first) = mounts.first() else { return Ok(()) };
    let places: Vec<&str> = mounts.iter().map(|mount| mount.mountpoint.as_str()).collect();
    let (places, first) = (places.join(" and "), &first.mountpoint);
    if !is_agreed {
        let what = format!(
            "{label} is mounted by this key at {places}; logging out ends that: programs there get \
             errors until it is unmounted"
        );
        if terminal::terminal().is_none() {
            let line = format!("{what}; first run: xfer unmount {first}, or give --yes");
            return Err(Failure::usage(line));
        }
        if !terminal::agrees(&format!("{}. Log out? [y/N] ", Shown(&what))) {
            return Err(Failure::new(
                Exit::Other,
                format!("this machine is still logged in to {label}"),
            ));
        }
    }
    mounts.iter().try_for_each(|mount| {
        control::sync(mount.mountpoint.as_ref()).map_err(|Failure { exit, line }| Failure {
            exit,
            line: format!("{line}; this machine is still logged in, since that would be lost"),
        })
    })
}
