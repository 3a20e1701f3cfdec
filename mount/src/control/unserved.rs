//! What to say of a path that no process answers for: whether it lies in a mount, is what a killed process
//! left, or is nothing of xfer.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::thread;

use super::directory;
use crate::mountpoint::mountinfo::{self, Entry};
use crate::mountpoint::{self, stale};
use crate::process::exit::{Exit, Failure};

/// Why there is no mount to ask at `path`, and what to do.
pub(super) fn explain(path: &Path) -> Failure {
    let found = places(path).find_map(|place| Some((mount_around(&place)?, place)));
    let shown = path.display();
    let line = match found {
        Some((entry, _)) if stale::is_stale(&entry) => dead(&entry),
        Some((entry, place)) if entry.mountpoint == place => format!(
            "{shown}: its xfer-mount cannot be asked; to unmount it: fusermount3 -u {}",
            entry.mountpoint.display()
        ),
        Some((entry, _)) => {
            let mountpoint = entry.mountpoint.display();
            format!("{shown}: not a mount, but in the xfer mount {mountpoint}; give that one")
        }
        // Does not ask a filesystem that is mounted there.
        None if mountinfo::id_at(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) => {
            format!("{shown}: no such directory; see: xfer status")
        }
        None => {
            format!("{shown}: not an xfer mount of this user; see: xfer status")
        }
    };
    Failure::new(Exit::NotMounted, line)
}

/// A line for each of this user's mounts that no process serves, but for those with these endings of
/// socket names, which have answered.
pub(super) fn dead_mounts(served: &BTreeSet<String>) -> Vec<String> {
    let mut entries = mountinfo::all().unwrap_or_default();
    entries.retain(|entry| {
        stale::is_own(entry) && !served.contains(&directory::device_ending(&entry.device))
    });
    // At once, since each of those that do not answer takes its time.
    let ask = |entry: Entry| thread::spawn(move || stale::is_stale(&entry).then(|| dead(&entry)));
    let asked: Vec<_> = entries.into_iter().map(ask).collect();
    asked.into_iter().filter_map(|asked| asked.join().ok().flatten()).collect()
}

fn dead(entry: &Entry) -> String {
    let place = entry.mountpoint.display();
    format!(
        "{place}: no process serves this mount any more; mount there again, or remove it with: \
         xfer unmount {place}"
    )
}

/// What a path may mean. First as it is written, since a mount without a process leads nowhere.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    let written = std::path::absolute(path).ok().filter(|_| !goes_up);
    let path = path.to_owned();
    let parent = {
        let path = path.clone();
        move || mountpoint::resolve_parent(&path).ok()
    };
    let resolved = move || fs::canonicalize(&path).ok();
    written
        .into_iter()
        .chain(std::iter::once_with(parent).flatten())
        .chain(std::iter::once_with(resolved).flatten())
}

/// This user's xfer mount that a path is in, or is.
pub(super) fn mount_around(place: &Path) -> Option<Entry> {
    let mut around = mountinfo::all().ok()?;
    around.retain(|entry| place.starts_with(&entry.mountpoint));
    let nearest = around.iter().max_by_key(|entry| entry.mountpoint.components().count())?;
    mountinfo::find(&nearest.mountpoint).ok()?.filter(stale::is_own)
}
