//! Telling the kernel what changed without its asking, from a thread of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};
use tokio::runtime::Handle;
use xfer_client::client::{Kernel, Notice};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::placing::Placing;

/// The kernel, as the client sees it.
pub(super) struct Notices {
    placing: Arc<Placing>,
    notifier: Notifier,
    queue: Sender<Notice>,
}

impl Notices {
    /// Starts the thread. It ends with the value.
    pub(super) fn start(notifier: Notifier, placing: Arc<Placing>) -> io::Result<Notices> {
        let (queue, notices) = channel();
        let this = notifier.clone();
        let tell_all = move || {
            for notice in notices {
                // The kernel answers ENOENT for what it has not cached, which is as good.
                if let Err(error) = tell(&notifier, &notice)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::debug!("a notice to the kernel: {error}");
                }
            }
        };
        std::thread::Builder::new().name("notices".to_owned()).spawn(tell_all)?;
        Ok(Notices { placing, notifier: this, queue })
    }
}

/// The kernel's attributes of nodes, which can be outdated while a request waits: that takes no lock
/// that a request may hold, unlike all other notices.
pub(super) struct Attributes {
    notifier: OnceLock<Notifier>,
    runtime: Handle,
}

impl Attributes {
    /// Without a kernel, until [`Attributes::begin`].
    pub(super) fn new(runtime: Handle) -> Attributes {
        Attributes { notifier: OnceLock::new(), runtime }
    }

    /// From now on there is a kernel to tell.
    pub(super) fn begin(&self, notifier: Notifier) {
        // Only told once.
        let _ = self.notifier.set(notifier);
    }

    /// Has the kernel ask for a node's attributes again, and does `then` once that is so.
    pub(super) fn outdate(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        let notifier = self.notifier.get().cloned();
        self.runtime.spawn_blocking(move || {
            let told = notifier.map(|notifier| tell(&notifier, &Notice::Node(ino)));
            if let Some(Err(error)) = told {
                tracing::debug!("a notice to the kernel: {error}");
            }
            then();
        });
    }
}

impl Kernel for Notices {
    fn place(
        &self,
        id: DeliveryId,
        directory: bool,
        sender: &Name,
        name: &Name,
    ) -> Result<(), Errno> {
        self.placing.place(id, directory, sender, name)
    }

    /// The kernel drops what it has cached of the file's data, and writes what is dirty first. Unlike
    /// `syncfs`, which sends the writes, this returns when they were answered.
    fn write_back(&self, ino: Ino) {
        if let Err(error) = tell(&self.notifier, &Notice::Contents(ino)) {
            tracing::debug!("a file's mapped data: {error}");
        }
    }

    fn notice(&self, notice: Notice) {
        // The thread is gone only when the mount is, and then there is nobody to tell.
        let _ = self.queue.send(notice);
    }
}

fn tell(notifier: &Notifier, notice: &Notice) -> io::Result<()> {
    match notice {
        // A negative offset spares the cached data: only attributes are out of date.
        Notice::Node(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
        Notice::Contents(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Notice::Entry(parent, name) => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()))
        }
    }
}
