//! Commands act with the rights of the store's owner, even if root runs them.
//!
//! Files that root made in a service's store would belong to root, and the service could not use them.
//! Besides, root's rights would apply to symbolic links planted there by the service or by an attacker
//! who controls it. So root becomes the owner before it touches the store. It keeps the right to read
//! everything, since an imported tree, a password file or a directory on the path to the store may be
//! readable by root only. Work outside the store that needs more regains root's own rights for a
//! moment ([`Own`]).
//!
//! Rights belong to the calling thread; threads that it starts later inherit them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::io::Result as SystemResult;
use rustix::process::{getegid, geteuid, getuid};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::program::exit::{Exit, Failure};

/// Acts with the rights of the store's owner from now on, if this process is root. A store that
/// does not exist yet will belong to the owner of the directory that it is made in.
///
/// # Errors
/// If root may not change its rights, as in some containers.
pub fn act_as_owner_of(store: &Path) -> Result<(), Failure> {
    let Some((user, group)) = owner(store).filter(|(user, _)| !user.is_root()) else {
        return Ok(());
    };
    if !getuid().is_root() {
        return Ok(());
    }
    set_thread_groups(&[group]).and_then(|()| put_on(user, group)).map_err(|error| {
        let line = format!(
            "cannot act as the owner of {} (user {}: {}); run this as that user",
            store.display(),
            user.as_raw(),
            std::io::Error::from(error),
        );
        Failure::new(Exit::Store, line)
    })
}

/// The owner of the store, or of its nearest existing ancestor.
fn owner(store: &Path) -> Option<(Uid, Gid)> {
    let absolute = std::path::absolute(store).ok()?;
    let metadata = absolute.ancestors().find_map(|path| path.metadata().ok())?;
    Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())))
}

fn put_on(user: Uid, group: Gid) -> SystemResult<()> {
    set_thread_res_gid(None, group, None)?;
    set_thread_res_uid(None, user, None)?;
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted.intersection(CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets)
}

/// The rights of the user who runs the command, until this is dropped: for work outside the store.
#[must_use]
pub struct Own {
    owner: Option<(Uid, Gid)>,
}

impl Own {
    /// Regains those rights, if this thread acts as the store's owner.
    ///
    /// # Errors
    /// If the system refuses; then nothing has changed.
    pub fn regain() -> SystemResult<Own> {
        let owner = (geteuid(), getegid());
        if !getuid().is_root() || owner.0.is_root() {
            return Ok(Own { owner: None });
        }
        set_thread_res_uid(None, Uid::ROOT, None)?;
        let own = Own { owner: Some(owner) };
        set_thread_res_gid(None, Gid::ROOT, None)?;
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some((user, group)) = self.owner else { return };
        // Going on would mean working on the store with root's rights.
        put_on(user, group).expect("root may become another user, as it did before");
    }
}
