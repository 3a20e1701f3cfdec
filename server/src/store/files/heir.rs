//! Whom contents belong to that root makes, in the store of a server that runs as somebody else.

use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use rustix::process::geteuid;

/// The user and group of the store's owner, if this runs as root and that is somebody else.
pub(super) struct Heir(Option<(u32, u32)>);

impl Heir {
    /// Of the store in `dir`.
    pub(super) fn of(dir: &Path) -> io::Result<Heir> {
        let owner = dir.metadata()?;
        let acts_for_another = geteuid().is_root() && owner.uid() != 0;
        Ok(Heir(acts_for_another.then(|| (owner.uid(), owner.gid()))))
    }

    /// Gives what was just made to the heir, if there is one.
    pub(super) fn gets(&self, made: &Path) -> io::Result<()> {
        match self.0 {
            Some((user, group)) => lchown(made, Some(user), Some(group)),
            None => Ok(()),
        }
    }
}
