//! Removing names and nodes: unlink, rmdir, and orphans.

use super::super::PlanError;
use super::super::staging::Staging;
use super::{Place, is_fixture};
use crate::{Errno, Ino};

pub(super) fn unlink(d: &mut Staging<'_>, place: Place<'_>) -> Result<(), PlanError> {
    d.directory(place.0)?;
    let ino = d.entry(place.0, place.1)?.ok_or(Errno::ENOENT)?;
    if d.node(ino)?.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    d.leave(place.0, place.1)?;
    drop_name(d, ino)
}

pub(super) fn rmdir(d: &mut Staging<'_>, place: Place<'_>) -> Result<(), PlanError> {
    d.directory(place.0)?;
    let ino = d.entry(place.0, place.1)?.ok_or(Errno::ENOENT)?;
    must_be_removable(d, ino)?;
    d.leave(place.0, place.1)?;
    drop_directory(d, place.0, ino)
}

/// Refuses to remove a node that is not a directory, is not empty, or belongs to xfer.
pub(super) fn must_be_removable(d: &Staging<'_>, ino: Ino) -> Result<(), PlanError> {
    let node = d.node(ino)?;
    match node.entries() {
        _ if !node.is_directory() => Err(Errno::ENOTDIR.into()),
        0 if is_fixture(ino, &node) => Err(Errno::EPERM.into()),
        0 => Ok(()),
        _ => Err(Errno::ENOTEMPTY.into()),
    }
}

/// Takes one name from a node that is not a directory. Without names it is an orphan.
pub(super) fn drop_name(d: &mut Staging<'_>, ino: Ino) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node_mut(ino)?;
    node.nlink = node.nlink.checked_sub(1).ok_or(Errno::EIO)?;
    node.ctime = time;
    Ok(())
}

/// Turns the directory `ino`, until now in `parent`, into an orphan.
pub(super) fn drop_directory(d: &mut Staging<'_>, parent: Ino, ino: Ino) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node_mut(ino)?;
    node.nlink = 0;
    node.ctime = time;
    let parent = d.node_mut(parent)?;
    parent.nlink = parent.nlink.checked_sub(1).ok_or(Errno::EIO)?;
    Ok(())
}

pub(super) fn forget_orphan(d: &mut Staging<'_>, ino: Ino) -> Result<(), PlanError> {
    if d.node(ino)?.nlink != 0 {
        return Err(Errno::EBUSY.into());
    }
    d.remove(ino)
}
