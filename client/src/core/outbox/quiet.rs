//! How long something in a mailbox must be left alone before it is sent.
//!
//! Programs make a file in several steps, and no step says that it is the last: `cp -p` sets modes and
//! times after the data, `zip` tries whether it can write and closes an empty file, `cp -r` makes one
//! file after the other. So a file that a program made is *at rest* from its last close on, and is
//! sent once nothing of it has changed for a while ([`Rest::quiet`]). An `fsync` before the close, and
//! a rename into the mailbox, say that it is complete, and have it sent at once.
//!
//! **Invariant:** every change of a node that a program makes, and every close of a writing handle,
//! counts as a touch of it while there are drafts.

use std::time::Instant;

use xfer_protocol::tree::{Action, STATE_XATTR};
use xfer_protocol::{Ino, Name};

use super::drafts::{Draft, Location, Unsent};
use super::rest::Rest;
use crate::core::pause::Stop;
use crate::core::state::Core;
use crate::core::tree::HandleId;

impl Core {
    /// Notes that a program changed something.
    pub(in crate::core) fn note_touches(&mut self, action: &Action) {
        if self.outbox.drafts.is_empty() {
            self.outbox.touches.clear();
            return;
        }
        match action {
            // The note why something is not sent is made by xfer itself.
            Action::SetXattr { name, .. } | Action::RemoveXattr { name, .. }
                if name == STATE_XATTR => {}
            Action::SetAttr { ino, .. }
            | Action::Write { ino, .. }
            | Action::Fallocate { ino, .. }
            | Action::CopyRange { to: ino, .. }
            | Action::SetXattr { ino, .. }
            | Action::RemoveXattr { ino, .. } => self.touch(*ino),
            Action::Create { parent, ino, .. }
            | Action::Mkdir { parent, ino, .. }
            | Action::Symlink { parent, ino, .. }
            | Action::Mknod { parent, ino, .. }
            | Action::Link { parent, ino, .. } => {
                self.touch(*parent);
                self.touch(*ino);
            }
            Action::Unlink { parent, .. } | Action::Rmdir { parent, .. } => self.touch(*parent),
            Action::Rename { from, to, .. } => {
                self.touch(from.0);
                self.touch(to.0);
            }
            Action::Mailbox { .. }
            | Action::Send { .. }
            | Action::Accept { .. }
            | Action::Decline { .. }
            | Action::Revise { .. }
            | Action::ForgetOrphan { .. } => {}
        }
    }

    /// Notes that a program touched a node. A sync before that no longer says that it is complete.
    pub(in crate::core) fn touch(&mut self, ino: Ino) {
        self.outbox.touches.note(ino, self.now.monotonic);
        self.outbox.drafts.synced.remove(&ino);
    }

    /// Notes that a program closed a file that it could write to. A sync before that still says that it is complete.
    pub(in crate::core) fn note_closed(&mut self, ino: Ino) {
        if !self.outbox.drafts.is_empty() {
            self.outbox.touches.note(ino, self.now.monotonic);
        }
    }

    /// Notes that a program syncs an open file. If nothing of it changes from then on, its close sends
    /// it at once.
    pub fn note_synced(&mut self, handle: HandleId) {
        let Some(ino) = self.handles.file_mut(handle).map(|file| file.ino) else { return };
        if self.is_draft(ino) {
            self.outbox.drafts.synced.insert(ino);
        }
    }

    /// Leaves a draft at rest: it is complete as far as is known.
    pub(in crate::core) fn rest(&mut self, ino: Ino) -> Result<(), Stop> {
        let rest = self.rest_of(ino)?;
        // For the mark: from the next line on, an attempt that is made again finds the draft at rest.
        self.all_xattrs(ino)?;
        self.rest_until(ino, rest, self.now.monotonic + rest.quiet());
        // Marked, so that a later session sends it if this one does not get to it. Not so a directory:
        // what may change in it is not known until it is about to be sent.
        match rest {
            Rest::File | Rest::Temporary | Rest::Empty => self.mark(ino),
            Rest::Directory => Ok(()),
        }
    }

    pub(super) fn rest_until(&mut self, ino: Ino, rest: Rest, until: Instant) {
        let Some(draft) = self.outbox.drafts.get_mut(ino) else { return };
        draft.why = Some(Unsent::AtRest(rest, until));
        self.outbox.rests_until(until);
    }

    /// Whether a draft has been left alone for long enough. If it has not, it rests on.
    pub(in crate::core) fn has_rested(&mut self, ino: Ino) -> Result<bool, Stop> {
        let Some(draft) = self.outbox.drafts.get(ino) else { return Ok(true) };
        let Location { mailbox, name, .. } = draft.location.clone();
        let rest = self.rest_of(ino)?;
        let members = match rest {
            Rest::Directory => self.weigh(ino, &name)?.members,
            Rest::File | Rest::Temporary | Rest::Empty => vec![ino],
        };
        let last = members.iter().filter_map(|ino| self.outbox.touches.last(*ino)).max();
        let now = self.now.monotonic;
        let until = match last.map(|last| last + rest.quiet()) {
            Some(until) if until > now => until,
            // Some program is at work here: the doubtful file may be its aid.
            Some(_) | None if rest.is_doubtful() && self.is_worked_in(mailbox) => {
                now + rest.quiet()
            }
            Some(_) | None => return Ok(true),
        };
        self.rest_until(ino, rest, until);
        Ok(false)
    }

    /// Has all drafts at rest sent at the next try, except the doubtful ones: the mount ends, so
    /// nothing can touch them any more.
    pub(crate) fn end_rests(&mut self) {
        self.outbox.drafts.end_rests();
    }

    /// Leaves drafts at rest, and marks them, that were due when the mount ended and could not be sent: a
    /// later session sends them.
    pub(crate) fn keep_due(&mut self) {
        let is_due = |draft: &Draft| draft.why == Some(Unsent::Due);
        let due = self.outbox.drafts.iter().filter(|(_, draft)| is_due(draft));
        let due: Vec<(Ino, Name)> =
            due.map(|(ino, draft)| (ino, draft.location.name.clone())).collect();
        for (ino, name) in due {
            // All of it is loaded, or it was never looked at and stays held.
            let Ok(weight) = self.weigh(ino, &name) else { continue };
            if weight.is_written || !weight.torn.is_empty() {
                continue;
            }
            let Ok(rest) = self.rest_of(ino) else { continue };
            self.rest_until(ino, rest, self.now.monotonic);
            self.outbox.drafts.set_members(ino, weight.members);
            if let Err(stop) = self.mark(ino) {
                tracing::debug!("that {ino} may be sent is not noted: {stop:?}");
            }
        }
    }

    pub(super) fn rest_of(&self, ino: Ino) -> Result<Rest, Stop> {
        let node = self.node(ino)?;
        let draft = self.outbox.drafts.get(ino);
        Ok(match node.file() {
            None => Rest::Directory,
            Some(_) if draft.is_some_and(Draft::is_temporary) => Rest::Temporary,
            Some(data) if data.size == 0 => Rest::Empty,
            Some(_) => Rest::File,
        })
    }

    /// Whether a program has a file in a mailbox open for writing.
    fn is_worked_in(&self, mailbox: Ino) -> bool {
        let mut written = self.handles.written();
        written.any(|ino| {
            self.outbox.drafts.get(ino).is_some_and(|draft| draft.location.mailbox == mailbox)
        })
    }
}
