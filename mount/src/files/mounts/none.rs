//! A machine without mounts.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::Found;
use crate::process::exit::{Exit, Failure};

pub(in crate::files) fn find(_account: &str, _takeover: bool) -> Result<Option<Found>, Failure> {
    Ok(None)
}

pub(in crate::files) fn is_disconnected(_account: &str) -> bool {
    false
}

pub(in crate::files) fn warn_of_dead(_account: &str) {}

pub(in crate::files) fn news(_mountpoint: &Path, _seen: Option<u64>) -> Result<u64, Failure> {
    Err(none())
}

pub(in crate::files) fn await_mount(_account: &str) -> Result<(), Failure> {
    Err(none())
}

pub(super) fn place_of(_text: &OsStr) -> Option<OsString> {
    None
}

fn none() -> Failure {
    Failure::new(Exit::NotMounted, "there are no mounts on this system, only on Linux")
}
