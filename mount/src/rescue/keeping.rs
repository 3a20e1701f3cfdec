//! Keeping what a mount that runs can't get to the server any more.

use std::fs::{self, DirEntry};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use xfer_client::core::Trace;
use xfer_client::drive::{Rescue, Writing};

use super::{Rescues, read};
use crate::process::report::report;

/// Keeps changes of an account as a rescue of this user's. Returns where they are.
///
/// # Errors
/// If this machine's disks are full or fail.
pub fn keep(account: &str, why: &str, changes: &[Trace]) -> io::Result<PathBuf> {
    Rescues::of_user().keep(account, why, changes)
}

/// The number of rescues of an account, which is `user@host:port`, that are not wholly applied. One that
/// is unfinished or can't be read is among them.
pub fn count(account: &str) -> usize {
    let rescues = Rescues::of_user();
    let entries = rescues.trusted().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let prefix = format!("{account}-");
    let counts = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_applied = || read(&entry.path()).is_ok_and(|contents| contents.unapplied() == 0);
        name.trim_start_matches('.').starts_with(&prefix)
            && (name.starts_with('.') || !is_applied())
    };
    entries.flatten().filter(counts).count()
}

/// Keeps changes of one account's mount.
#[derive(Clone)]
pub struct Keeper {
    /// `user@host:port`.
    account: String,
    /// Where it is mounted, for messages.
    place: String,
    /// Where the changes are that it has kept.
    kept: Arc<Mutex<Vec<PathBuf>>>,
}

impl Keeper {
    /// Keeps changes of this account, made at this mount point.
    pub fn new(account: String, place: String) -> Keeper {
        Keeper { account, place, kept: Arc::default() }
    }

    /// How often it has kept changes.
    pub fn times(&self) -> usize {
        self.kept.lock().len()
    }

    /// Where it has kept changes last, if it has since it had so many `times`.
    pub fn kept_since(&self, times: usize) -> Option<PathBuf> {
        self.kept.lock().get(times..)?.last().cloned()
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
            self.kept.lock().push(path);
            Ok(())
        })
    }
}
