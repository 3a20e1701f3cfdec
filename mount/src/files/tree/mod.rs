//! The tree of an account, whichever way leads to it: through a mount of it on this machine, or by a
//! session of this process alone.
//!
//! Calls block, so several threads may make them at once. Paths lead from the root, as those of
//! [`super::place`]. Symbolic links are not followed: where they lead depends on the machine.
//!
//! **Invariant:** both ways give the same answers.

mod local;
mod meta;
#[cfg(target_os = "linux")]
mod mounted;
mod session;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use bytes::Bytes;
use rustix::io::Errno;
use xfer_client::core::Order;
use xfer_protocol::Timestamp;

use super::errno::words;
use crate::process::exit::Exit;

pub(super) use local::Stream;
pub(super) use meta::{Kind, Meta, times};
#[cfg(target_os = "linux")]
pub(super) use mounted::Mounted;
pub(super) use session::Session;

/// The tree of an account.
pub(super) trait Tree: Send + Sync {
    /// The node at a path.
    fn stat(&self, path: &Path) -> Result<Meta, Errno>;

    /// The entries of a directory, in the order of the bytes of their names.
    fn list(&self, path: &Path) -> Result<Vec<(OsString, Meta)>, Errno>;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> Result<Box<dyn Source>, Errno>;

    /// Opens a file for writing. It is made if it is not there, and else keeps its data.
    fn write(&self, path: &Path) -> Result<Box<dyn Sink>, Errno>;

    /// Makes a file with the data and the permissions of another. The name is free.
    fn copy(&self, from: &Path, to: &Path) -> Result<(), Errno>;

    /// Makes a directory.
    fn make_directory(&self, path: &Path, mode: u16) -> Result<(), Errno>;

    /// Makes a symbolic link.
    fn make_link(&self, path: &Path, target: &OsStr) -> Result<(), Errno>;

    /// Renames an entry, over another if there is one. Into a mailbox, that sends it.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Errno>;

    /// Removes a file, or an empty directory.
    fn remove(&self, path: &Path, kind: Removed) -> Result<(), Errno>;

    /// Sets the permissions, and the time of the last change, of a file or directory.
    fn set(&self, path: &Path, mode: u16, mtime: Option<Timestamp>) -> Result<(), Errno>;

    /// An extended attribute of a file or directory; `None` if it has none of that name.
    fn attribute(&self, path: &Path, name: &str) -> Result<Option<String>, Errno>;

    /// Sets the note that goes along when a file or directory is sent.
    fn set_note(&self, path: &Path, note: &str) -> Result<(), Errno>;

    /// Gives an order for something in a mailbox.
    fn order(&self, path: &Path, order: Order) -> Result<(), Errno>;

    /// Waits until everything done so far is on the server's disk.
    fn sync(&self) -> Result<(), Errno>;

    /// Like [`Tree::sync`]; a session then reads data from the server, whatever it has of it.
    fn sync_and_forget(&self) -> Result<(), Errno>;

    /// Takes leave of the tree, with all changes on the server's disk. A session ends.
    fn finish(&self, changes: Changes) -> Result<(), (Exit, String)>;
}

/// Whether a command has made changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changes {
    None,
    Made,
}

/// What is to be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Removed {
    /// A directory, which must be empty.
    Directory,
    /// Anything else.
    File,
}

/// A file that is read.
pub(super) trait Source: Send + Sync {
    /// Reads bytes; fewer than `len` only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Errno>;
}

/// A file that is written.
pub(super) trait Sink: Send + Sync {
    /// Writes bytes.
    fn write_at(&self, offset: u64, data: Bytes) -> Result<(), Errno>;

    /// Whether what is never written reads as zeros, up to the last byte that is.
    fn takes_holes(&self) -> bool {
        true
    }

    /// Closes it.
    fn close(self: Box<Self>) -> Result<(), Errno>;
}

/// That changes are not durable, and why.
pub(super) fn not_durable(errno: Errno) -> String {
    format!("not all changes are on the server's disk: {}", words(errno))
}
