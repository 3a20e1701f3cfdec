//! Keeping what a mount that runs can't get to the server any more.

use std::fs;
use std::io;
use std::path::PathBuf;

use xfer_client::core::Trace;
use xfer_client::drive::{Rescue, Writing};

use super::Rescues;
use crate::process::report::report;

/// Keeps changes of an account as a rescue of this user's. Returns where they are.
///
/// # Errors
/// If this machine's disks are full or fail.
pub fn keep(account: &str, why: &str, changes: &[Trace]) -> io::Result<PathBuf> {
    Rescues::of_user().keep(account, why, changes)
}

/// The number of rescues of an account, which is `user@host:port`, whether or not they can be read.
pub fn count(account: &str) -> usize {
    let rescues = Rescues::of_user();
    let entries = rescues.trusted().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    let prefix = format!("{account}-");
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.trim_start_matches('.').starts_with(&prefix)).count()
}

/// Keeps changes of one account's mount.
pub struct Keeper {
    /// `user@host:port`.
    account: String,
    /// Where it is mounted, for messages.
    place: String,
}

impl Keeper {
    /// Keeps changes of this account, made at this mount point.
    pub fn new(account: String, place: String) -> Keeper {
        Keeper { account, place }
    }
}

impl Rescue for Keeper {
    fn keep(&self, why: String, changes: Vec<Trace>) -> Writing<'_> {
        Box::pin(async move {
            let (account, reason) = (self.account.clone(), why.clone());
            let keeping = move || keep(&account, &reason, &changes);
            let path = tokio::task::spawn_blocking(keeping).await.map_err(io::Error::other)??;
            report(&format!(
                "{}: {why}; what is not on the server is kept in {}; see: xfer rescue list",
                self.place,
                path.display()
            ));
            Ok(())
        })
    }
}
