//! New nodes and new names: create, mkdir, symlink, mknod, link, and mailboxes.

use bytes::Bytes;

use super::super::staging::Staging;
use super::super::{FileData, Kind, Node, Owner, PlanError, SpecialKind, Xattrs};
use super::{MailZone, Place, must_not_be_sent, post};
use crate::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use crate::{Errno, Ino, Name, Timestamp};

const MODE_MASK: u16 = 0o7777;
const DIRECTORY_MODE_MASK: u16 = 0o1777;
const SET_GID: u16 = 0o2000;

pub(super) fn file(
    d: &mut Staging<'_>,
    place: Place<'_>,
    ino: Ino,
    mode: u16,
    owner: Owner,
) -> Result<(), PlanError> {
    let time = d.time;
    add(d, place, ino, new_node(Kind::File(FileData::default()), mode, owner, time))
}

pub(super) fn directory(
    d: &mut Staging<'_>,
    place: Place<'_>,
    ino: Ino,
    mode: u16,
    owner: Owner,
) -> Result<(), PlanError> {
    let time = d.time;
    let kind = Kind::empty_directory(place.0);
    // mkdir(2) ignores the set-id bits; the parent's are inherited separately.
    add(d, place, ino, new_node(kind, mode & DIRECTORY_MODE_MASK, owner, time))?;
    d.node_mut(place.0)?.nlink += 1;
    Ok(())
}

pub(super) fn symlink(
    d: &mut Staging<'_>,
    place: Place<'_>,
    ino: Ino,
    target: &Bytes,
    owner: Owner,
) -> Result<(), PlanError> {
    let time = d.time;
    must_be_target(target)?;
    add(d, place, ino, new_node(Kind::Symlink { target: target.clone() }, 0o777, owner, time))
}

/// Refuses a target that no symbolic link can have.
pub(super) fn must_be_target(target: &[u8]) -> Result<(), Errno> {
    match target.len() {
        0 => Err(Errno::ENOENT),
        1..=SYMLINK_BYTES_MAX if target.contains(&0) => Err(Errno::EINVAL),
        1..=SYMLINK_BYTES_MAX => Ok(()),
        _ => Err(Errno::ENAMETOOLONG),
    }
}

pub(super) fn special(
    d: &mut Staging<'_>,
    place: Place<'_>,
    ino: Ino,
    mode: u16,
    owner: Owner,
    kind: SpecialKind,
) -> Result<(), PlanError> {
    let time = d.time;
    let node = new_node(Kind::Special(kind), mode, owner, time);
    add(d, place, ino, node)
}

pub(super) fn link(d: &mut Staging<'_>, ino: Ino, place: Place<'_>) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node(ino)?;
    let parent = d.directory(place.0)?;
    if d.entry(place.0, place.1)?.is_some() {
        return Err(Errno::EEXIST.into());
    }
    if node.is_directory() || post(place.0, &parent) != MailZone::None {
        return Err(Errno::EPERM.into());
    }
    must_not_be_sent(&node)?;
    match node.nlink {
        0 => return Err(Errno::ENOENT.into()),
        LINKS_MAX.. => return Err(Errno::EMLINK.into()),
        1..LINKS_MAX => {}
    }
    let node = d.node_mut(ino)?;
    node.nlink += 1;
    node.ctime = time;
    d.enter(place.0, place.1, ino)
}

/// Makes `outbox/<user>`. The server checks that the user exists; the tree can't.
pub(super) fn mailbox(
    d: &mut Staging<'_>,
    user: &Name,
    ino: Ino,
    owner: Owner,
) -> Result<(), PlanError> {
    let time = d.time;
    let kind = Kind::empty_directory(Ino::OUTBOX);
    enter_new(d, (Ino::OUTBOX, user), ino, new_node(kind, 0o700, owner, time))?;
    d.node_mut(Ino::OUTBOX)?.nlink += 1;
    Ok(())
}

pub(super) fn new_node(kind: Kind, mode: u16, owner: Owner, time: Timestamp) -> Node {
    let nlink = if matches!(kind, Kind::Directory { .. }) { 2 } else { 1 };
    Node {
        kind,
        mode: mode & MODE_MASK,
        uid: owner.uid,
        gid: owner.gid,
        nlink,
        atime: time,
        mtime: time,
        ctime: time,
        xattrs: Xattrs::None,
        sent: None,
    }
}

/// Adds a node for a program, if a program may make such a node there.
fn add(d: &mut Staging<'_>, place: Place<'_>, ino: Ino, mut node: Node) -> Result<(), PlanError> {
    let parent = d.directory(place.0)?;
    if d.entry(place.0, place.1)?.is_some() {
        return Err(Errno::EEXIST.into());
    }
    match post(place.0, &parent) {
        MailZone::None => {}
        // Every user has a mailbox, so a name that is not in the outbox is not a user.
        MailZone::Outbox => return Err(Errno::ENOENT.into()),
        MailZone::Mailbox if node.file().is_some() || node.is_directory() => {}
        MailZone::Mailbox | MailZone::Sent => return Err(Errno::EPERM.into()),
    }
    if parent.mode & SET_GID != 0 {
        node.gid = parent.gid;
        if node.is_directory() {
            node.mode |= SET_GID;
        }
    }
    if node.is_directory() && parent.nlink >= u32::MAX - 1 {
        return Err(Errno::EMLINK.into());
    }
    enter_new(d, place, ino, node)
}

/// Adds a node with its first entry, whether a program or a delivery makes it.
pub(super) fn enter_new(
    d: &mut Staging<'_>,
    place: Place<'_>,
    ino: Ino,
    node: Node,
) -> Result<(), PlanError> {
    d.directory(place.0)?;
    if d.entry(place.0, place.1)?.is_some() {
        return Err(Errno::EEXIST.into());
    }
    if ino < Ino(Ino::FIRST_GRANTED) {
        return Err(Errno::EINVAL.into());
    }
    d.insert(ino, node)?;
    d.enter(place.0, place.1, ino)
}
