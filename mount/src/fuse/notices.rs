//! Notifies the kernel of changes that it did not ask for, on a dedicated thread.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};
use tokio::runtime::Handle;
use xfer_client::core::Notice;
use xfer_client::drive::Kernel;
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::placing::Placing;

/// The kernel, as the client sees it.
pub(super) struct Notices {
    placing: Arc<Placing>,
    notifier: Notifier,
    queue: Sender<Notice>,
}

impl Notices {
    /// Starts the thread. It ends when the value is dropped.
    pub(super) fn start(notifier: Notifier, placing: Arc<Placing>) -> io::Result<Notices> {
        let (queue, notices) = channel();
        let this = notifier.clone();
        let tell_all = move || {
            for notice in notices {
                // The kernel answers ENOENT for entries that it has not cached, which is fine.
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

/// Invalidates the kernel's cached attributes of nodes. Unlike all other notices, this may happen
/// while a request waits: it takes no lock that a request may hold.
pub(super) struct Attributes {
    notifier: OnceLock<Notifier>,
    runtime: Handle,
}

impl Attributes {
    /// Does not notify until [`Attributes::begin`] supplies a notifier.
    pub(super) fn new(runtime: Handle) -> Attributes {
        Attributes { notifier: OnceLock::new(), runtime }
    }

    /// Supplies the notifier of the mounted kernel.
    pub(super) fn begin(&self, notifier: Notifier) {
        // Set only once, so this can't fail.
        let _ = self.notifier.set(notifier);
    }

    /// Invalidates a node's attributes in the kernel, then calls `then`.
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

    /// Makes the kernel write a file's dirty pages and drop its cached data. Unlike `syncfs`, which
    /// only sends the writes, this returns when they have been answered.
    fn write_back(&self, ino: Ino) {
        if let Err(error) = tell(&self.notifier, &Notice::Contents(ino)) {
            tracing::debug!("a file's mapped data: {error}");
        }
    }

    fn notice(&self, notice: Notice) {
        // The thread ends only with the mount, and then there is no kernel to notify.
        let _ = self.queue.send(notice);
    }
}

fn tell(notifier: &Notifier, notice: &Notice) -> io::Result<()> {
    match notice {
        // A negative offset keeps the cached data and invalidates only the attributes.
        Notice::Node(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
        Notice::Contents(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Notice::Entry(parent, name) => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()))
        }
    }
}
