//! Sending and receiving: `xfer send`, `xfer outbox` and `xfer inbox`.
//!
//! Reading order: this file (what all of them need), `sending`, `arrival` (what is in the inbox), `inbox`, `following`
//! (waiting for what arrives), `telling` (what is done for an arrival) with `told` (so that it is done once)
//! and `notice` (on the desktop).

mod sending;
mod arrival;
mod inbox;
mod following;
mod telling;
mod told;
mod notice;

use std::ffi::OsStr;
use std::path::Path;

use xfer_client::connect::Target;
use xfer_protocol::size;

use super::opening::Opened;
use super::pattern::shown_name;
use super::show::Output;
use super::tree::Meta;
use crate::process::exit::Failure;

pub(super) use inbox::inbox;
pub(super) use sending::{outbox, send};

fn target(text: &str) -> Result<Target, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("{error}")))
}

/// An attribute of a file or directory; other nodes have none.
fn attribute(opened: &Opened, path: &Path, meta: &Meta, name: &str) -> Option<String> {
    if !meta.is_file() && !meta.is_directory() {
        return None;
    }
    let value = opened.tree.attribute(path, name);
    value.unwrap_or_else(|errno| {
        opened.report.fail("ask for the state of", path, errno);
        None
    })
}

/// Prints something in the inbox or the outbox.
fn row(output: &mut Output, user: &OsStr, path: &Path, meta: &Meta, last: &str) {
    output.name(user);
    output.bytes(b"  ");
    output.name(shown_name(path));
    if meta.is_directory() {
        output.bytes(b"/");
    }
    let size = if meta.is_directory() { "-".to_owned() } else { size::display(meta.size) };
    output.line(&format!("  {size}  {last}"));
}

/// What is in the directories of the inbox or the outbox, which are those of users.
fn for_each_below(opened: &Opened, around: &str, mut visit: impl FnMut(&OsStr, &Path, &Meta)) {
    let list = |path: &Path| {
        opened.tree.list(path).unwrap_or_else(|errno| {
            opened.report.fail("list", path, errno);
            Vec::new()
        })
    };
    for (user, _) in list(Path::new(around)).iter().filter(|(_, meta)| meta.is_directory()) {
        let directory = Path::new(around).join(user);
        for (name, meta) in list(&directory) {
            visit(user, &directory.join(name), &meta);
        }
    }
}
