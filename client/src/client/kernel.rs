//! What the client asks of the kernel's side of a mount, without knowing it.

use xfer_protocol::{DeliveryId, Errno, Ino, Name};

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

/// The kernel's side of a mount.
pub trait Kernel: Send + Sync + 'static {
    /// Places a delivery as `inbox/<sender>/<name>` by a call through the mount point, as a
    /// program would, so that inotify tells whoever watches. The file system recognises the call
    /// as its own and accepts the delivery ([`super::State::accept`]) in its course. May block.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken; `EDQUOT` and such if it has no room; anything else if it
    /// can't be placed this way.
    fn place(
        &self,
        id: DeliveryId,
        directory: bool,
        sender: &Name,
        name: &Name,
    ) -> Result<(), Errno>;

    /// Has the kernel write what programs changed in a file that they have mapped, and returns once
    /// those writes were answered. May block.
    fn write_back(&self, ino: Ino);

    /// Takes a notice, to be passed on soon. Never blocks.
    fn notice(&self, notice: Notice);
}
