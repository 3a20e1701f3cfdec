//! Which mount a path refers to. Other mount namespaces have copies of a mount, or another mount at
//! the same path, and a mount can be moved; but its device number is the same everywhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::{Status, directory, unserved};
use crate::mountpoint;
use crate::mountpoint::mountinfo::{self, Entry};
use crate::process::exit::Failure;

/// Whether `mountpoint` (absolute, free of links) is a running mount of this user.
pub fn is_served(mountpoint: &Path) -> bool {
    socket_of(mountpoint).is_some()
}

/// The status of the previous mount at a place where nothing is mounted now, if its process still
/// runs; an error if that process does not answer.
pub fn predecessor(mountpoint: &Path) -> Option<Result<Status, Failure>> {
    let key = directory::place_key(mountpoint);
    let mut asked = sockets(|name| name.starts_with(&key)).filter_map(|socket| ask(&socket));
    asked.find(|asked| asked.as_ref().map_or(true, |status| is_at(status, mountpoint)))
}

/// This user's mounts of an account, as `user@host:port`, that answer.
pub fn of_account(account: &str) -> impl Iterator<Item = Status> {
    let answers = sockets(|_| true).filter_map(|socket| ask(&socket)?.ok());
    answers.filter(move |status| status.account() == account)
}

/// Waits until something may have arrived in the inbox of the mount at a place, since its process has
/// said `seen`; returns what it says now. `None` if no process serves a mount there.
///
/// # Errors
/// If that process does not say so, or its session ends.
pub fn inbox_news(mountpoint: &Path, seen: Option<u64>) -> Option<Result<u64, Failure>> {
    let call = Call::to(&socket_of(mountpoint)?, mountpoint.to_owned())?;
    Some(call.inbox_news(seen))
}

/// The mount of this user that `path` (absolute, its parent free of links) lies in, and its account, as
/// `user@host:port`; `None` if its process does not answer.
pub fn mount_around(path: &Path) -> Option<(PathBuf, String)> {
    let mountpoint = unserved::mount_around(path)?.mountpoint;
    let status = ask(&socket_of(&mountpoint)?)?.ok()?;
    Some((mountpoint, status.account()))
}

/// The mount at `path`. A link as the last component is followed only if there is no mount at the
/// link itself.
pub(super) fn find_call(path: &Path) -> Result<Call, Failure> {
    let unresolved = mountpoint::resolve_parent(path).ok();
    let resolved = || fs::canonicalize(path).ok();
    let at = |place: PathBuf| socket_of(&place).and_then(|socket| Call::to(&socket, place));
    let call = unresolved.and_then(at).or_else(|| resolved().and_then(at));
    call.ok_or_else(|| unserved::explain(path))
}

/// The socket of the mount that `place` (absolute, free of links) refers to.
pub(super) fn socket_of(place: &Path) -> Option<PathBuf> {
    let mut here = mountinfo::stack(place).unwrap_or_default();
    here.retain(Entry::is_xfer);
    let namespace = mountinfo::namespace().unwrap_or_default();
    for entry in &here {
        let ending = directory::device_ending(&entry.device);
        // A copy elsewhere in the same namespace is a matter for `umount`.
        let is_it = |status: &Status| {
            let is_place = status.namespace != namespace || is_at(status, place);
            is_place && status.device.as_ref() == Some(&entry.device)
        };
        let mut named = sockets(|name| name.ends_with(&ending));
        // A mount that does not answer may be the one.
        let may_be_it =
            |asked: Result<Status, Failure>| asked.map_or(true, |status| is_it(&status));
        let found = named.find(|socket| ask(socket).is_some_and(may_be_it));
        if found.is_some() {
            return found;
        }
    }
    if !here.is_empty() {
        return None;
    }
    // Not mounted here: its process may still run, or it is mounted in another namespace.
    let key = directory::place_key(place);
    let made_here = sockets(|name| name.starts_with(&key));
    let is_it = |socket: &PathBuf| {
        ask(socket).and_then(Result::ok).is_some_and(|status| is_at(&status, place))
    };
    made_here.chain(sockets(|_| true)).find(is_it)
}

fn sockets(is_meant: impl Fn(&str) -> bool) -> impl Iterator<Item = PathBuf> {
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    directory::sockets()
        .into_iter()
        .filter(move |path| name(path).is_some_and(|name| is_meant(&name)))
}

/// `None` if no process listens there.
fn ask(socket: &Path) -> Option<Result<Status, Failure>> {
    Some(Call::to(socket, socket.to_owned())?.status())
}

fn is_at(status: &Status, place: &Path) -> bool {
    status.mountpoint == place.display().to_string()
}
