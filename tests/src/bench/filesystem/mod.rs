//! The filesystems to compare, behind one small trait.

use std::path::Path;

use serde_json::Value;

use super::timed::{Deadline, Stop};
use super::usage::Usage;
use crate::network::Network;

pub use bindfs::Bindfs;
pub use local::Local;
pub use rclone::Rclone;
pub use sshfs::Sshfs;
pub use xfer::Xfer;

mod backing;
mod bindfs;
mod local;
mod rclone;
mod sshd;
mod sshfs;
mod xfer;

/// A filesystem that can be set up for a run.
pub trait Filesystem {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// Its setup, and when its data is durable, for the table.
    fn remark(&self) -> &'static str;

    /// Whether its users can send files to one another.
    fn sends(&self) -> bool {
        false
    }

    /// Whether its server counts messages, so that [`Mounted::counts`] has a value.
    fn counts_messages(&self) -> bool {
        false
    }

    /// Whether the kernel's requests to it are worth a run of their own.
    fn counts_requests(&self) -> bool {
        false
    }

    /// Sets up a new instance in the directory `place`, with the content of `fixture` stored in it.
    ///
    /// # Panics
    /// If setting up fails.
    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted>;
}

/// A running filesystem. Dropping it removes it, with its server.
pub trait Mounted {
    /// The directory where it is mounted.
    fn root(&self) -> &Path;

    /// Waits until everything written is durable.
    ///
    /// # Errors
    /// If that fails or exceeds the deadline.
    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop>;

    /// The resources that its processes have used so far.
    fn usage(&self) -> Sides;

    /// The processes to profile.
    fn pids(&self) -> Option<Pids> {
        None
    }

    /// Its server's message counters, if it has any.
    fn counts(&self) -> Option<Value> {
        None
    }

    /// The content of the store, as a directory. Processes that may hold data back are killed
    /// first, so that only durable data is found.
    ///
    /// # Panics
    /// If the store can't be read.
    fn stored(&mut self) -> std::path::PathBuf;

    /// The file of this name that `bob` received. Call it after [`Mounted::stored`].
    ///
    /// # Panics
    /// If there is no such file, or the filesystem can't send files.
    fn received(&mut self, name: &str) -> std::path::PathBuf {
        panic!("{name} was sent by a filesystem that can't")
    }
}

/// The processes at both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pids {
    /// The process that mounts.
    pub client: u32,
    /// The process that serves.
    pub server: u32,
}

/// The resources used at both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sides {
    /// By the mounting side.
    pub client: Usage,
    /// By the serving side; none for a local filesystem.
    pub server: Usage,
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Box<dyn Filesystem>> {
    vec![Box::new(Xfer), Box::new(Sshfs), Box::new(Rclone), Box::new(Bindfs), Box::new(Local)]
}
