//! Notifies the kernel of changes that it did not ask for, on a dedicated thread; and has it forget what
//! it keeps before another client gets the tree.

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

use super::locks;
use super::placing::Placing;

mod expiring;

pub(super) use expiring::Expiring;

/// The kernel, as the client sees it.
pub(super) struct Notices {
    placing: Arc<Placing>,
    notifier: Notifier,
    expiring: Expiring,
    queue: Sender<Notice>,
    /// The mount's device number, as in the table of mounts.
    device: String,
}

impl Notices {
    /// Starts the thread. It ends when the value is dropped.
    pub(super) fn start(
        notifier: Notifier,
        expiring: Expiring,
        placing: Arc<Placing>,
        device: String,
    ) -> io::Result<Notices> {
        let (queue, notices) = channel::<Notice>();
        let (this, other) = (notifier.clone(), expiring.clone());
        let tell_all = move || {
            for notice in notices {
                tell_or_log(&notifier, &expiring, &notice);
            }
        };
        std::thread::Builder::new().name("notices".to_owned()).spawn(tell_all)?;
        Ok(Notices { placing, notifier: this, expiring: other, queue, device })
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
            let told = notifier.map(|notifier| outdate_attributes(&notifier, ino));
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
        if let Err(error) = self.notifier.inval_inode(INodeNo(ino.0), 0, 0) {
            tracing::debug!("a file's mapped data: {error}");
        }
    }

    fn outdate(&self, notices: &[Notice]) {
        notices.iter().for_each(|notice| tell_or_log(&self.notifier, &self.expiring, notice));
    }

    fn holds_locks(&self) -> bool {
        locks::are_held(&self.device)
    }

    fn notice(&self, notice: Notice) {
        // The thread ends only with the mount, and then there is no kernel to notify.
        let _ = self.queue.send(notice);
    }
}

fn tell_or_log(notifier: &Notifier, expiring: &Expiring, notice: &Notice) {
    // The kernel answers ENOENT for what it does not keep, which is fine.
    if let Err(error) = tell(notifier, expiring, notice)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("a notice to the kernel: {error}");
    }
}

fn tell(notifier: &Notifier, expiring: &Expiring, notice: &Notice) -> io::Result<()> {
    match notice {
        Notice::Node(ino) => outdate_attributes(notifier, *ino),
        Notice::Contents(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Notice::Data(ino, range) => {
            let offset = i64::try_from(range.start).unwrap_or(i64::MAX);
            let len = i64::try_from(range.end - range.start).unwrap_or(i64::MAX);
            notifier.inval_inode(INodeNo(ino.0), offset, len)
        }
        Notice::Entry(parent, name) => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()))
        }
        Notice::Expired(parent, name) => expiring.expire(*parent, name),
    }
}

/// A negative offset keeps the cached data and invalidates only the attributes.
fn outdate_attributes(notifier: &Notifier, ino: Ino) -> io::Result<()> {
    notifier.inval_inode(INodeNo(ino.0), -1, 0)
}
