//! How a file becomes incomplete, because a change failed or a writer was killed, and how it
//! becomes complete again.
//!
//! The reason why a node is not sent is kept as an attribute of it ([`STATE_XATTR`]), for later
//! sessions. Sending itself is in [`super::sending`].

use bytes::Bytes;
use xfer_protocol::tree::{Action, STATE_XATTR, XattrMode};
use xfer_protocol::{Errno, Ino};

use super::drafts::{DataChange, Unsent};
use crate::core::pause::Stop;
use crate::core::state::Core;
use crate::core::tree::HandleId;

impl Core {
    /// Whether a node is a draft.
    pub(in crate::core) fn is_draft(&self, ino: Ino) -> bool {
        self.outbox.drafts.get(ino).is_some()
    }

    /// Whether a draft may depend on a file being complete.
    pub fn matters_to_drafts(&self, ino: Ino) -> bool {
        self.outbox.drafts.depend_on(ino)
    }

    /// Notes that a change of a file's data failed. A file that may be sent becomes torn by it.
    pub(crate) fn note_failure(&mut self, ino: Ino, errno: Errno) {
        let since = match errno {
            Errno::EDQUOT
            | Errno::ENOSPC
            | Errno::EFBIG
            | Errno::EIO
            | Errno::ENOMEM
            | Errno::ETIMEDOUT
            | Errno::ESTALE => self.handles.newest(),
            // A program that continues after an interrupt writes the same again, through any
            // handle.
            Errno::EINTR => HandleId(0),
            // The call asked for something that is not to be had here. The program knows another
            // way.
            _ => return,
        };
        // There is nothing to hold for a file that is neither written to nor part of a draft.
        if self.outbox.drafts.depend_on(ino) || self.handles.writers(ino) > 0 {
            self.outbox.drafts.tear(ino, Unsent::Failed(errno), since);
        }
    }

    /// Notes that a program which had a file open for writing was killed. If a write was
    /// interrupted before, the program won't make up for it.
    pub fn note_killed(&mut self, handle: HandleId, ino: Ino) {
        if !self.handles.file_mut(handle).is_some_and(|file| file.writable) {
            return;
        }
        match self.outbox.drafts.torn(ino) {
            None | Some(Unsent::Failed(Errno::EINTR)) => {
                self.outbox.drafts.tear(ino, Unsent::Killed, self.handles.newest());
            }
            Some(_) => {}
        }
    }

    /// Before a file's data changes: a record becomes a draft that is sent again, and a
    /// draft that waited is no longer marked as complete. May be done again.
    pub(in crate::core) fn prepare_change(&mut self, ino: Ino) -> Result<(), Stop> {
        self.revise(ino)?;
        if self.outbox.drafts.get(ino).is_some() {
            self.unmark(ino)?;
        }
        for directory in self.outbox.drafts.waiting_with(ino) {
            self.unmark(directory)?;
            self.outbox.drafts.wait_for_writers(directory);
        }
        Ok(())
    }

    /// Before an entry is added to a directory: if the directory waits to be sent, it counts as
    /// incomplete until it is looked at again.
    pub(in crate::core) fn prepare_entry(&mut self, directory: Ino) -> Result<(), Stop> {
        for draft in self.outbox.drafts.waiting_with(directory) {
            self.unmark(draft)?;
            self.outbox.drafts.wait_for_writers(draft);
            self.outbox.resend |= self.outbox.drafts.retry_written();
        }
        Ok(())
    }

    /// Notes that a file's data changed, through a handle or by its name.
    pub fn note_change(&mut self, ino: Ino, handle: Option<HandleId>) {
        self.outbox.resend |=
            self.outbox.drafts.changed(ino, handle.map_or(DataChange::ByPath, DataChange::By));
        if handle.is_none() && self.handles.writers(ino) == 0 {
            // It is not open for writing, so no close leaves it at rest.
            self.outbox.resend |= self.outbox.drafts.retry_written();
            let is_held = self.outbox.drafts.get(ino).is_none_or(|draft| draft.is_held());
            if !is_held && let Err(stop) = self.rest(ino) {
                tracing::debug!("that {ino} may be sent is not noted: {stop:?}");
            }
        }
    }

    /// Notes that a file was truncated to nothing.
    pub(in crate::core) fn note_emptied(&mut self, ino: Ino) {
        self.outbox.resend |= self.outbox.drafts.changed(ino, DataChange::Emptied);
    }

    /// Marks a draft with the reason why it is not sent, for later sessions.
    pub(in crate::core) fn mark(&mut self, ino: Ino) -> Result<(), Stop> {
        let Some(draft) = self.outbox.drafts.get(ino) else { return Ok(()) };
        let Some(why) = &draft.why else { return Ok(()) };
        let value = Bytes::from(why.text(&draft.location.to));
        if self.all_xattrs(ino)?.get(STATE_XATTR) == Some(&value) {
            return Ok(());
        }
        let name = Bytes::from_static(STATE_XATTR);
        let mark = Action::SetXattr { ino, name, value, mode: XattrMode::Either };
        match self.change(mark) {
            // Without the mark, a later session takes the draft for incomplete, which is safe.
            Err(Stop::Refused(errno)) => {
                tracing::debug!("why {ino} is not sent is not noted: {errno}");
                Ok(())
            }
            done => done,
        }
    }

    /// Removes a draft's mark, if it has one.
    pub(in crate::core) fn unmark(&mut self, ino: Ino) -> Result<(), Stop> {
        match self.all_xattrs(ino)?.contains_key(STATE_XATTR) {
            true => self.change(Action::RemoveXattr { ino, name: Bytes::from_static(STATE_XATTR) }),
            false => Ok(()),
        }
    }
}
