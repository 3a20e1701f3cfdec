//! Notices: changes that the kernel did not ask for, and that it must be told about.
//!
//! They only name what changed. The kernel looks again when a program asks for it.

use std::ops::Range;

use xfer_protocol::{Ino, Name};

/// A change that the kernel did not ask for, so that its cache of the changed thing is out of date.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A node's attributes, and if it is a directory, its listing.
    Node(Ino),
    /// An entry.
    Entry(Ino, Name),
    /// An entry, which may still be right: the kernel is to look again, and to keep it if it is.
    Expired(Ino, Name),
    /// A range of a file's data.
    Data(Ino, Range<u64>),
    /// A directory's visible entries, or a symbolic link's target. The node's attributes did not
    /// change.
    Contents(Ino),
}
