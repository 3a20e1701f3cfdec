//! Rename, in its three modes (rename(2), renameat2(2)).

use std::sync::Arc;

use super::super::staging::Staging;
use super::super::{Kind, Node, PlanError, RenameMode};
use super::remove::{drop_directory, drop_name, must_be_removable};
use super::{MailZone, Place, is_fixture, post};
use crate::{Errno, Ino};

pub(super) fn rename(
    d: &mut Staging<'_>,
    from: Place<'_>,
    to: Place<'_>,
    mode: RenameMode,
) -> Result<(), PlanError> {
    d.directory(from.0)?;
    d.directory(to.0)?;
    let moved = d.entry(from.0, from.1)?.ok_or(Errno::ENOENT)?;
    let target = d.entry(to.0, to.1)?;
    match mode {
        RenameMode::NoReplace if target.is_some() => return Err(Errno::EEXIST.into()),
        RenameMode::Exchange if target.is_none() => return Err(Errno::ENOENT.into()),
        RenameMode::Replace | RenameMode::NoReplace | RenameMode::Exchange => {}
    }
    must_be_movable(d, moved, from.0, to.0)?;
    must_not_be_inside(d, to.0, moved)?;
    match (mode, target) {
        (_, None) => relocate(d, from, to, moved),
        (_, Some(target)) if target == moved => Ok(()),
        (RenameMode::Exchange, Some(target)) => {
            must_be_movable(d, target, to.0, from.0)?;
            must_not_be_inside(d, from.0, target)?;
            exchange(d, (from, moved), (to, target))
        }
        (RenameMode::Replace | RenameMode::NoReplace, Some(target)) => {
            replace(d, (from.0, to.0), moved, target)?;
            relocate(d, from, to, moved)
        }
    }
}

/// Refuses moves that sending forbids: see `docs/SEMANTICS.md`.
fn must_be_movable(d: &Staging<'_>, ino: Ino, from: Ino, to: Ino) -> Result<(), PlanError> {
    let node = d.node(ino)?;
    if is_fixture(ino, &node) {
        return Err(Errno::EPERM.into());
    }
    // A directory within one that was sent stays where it is; a record may have another name.
    let is_part = node.is_directory() && post(from, &*d.directory(from)?) == MailZone::Sent;
    if node.sent.is_some() && (from != to || is_part) {
        // `mv` answers this error by copying, and the copy is an ordinary file again.
        return Err(Errno::EXDEV.into());
    }
    let into_mailbox = |node: &Arc<Node>| match node.kind {
        Kind::Directory { .. } => Ok(()),
        Kind::File(_) if node.nlink == 1 => Ok(()),
        // A file moved here becomes a record, which its other names must not.
        Kind::File(_) => Err(Errno::EXDEV),
        Kind::Symlink { .. } | Kind::Special(_) => Err(Errno::EPERM),
    };
    match post(to, &*d.directory(to)?) {
        MailZone::None => Ok(()),
        MailZone::Mailbox => Ok(into_mailbox(&node)?),
        MailZone::Outbox => Err(Errno::ENOENT.into()),
        MailZone::Sent => Err(Errno::EPERM.into()),
    }
}

/// Refuses to move a directory into itself or below itself.
fn must_not_be_inside(d: &Staging<'_>, place: Ino, moved: Ino) -> Result<(), PlanError> {
    if is_inside(d, place, moved)? { Err(Errno::EINVAL.into()) } else { Ok(()) }
}

/// Whether the directory `place` is `ino` or below it.
fn is_inside(d: &Staging<'_>, place: Ino, ino: Ino) -> Result<bool, PlanError> {
    if !d.node(ino)?.is_directory() {
        return Ok(false);
    }
    // A malicious server may claim that directories contain each other. Brent's cycle detection: a
    // walk in a ring returns to a node remembered after 1, 2, 4, ... steps.
    let (mut at, mut before, mut steps) = (place, place, 0u64);
    loop {
        if at == ino {
            return Ok(true);
        }
        if at == Ino::ROOT {
            return Ok(false);
        }
        at = d.node(at)?.parent().ok_or(Errno::EIO)?;
        steps += 1;
        if at == before {
            return Err(Errno::EIO.into());
        }
        if steps.is_power_of_two() {
            before = at;
        }
    }
}

/// Removes the target's name, if the moved node may replace it.
fn replace(
    d: &mut Staging<'_>,
    (from, to): (Ino, Ino),
    moved: Ino,
    target: Ino,
) -> Result<(), PlanError> {
    match (d.node(moved)?.is_directory(), d.node(target)?.is_directory()) {
        (true, true) => {
            must_be_removable(d, target)?;
            drop_directory(d, to, target)
        }
        (true, false) => Err(Errno::ENOTDIR.into()),
        (false, true) if is_inside(d, from, target)? => Err(Errno::ENOTEMPTY.into()),
        (false, true) => Err(Errno::EISDIR.into()),
        (false, false) => drop_name(d, target),
    }
}

fn relocate(
    d: &mut Staging<'_>,
    from: Place<'_>,
    to: Place<'_>,
    moved: Ino,
) -> Result<(), PlanError> {
    let taken = d.entry(to.0, to.1)?.is_some();
    d.leave(from.0, from.1)?;
    if taken {
        d.leave(to.0, to.1)?;
    }
    d.enter(to.0, to.1, moved)?;
    reparent(d, moved, from.0, to.0)
}

fn exchange(
    d: &mut Staging<'_>,
    (from, moved): (Place<'_>, Ino),
    (to, target): (Place<'_>, Ino),
) -> Result<(), PlanError> {
    d.leave(from.0, from.1)?;
    d.leave(to.0, to.1)?;
    d.enter(from.0, from.1, target)?;
    d.enter(to.0, to.1, moved)?;
    reparent(d, moved, from.0, to.0)?;
    reparent(d, target, to.0, from.0)
}

/// Updates a moved node, and its old and new directories.
fn reparent(d: &mut Staging<'_>, moved: Ino, from: Ino, to: Ino) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node_mut(moved)?;
    node.ctime = time;
    if let Kind::Directory { parent, .. } = &mut node.kind {
        *parent = to;
        if from != to {
            let from = d.node_mut(from)?;
            from.nlink = from.nlink.checked_sub(1).ok_or(Errno::EIO)?;
            d.node_mut(to)?.nlink += 1;
        }
    }
    Ok(())
}
