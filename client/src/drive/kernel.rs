//! The kernel's side of a mount, as far as the client needs it. FUSE itself is unknown here.

use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use crate::core::Notice;

/// The kernel's side of a mount.
pub trait Kernel: Send + Sync + 'static {
    /// Places a delivery as `inbox/<sender>/<name>` by a call through the mount point, as a program
    /// would, so that programs that watch the directory hear of it by inotify. The file system
    /// recognises the call as its own and accepts the delivery ([`super::Core::accept`]) within it.
    /// May block.
    ///
    /// `EEXIST` if the name is taken; `EDQUOT` or `ENOSPC` if there is no room; any other if the
    /// delivery can't be placed in this way.
    fn place(
        &self,
        id: DeliveryId,
        directory: bool,
        sender: &Name,
        name: &Name,
    ) -> Result<(), Errno>;

    /// Has the kernel write back the changes of a file's mapped pages. Returns once those writes
    /// were answered. May block.
    fn write_back(&self, ino: Ino);

    /// Tells the kernel of all this, in order. Returns once it has taken it in. May block.
    fn outdate(&self, notices: &[Notice]);

    /// Whether a program holds a lock on a file: no program on another machine may get one meanwhile.
    fn holds_locks(&self) -> bool {
        false
    }

    /// Takes a notice, to be passed on to the kernel soon. Never blocks.
    fn notice(&self, notice: Notice);
}
