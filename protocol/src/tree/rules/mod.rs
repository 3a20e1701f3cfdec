//! What each op does: one `match` with a line for each op; a file for each family of ops.

mod create;
mod remove;
mod rename;
mod attributes;
mod data;
mod copy;
mod sending;

use super::staging::Staging;
use super::{Action, Changes, Node, Op, PlanError, Rows};
use crate::{Errno, Ino, Name};

/// Works out the changes that `op` makes to the loaded rows.
///
/// # Errors
/// [`PlanError::Need`] if a row must be loaded first; [`PlanError::Refused`] with the errno that POSIX and
/// Linux give for such an op. Neither changes anything.
pub fn plan(rows: &dyn Rows, op: &Op) -> Result<Changes, PlanError> {
    let mut staging = Staging::new(rows, op.time);
    let d = &mut staging;
    match &op.action {
        Action::Create { parent, name, ino, mode, owner } => {
            create::file(d, (*parent, name), *ino, *mode, *owner)?;
        }
        Action::Mkdir { parent, name, ino, mode, owner } => {
            create::directory(d, (*parent, name), *ino, *mode, *owner)?;
        }
        Action::Symlink { parent, name, ino, target, owner } => {
            create::symlink(d, (*parent, name), *ino, target, *owner)?;
        }
        Action::Mknod { parent, name, ino, mode, owner, kind } => {
            create::special(d, (*parent, name), *ino, *mode, *owner, *kind)?;
        }
        Action::Link { ino, parent, name } => create::link(d, *ino, (*parent, name))?,
        Action::Unlink { parent, name } => remove::unlink(d, (*parent, name))?,
        Action::Rmdir { parent, name } => remove::rmdir(d, (*parent, name))?,
        Action::Rename { from, to, mode } => {
            rename::rename(d, (from.0, &from.1), (to.0, &to.1), *mode)?;
        }
        Action::SetAttr { ino, .. } => attributes::set(d, *ino, &op.action)?,
        Action::SetXattr { ino, name, value, mode } => {
            attributes::set_xattr(d, *ino, name, value, *mode)?;
        }
        Action::RemoveXattr { ino, name } => attributes::remove_xattr(d, *ino, name)?,
        Action::Write { ino, offset, len, clear_set_id, fresh } => {
            let range = data::range(*offset, u64::from(*len))?;
            data::write(d, *ino, range, *clear_set_id, *fresh)?;
        }
        Action::Fallocate { ino, offset, len, mode, fresh } => {
            data::fallocate(d, *ino, data::range(*offset, *len)?, *mode, *fresh)?;
        }
        Action::CopyRange { from, from_offset, to, to_offset, len, fresh } => {
            let piece = copy::Piece {
                from: *from,
                from_offset: *from_offset,
                to: *to,
                to_offset: *to_offset,
                len: *len,
            };
            copy::copy_range(d, piece, *fresh)?;
        }
        Action::ForgetOrphan { ino } => remove::forget_orphan(d, *ino)?,
        Action::Mailbox { user, ino, owner } => create::mailbox(d, user, *ino, *owner)?,
        Action::Send { to, name, from, delivery } => {
            sending::send(d, sending::Letter { to, name, from, id: *delivery })?;
        }
        Action::Revise { ino } => sending::revise(d, *ino)?,
        Action::Accept { delivery, parent, name, first, owner } => {
            sending::accept(d, *delivery, (*parent, name), *first, *owner)?;
        }
        Action::Decline { delivery } => sending::decline(d, *delivery)?,
    }
    staging.finish()
}

/// A place in the tree: a directory and a name in it.
type Place<'a> = (Ino, &'a Name);

/// The part that a directory plays in sending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MailZone {
    /// An ordinary directory.
    None,
    /// `outbox` itself: its entries are the mailboxes and belong to xfer.
    Outbox,
    /// A mailbox, `outbox/<user>`.
    Mailbox,
    /// A record, or a directory within one.
    Sent,
}

fn post(ino: Ino, node: &Node) -> MailZone {
    match node.parent() {
        _ if ino == Ino::OUTBOX => MailZone::Outbox,
        _ if node.sent.is_some() => MailZone::Sent,
        Some(Ino::OUTBOX) => MailZone::Mailbox,
        Some(_) | None => MailZone::None,
    }
}

/// Whether the node is a mailbox or one that every tree has: these can't be moved or removed.
fn is_fixture(ino: Ino, node: &Node) -> bool {
    ino < Ino(Ino::FIRST_GRANTED) || post(ino, node) == MailZone::Mailbox
}

/// Refuses to change a record.
fn must_not_be_sent(node: &Node) -> Result<(), Errno> {
    if node.sent.is_some() { Err(Errno::EPERM) } else { Ok(()) }
}
