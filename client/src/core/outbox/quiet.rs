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

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xfer_protocol::tree::{Action, STATE_XATTR};
use xfer_protocol::{Ino, Name};

use super::drafts::{Draft, Location, Unsent};
use super::temporary::is_temporary;
use crate::core::pause::Stop;
use crate::core::state::Core;
use crate::core::tree::HandleId;

/// For how long a file must not have changed.
const FILE_QUIET: Duration = Duration::from_secs(1);

/// For how long nothing in a directory must have changed.
const DIRECTORY_QUIET: Duration = Duration::from_secs(2);

/// For how long a file must not have changed that may be some program's aid, and no result.
const DOUBTFUL_QUIET: Duration = Duration::from_secs(10);

/// What is at rest. This decides for how long, and what people read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Rest {
    /// A file.
    File,
    /// A directory, with all in it.
    Directory,
    /// A file whose name is one that tools give to incomplete files.
    Temporary,
    /// A file without data: programs make those to try whether they can write.
    Empty,
}

impl Rest {
    /// For how long nothing of it must have changed.
    pub(in crate::core) fn quiet(self) -> Duration {
        match self {
            Rest::File => FILE_QUIET,
            Rest::Directory => DIRECTORY_QUIET,
            Rest::Temporary | Rest::Empty => DOUBTFUL_QUIET,
        }
    }

    /// Whether it may be some program's aid, which is not worth sending.
    pub(in crate::core) fn is_doubtful(self) -> bool {
        matches!(self, Rest::Temporary | Rest::Empty)
    }

    /// The text that people read, and that a node is marked with.
    pub(in crate::core) fn text(self) -> String {
        let since = match self {
            Rest::File | Rest::Directory => "",
            Rest::Temporary => ", since its name looks temporary",
            Rest::Empty => ", since it is empty",
        };
        let seconds = self.quiet().as_secs();
        format!("{}{seconds} s without a change{since}", Rest::PREFIX)
    }

    /// Whether a mark says that a node was at rest.
    pub(in crate::core) fn is_text(mark: &str) -> bool {
        mark.starts_with(Rest::PREFIX)
    }

    const PREFIX: &'static str = "waiting: sent after ";
}

/// When nodes were last touched. Touches of more than [`DOUBTFUL_QUIET`] ago are forgotten.
#[derive(Debug, Default)]
pub(in crate::core) struct Touches {
    newer: BTreeMap<Ino, Instant>,
    /// Those of the time before `newer` was begun.
    older: BTreeMap<Ino, Instant>,
    begun: Option<Instant>,
}

impl Touches {
    pub(super) fn note(&mut self, ino: Ino, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        if now.saturating_duration_since(begun) > DOUBTFUL_QUIET {
            self.older = std::mem::take(&mut self.newer);
            self.begun = Some(now);
        }
        self.newer.insert(ino, now);
    }

    /// When a node was last touched, if it was lately.
    pub(super) fn last(&self, ino: Ino) -> Option<Instant> {
        self.newer.get(&ino).or_else(|| self.older.get(&ino)).copied()
    }

    fn clear(&mut self) {
        *self = Touches::default();
    }
}

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

    /// Notes that a program touched a node. What was synced of it before does not make it complete any
    /// more.
    pub(in crate::core) fn touch(&mut self, ino: Ino) {
        self.outbox.touches.note(ino, self.now.monotonic);
        self.outbox.drafts.synced.remove(&ino);
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

    fn rest_until(&mut self, ino: Ino, rest: Rest, until: Instant) {
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
        let has_temporary_name = |name: &Name| is_temporary(name);
        let draft = self.outbox.drafts.get(ino);
        Ok(match node.file() {
            None => Rest::Directory,
            Some(_) if draft.is_some_and(|draft| has_temporary_name(&draft.location.name)) => {
                Rest::Temporary
            }
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
