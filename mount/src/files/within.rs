//! Paths in a mount on this machine, as places in its tree.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::place::Either;
use crate::control;
use crate::mountpoint;

/// The arguments of a command, with paths in this user's mounts written as places in their trees.
pub(super) fn as_places(texts: &[OsString]) -> Vec<OsString> {
    texts.iter().map(|text| place_of(text).unwrap_or_else(|| text.clone())).collect()
}

/// The place in a tree that a path of this machine leads to. A link at its end is not followed.
fn place_of(text: &OsStr) -> Option<OsString> {
    if text.as_bytes().starts_with(b":") || !matches!(Either::parse(text), Ok(Either::Here(_))) {
        return None;
    }
    let path = mountpoint::resolve_parent(Path::new(text)).ok()?;
    let (mountpoint, account) = control::mount_around(&path)?;
    let below = path.strip_prefix(mountpoint).ok()?;
    // With a `/`, digits and a colon at the beginning are no port.
    let whole = [account.as_bytes(), b":/", below.as_os_str().as_bytes()].concat();
    Some(OsString::from_vec(whole))
}
