//! Whose rights a command acts with: those of the store's owner, also when root types it.
//!
//! What root made in the store of a service would be root's, and the service could not use it; and
//! whatever the service, or who broke into it, planted there would be followed with root's rights.
//! So root becomes the owner before anything of the store is touched. Root's right to read stays:
//! what is imported, a file with a password, or a directory on the way to the store may be root's
//! alone. Where more is needed, outside of the store, it is taken back for as long ([`Own`]).
//!
//! All of it is of the thread that calls; threads that this one starts later inherit it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::io::Result as SystemResult;
use rustix::process::{getegid, geteuid, getuid};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::exit::{Exit, Failure};

/// Acts with the rights of the owner of a store from now on, if this is root. The owner of one that
/// is not there yet is whoever has the directory that it is made in.
///
/// # Errors
/// If root may not do that here.
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

/// Who has the store, or the nearest directory on the way to it that is there.
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

/// The rights of who typed the command, until this is dropped: for what is not in the store.
#[must_use]
pub struct Own {
    owner: Option<(Uid, Gid)>,
}

impl Own {
    /// Takes them back, if they were given away.
    ///
    /// # Errors
    /// If that can't be: then all is as before.
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
        // What comes after would be done to the store with root's rights.
        put_on(user, group).expect("root may become another user, as it did before");
    }
}
