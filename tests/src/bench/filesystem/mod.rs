//! The filesystems that are compared, behind one small waist.

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

/// A way to have a directory.
pub trait Filesystem {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// How it is set up, and when it is durable.
    fn remark(&self) -> &'static str;

    /// Whether its users can send files to one another.
    fn sends(&self) -> bool {
        false
    }

    /// Whether its server counts messages.
    fn counts_messages(&self) -> bool {
        false
    }

    /// Whether what the kernel asks of it is worth a run of its own.
    fn counts_requests(&self) -> bool {
        false
    }

    /// Sets one up from nothing in the directory `place`, with what is in `fixture` stored in it.
    ///
    /// # Panics
    /// If that fails.
    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted>;
}

/// A filesystem that runs. Gone, with its server, when dropped.
pub trait Mounted {
    /// The directory.
    fn root(&self) -> &Path;

    /// Waits until all that was written is durable.
    ///
    /// # Errors
    /// If that fails, or takes too long.
    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop>;

    /// What its processes used so far.
    fn usage(&self) -> Sides;

    /// The processes that are worth a look at where their time goes.
    fn pids(&self) -> Option<Pids> {
        None
    }

    /// What its server counted of the messages it got, if it does.
    fn counts(&self) -> Option<Value> {
        None
    }

    /// What the store holds, as a directory. Where processes hold something back, they are killed
    /// first, so that only what is durable is found.
    ///
    /// # Panics
    /// If the store can't be read.
    fn stored(&mut self) -> std::path::PathBuf;

    /// What `bob` was sent by this name, as a file. To be asked after [`Mounted::stored`].
    ///
    /// # Panics
    /// If there is nothing, or nobody who could be sent anything.
    fn received(&mut self, name: &str) -> std::path::PathBuf {
        panic!("{name} was sent by a filesystem that can't")
    }
}

/// The processes of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pids {
    /// Of whoever mounts.
    pub client: u32,
    /// Of whoever serves.
    pub server: u32,
}

/// What both ends used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sides {
    /// Whoever mounts.
    pub client: Usage,
    /// Whoever serves; nobody, for a filesystem of one machine.
    pub server: Usage,
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Box<dyn Filesystem>> {
    vec![Box::new(Xfer), Box::new(Sshfs), Box::new(Rclone), Box::new(Bindfs), Box::new(Local)]
}
