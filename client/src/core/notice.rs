//! What the kernel must be told: changes that it did not ask for.

use xfer_protocol::{Ino, Name};

/// Something that changed without the kernel having asked for it, so that what it has cached of it
/// is out of date.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A node's attributes (and a directory's listing).
    Node(Ino),
    /// An entry.
    Entry(Ino, Name),
    /// Which entries a directory shows, or where a symbolic link points, though the node itself is as
    /// it was.
    Contents(Ino),
}
