//! The kernel's side: a FUSE mount over a [`Client`].
//!
//! Thin: requests are unpacked, handed to the client, and answered with what it says. Only this
//! folder names fuser.
//!
//! **Invariant:** the kernel is never notified from within a request, nor by a thread that
//! requests wait for: it may hold a lock that such a notice needs. Attributes alone need none.

mod attr;

mod filesystem;

mod answers;

mod words;

mod interrupts;

mod placing;

mod dying;

mod notices;

mod mounting;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::mountinfo::Entry;
use crate::options::Access;
use attr::View;
use filesystem::XferFs;
use interrupts::Interrupts;
use notices::{Attributes, Notices};
use placing::Placing;
use xfer_client::client::Client;

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether other users than the one that mounts may use it (`allow_other`).
    pub allow_other: bool,
    /// What programs may do there.
    pub access: Access,
    /// Permission bits that no node shows.
    pub umask: u16,
    /// Whether a change is answered only once it is durable.
    pub sync: bool,
    /// What `mount` and `df` show as its source.
    pub source: String,
}

/// Why it could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The system refused.
    #[error("{mountpoint}: {error}")]
    Refused {
        /// Where it was to be.
        mountpoint: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A mount.
pub struct Mount {
    ended: watch::Receiver<bool>,
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
    let filesystem = XferFs {
        client: client.clone(),
        placing: placing.clone(),
        interrupts: interrupts.clone(),
        kernel: attributes.clone(),
        view: View { ids: client.ids(), umask: options.umask },
        sync: options.sync,
    };
    let (session, entry) = mounting::session(filesystem, mountpoint, options).map_err(refused)?;
    let refused_later = |error| {
        mounting::take_back(&entry);
        refused(error)
    };
    attributes.begin(session.notifier());
    let notices = Notices::start(session.notifier(), placing).map_err(refused_later)?;
    client.set_kernel(Some(Arc::new(notices)));
    let (end, ended) = watch::channel(false);
    let watching = Handle::current().spawn(interrupts.watch());
    let client = client.clone();
    let serve = move || {
        if let Err(error) = session.run() {
            tracing::error!("the mount ended: {error}");
        }
        watching.abort();
        client.set_kernel(None);
        end.send_replace(true);
    };
    std::thread::Builder::new().name("fuse".to_owned()).spawn(serve).map_err(refused_later)?;
    Ok(Mount { ended, entry })
}

impl Mount {
    /// Which mount it is, and what the kernel said of it when it was made.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether the kernel has let go of it.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Resolves once it is unmounted, by whomever.
    pub async fn unmounted(&self) {
        // An end without a word is an end too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}
