//! Attributes and extended attributes.

use std::sync::Arc;

use bytes::Bytes;

use super::super::staging::Staging;
use super::super::{Action, NOTE_XATTR, Need, PlanError, STATE_XATTR, XattrMode, Xattrs, is_note};
use super::data;
use crate::limits::{
    STATE_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX,
};
use crate::{Errno, Ino};

const MODE_MASK: u16 = 0o7777;
/// The bound on all names of a node's attributes, each with a closing NUL (`XATTR_LIST_MAX`).
const XATTR_LIST_BYTES_MAX: usize = 65_536;

pub(super) fn set(d: &mut Staging<'_>, ino: Ino, action: &Action) -> Result<(), PlanError> {
    let time = d.time;
    let Action::SetAttr { mode, uid, gid, size, atime, mtime, clear_set_id, fresh, .. } = action
    else {
        return Err(Errno::EINVAL.into());
    };
    d.node(ino)?;
    if let Some(size) = size {
        data::resize(d, ino, *size, *fresh)?;
    }
    let node = d.node_mut(ino)?;
    // On a directory these bits set the owner of new entries and grant no rights, so they stay.
    if (*clear_set_id || uid.is_some() || gid.is_some()) && !node.is_directory() {
        node.clear_set_id();
    }
    node.mode = mode.map_or(node.mode, |mode| mode & MODE_MASK);
    node.uid = uid.unwrap_or(node.uid);
    node.gid = gid.unwrap_or(node.gid);
    node.atime = atime.unwrap_or(node.atime);
    node.mtime = mtime.unwrap_or(node.mtime);
    node.ctime = time;
    Ok(())
}

pub(super) fn set_xattr(
    d: &mut Staging<'_>,
    ino: Ino,
    name: &Bytes,
    value: &Bytes,
    mode: XattrMode,
) -> Result<(), PlanError> {
    let time = d.time;
    must_be_attribute_name(name)?;
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(Errno::ENOSPC.into());
    }
    // It is not charged, so that it can report a full quota; so its size is bounded.
    if name == STATE_XATTR && value.len() > STATE_BYTES_MAX {
        return Err(Errno::EINVAL.into());
    }
    if name == NOTE_XATTR && !is_note(value) {
        return Err(Errno::EINVAL.into());
    }
    let node = d.node_mut(ino)?;
    let mut xattrs = node.xattrs.take().ok_or(PlanError::Need(Need::Attributes(ino)))?;
    match (mode, xattrs.contains_key(name)) {
        (XattrMode::Create, true) => return Err(Errno::EEXIST.into()),
        (XattrMode::Replace, false) => return Err(Errno::ENODATA.into()),
        (XattrMode::Either | XattrMode::Create | XattrMode::Replace, _) => {}
    }
    Arc::make_mut(&mut xattrs).insert(name.clone(), value.clone());
    let list: usize = xattrs.keys().map(|name| name.len() + 1).sum();
    node.xattrs = Xattrs::of(xattrs);
    if name != STATE_XATTR {
        node.ctime = time;
    }
    if node.xattrs.bytes() > XATTRS_BYTES_MAX as u64 || list > XATTR_LIST_BYTES_MAX {
        return Err(Errno::ENOSPC.into());
    }
    Ok(())
}

pub(super) fn remove_xattr(d: &mut Staging<'_>, ino: Ino, name: &Bytes) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node_mut(ino)?;
    let mut xattrs = node.xattrs.take().ok_or(PlanError::Need(Need::Attributes(ino)))?;
    Arc::make_mut(&mut xattrs).remove(name).ok_or(Errno::ENODATA)?;
    node.xattrs = Xattrs::of(xattrs);
    // xfer's own note is no change of the node that any program made or sees.
    if name != STATE_XATTR {
        node.ctime = time;
    }
    Ok(())
}

fn must_be_attribute_name(name: &[u8]) -> Result<(), Errno> {
    match name.len() {
        0 => Err(Errno::EINVAL),
        1..=XATTR_NAME_BYTES_MAX if name.contains(&0) => Err(Errno::EINVAL),
        1..=XATTR_NAME_BYTES_MAX => Ok(()),
        _ => Err(Errno::ERANGE),
    }
}
