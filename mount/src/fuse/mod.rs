//! The kernel's side: a FUSE mount over a [`Client`].
//!
//! Thin: requests are unpacked, handed to the client, and answered with what it says. Only this
//! folder names fuser.
//!
//! **Invariant:** the kernel is never notified from within a request, nor by a thread that
//! requests wait for: it may hold a lock that such a notice needs.

mod attr;

mod filesystem;

mod answers;

mod words;

mod interrupts;

mod placing;

mod notices;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::client::Client;
use filesystem::XferFs;
use interrupts::Interrupts;
use notices::Notices;
use placing::Placing;

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether other users than the one that mounts may use it (`allow_other`).
    pub allow_other: bool,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether it is unmounted when this process dies (`auto_unmount`).
    pub auto_unmount: bool,
    /// What `mount` and `df` show as its source.
    pub label: String,
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
    let filesystem = XferFs::new(client.clone(), placing.clone(), interrupts.clone());
    let session = Session::new(filesystem, mountpoint, &config(options)).map_err(refused)?;
    let notices = Notices::start(session.notifier(), placing).map_err(refused)?;
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
    std::thread::Builder::new().name("fuse".to_owned()).spawn(serve).map_err(refused)?;
    Ok(Mount { ended })
}

impl Mount {
    /// Resolves once it is unmounted, by whomever.
    pub async fn unmounted(&self) {
        // An end without a word is an end too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.label.clone()),
        MountOption::Subtype("xfer".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    if options.auto_unmount {
        config.mount_options.push(MountOption::AutoUnmount);
    }
    // fuser wants others let in for auto_unmount; RootAndOwner keeps them out again itself.
    config.acl = match (options.allow_other, options.auto_unmount) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    config
}
