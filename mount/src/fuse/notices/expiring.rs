//! Has the kernel look again at a name before it uses it, and keep it if it is still right.
//!
//! fuser can only have a name dropped. That would also unmount what is mounted beneath it, and leave
//! programs in a directory that they can't name any more. The message is that of `FUSE_NOTIFY_INVAL_ENTRY`
//! with `FUSE_EXPIRE_ONLY` (linux/fuse.h, protocol 7.38, Linux 6.2); an older kernel ignores the flag, and
//! drops the name.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use xfer_protocol::{Ino, Name};

/// `FUSE_NOTIFY_INVAL_ENTRY`: the number of the notification.
const INVAL_ENTRY: i32 = 3;

/// `FUSE_EXPIRE_ONLY`: look again, and keep the name if it is still right.
const EXPIRE_ONLY: u32 = 1;

/// The sizes of `fuse_out_header` and `fuse_notify_inval_entry_out`, in bytes.
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;

/// The connection to the kernel.
#[derive(Clone)]
pub(in crate::fuse) struct Expiring(Arc<OwnedFd>);

impl Expiring {
    /// Shares the connection of a session.
    pub(in crate::fuse) fn of(session: &impl AsFd) -> io::Result<Expiring> {
        Ok(Expiring(Arc::new(session.as_fd().try_clone_to_owned()?)))
    }

    /// Has the kernel look again at a name. `NotFound` if it does not keep it.
    pub(in crate::fuse) fn expire(&self, parent: Ino, name: &Name) -> io::Result<()> {
        let name = name.as_bytes();
        let head = head(parent, name.len());
        rustix::io::writev(
            &*self.0,
            &[IoSlice::new(&head), IoSlice::new(name), IoSlice::new(&[0])],
        )?;
        Ok(())
    }
}

/// Everything before the name, in the order of the kernel's structures.
fn head(parent: Ino, name_len: usize) -> [u8; HEADER_BYTES + ENTRY_BYTES] {
    let len = HEADER_BYTES + ENTRY_BYTES + name_len + 1;
    let mut head = [0; HEADER_BYTES + ENTRY_BYTES];
    head[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    head[4..8].copy_from_slice(&INVAL_ENTRY.to_ne_bytes());
    // The number of a request, 0 for a notification, is at 8.
    head[16..24].copy_from_slice(&parent.0.to_ne_bytes());
    head[24..28].copy_from_slice(&(name_len as u32).to_ne_bytes());
    head[28..].copy_from_slice(&EXPIRE_ONLY.to_ne_bytes());
    head
}
