//! The kernel's side: a FUSE mount of a [`Client`].
//!
//! Thin: a request is unpacked, passed to the client, and answered with its result. Only this
//! folder names fuser.
//!
//! **Invariant:** the kernel is never notified from within a request, nor from a thread that requests
//! wait for: the request may hold a lock that the notice needs. Attribute notices need none.

mod attr;
mod filesystem;
mod counting;
mod replies;
mod answers;
mod words;
mod interrupts;
mod placing;
mod dying;
mod notices;
mod locks;
mod repeats;
mod mounting;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::command::options::{Access, Masks};
use crate::mountpoint::mountinfo::Entry;
use crate::operations::Operations;
use attr::View;
use counting::Counting;
use filesystem::XferFs;
use interrupts::Interrupts;
use notices::{Attributes, Expiring, Notices};
use placing::Placing;
use repeats::Repeats;
use xfer_client::drive::Client;

/// The options of a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether users other than the mounting one may use it (`allow_other`).
    pub allow_other: bool,
    /// What programs may do with the mounted tree.
    pub access: Access,
    /// Permission bits that are hidden.
    pub masks: Masks,
    /// Whether a change is answered only once it is durable.
    pub sync: bool,
    /// The source that `mount` and `df` show.
    pub source: String,
}

/// Why mounting failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The system refused to mount.
    #[error("{mountpoint}: {error}")]
    Refused {
        /// The intended mount point.
        mountpoint: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// A mount that the kernel has.
pub struct Mount {
    ended: watch::Receiver<bool>,
    operations: Arc<Operations>,
    entry: Entry,
}

/// Mounts a client's tree. Must be called within a tokio runtime.
///
/// # Errors
/// If the system refuses.
pub fn mount(
    client: &Arc<Client>,
    mountpoint: &Path,
    options: &Options,
) -> Result<Mount, MountError> {
    let refused = |error| MountError::Refused { mountpoint: mountpoint.to_owned(), error };
    let placing = Arc::new(Placing::new(mountpoint));
    let interrupts = Arc::new(Interrupts::default());
    let attributes = Arc::new(Attributes::new(Handle::current()));
    let operations = Arc::new(Operations::default());
    let filesystem = XferFs {
        client: client.clone(),
        placing: placing.clone(),
        repeats: Arc::new(Repeats::default()),
        interrupts: interrupts.clone(),
        kernel: attributes.clone(),
        view: View { owners: client.owners(), masks: options.masks },
        sync: options.sync,
        operations: operations.clone(),
    };
    let filesystem = Counting(filesystem);
    let (session, entry) = mounting::session(filesystem, mountpoint, options).map_err(refused)?;
    let refused_later = |error| {
        mounting::take_back(&entry);
        refused(error)
    };
    attributes.begin(session.notifier());
    let expiring = Expiring::of(&session).map_err(refused_later)?;
    let device = entry.device.clone();
    let notices = Notices::start(session.notifier(), expiring, placing, device);
    let notices = notices.map_err(refused_later)?;
    client.set_kernel(Some(Arc::new(notices)));
    let (end, ended) = watch::channel(false);
    let watching = Handle::current().spawn(interrupts.watch());
    let client = client.clone();
    let serve = move || {
        match session.run() {
            // The kernel says so too if it is unmounted while a request is being read.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => tracing::error!("the mount ended: {error}"),
            Ok(()) => {}
        }
        watching.abort();
        client.set_kernel(None);
        end.send_replace(true);
    };
    std::thread::Builder::new().name("fuse".to_owned()).spawn(serve).map_err(refused_later)?;
    Ok(Mount { ended, operations, entry })
}

impl Mount {
    /// The mount's entry in the kernel's table, as it was when it was made.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// What programs have asked of it.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Whether the kernel has released it.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Resolves once it is unmounted, by this process or any other.
    pub async fn unmounted(&self) {
        // If the sender is gone, the mount has ended too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}
