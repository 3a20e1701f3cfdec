//! What the client asks of the kernel's side of a mount, without knowing it.

use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use crate::core::Notice;

/// The kernel's side of a mount.
pub trait Kernel: Send + Sync + 'static {
    /// Places a delivery as `inbox/<sender>/<name>` by a call through the mount point, as a
    /// program would, so that inotify tells whoever watches. The file system recognises the call
    /// as its own and accepts the delivery ([`super::Core::accept`]) in its course. May block.
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
