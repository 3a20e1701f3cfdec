//! Mounts on this machine as ways to trees. Only Linux has any.

#[cfg(target_os = "linux")]
mod here;
#[cfg(not(target_os = "linux"))]
mod none;

use std::ffi::OsString;
use std::path::PathBuf;

use super::tree::Tree;

#[cfg(target_os = "linux")]
use here::place_of;
#[cfg(target_os = "linux")]
pub(super) use here::{await_mount, find, is_disconnected, news, warn_of_dead};
#[cfg(not(target_os = "linux"))]
use none::place_of;
#[cfg(not(target_os = "linux"))]
pub(super) use none::{await_mount, find, is_disconnected, news, warn_of_dead};

/// A tree through its mount, and the mount point.
pub(super) type Found = (Box<dyn Tree>, PathBuf);

/// The arguments of a command, with paths in this user's mounts written as places in their trees.
pub(super) fn as_places(texts: &[OsString]) -> Vec<OsString> {
    texts.iter().map(|text| place_of(text).unwrap_or_else(|| text.clone())).collect()
}
