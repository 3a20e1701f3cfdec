//! What makes a file not whole: a change that failed, or a writer that was killed; and what makes it
//! whole again.
//!
//! Why something is not sent is kept as an attribute of its node ([`STATE_XATTR`]), for the sessions
//! after this one.

use bytes::Bytes;
use xfer_protocol::tree::{Action, STATE_XATTR, XattrMode};
use xfer_protocol::{Errno, Ino};

use super::drafts::{DataChange, Unsent};
use crate::core::pause::Stop;
use crate::core::state::Core;
use crate::core::tree::HandleId;

impl Core {
    /// Whether something stands in a mailbox and was not sent.
    pub(in crate::core) fn is_draft(&self, ino: Ino) -> bool {
        self.outbox.drafts.get(ino).is_some()
    }

    /// Whether something that was not sent depends on a file being whole.
    pub fn matters_to_drafts(&self, ino: Ino) -> bool {
        self.outbox.drafts.depend_on(ino)
    }

    /// Part of a file could not be written.
    pub(crate) fn note_failure(&mut self, ino: Ino, errno: Errno) {
        let since = match errno {
            Errno::EDQUOT
            | Errno::ENOSPC
            | Errno::EFBIG
            | Errno::EIO
            | Errno::ENOMEM
            | Errno::ETIMEDOUT
            | Errno::ESTALE => self.handles.newest(),
            // A program that goes on after an interrupt writes the same again, through any handle.
            Errno::EINTR => HandleId(0),
            // The program asked for what can't be had by anybody, and knows another way.
            _ => return,
        };
        // A file that is neither open nor part of a draft has nothing to be held.
        if self.outbox.drafts.depend_on(ino) || self.handles.writers(ino) > 0 {
            self.outbox.drafts.tear(ino, Unsent::Failed(errno), since);
        }
    }

    /// A program that had a file open to write was killed. If that interrupted a write of its, it does
    /// not make up for it.
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

    /// Before data of a file changes: a record becomes an ordinary file, to be sent anew, and what
    /// waited is whole no longer. May be done again.
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

    /// Makes a record an ordinary file, which is a draft. Anything else stays as it is.
    pub(in crate::core) fn revise(&mut self, ino: Ino) -> Result<(), Stop> {
        let node = self.node(ino)?;
        if node.sent.is_some()
            && node.file().is_some()
            && let Some(place) = self.record_place(ino)?
        {
            self.change(Action::Revise { ino })?;
            self.outbox.drafts.remove(ino);
            self.note_draft(ino, place);
        }
        Ok(())
    }

    /// Before something is added to a directory: one that waits is not whole until it is looked at again.
    pub(in crate::core) fn prepare_entry(&mut self, directory: Ino) -> Result<(), Stop> {
        for draft in self.outbox.drafts.waiting_with(directory) {
            self.unmark(draft)?;
            self.outbox.drafts.wait_for_writers(draft);
            self.outbox.resend |= self.outbox.drafts.retry_written();
        }
        Ok(())
    }

    /// Data of a file changed: through a handle, or by its name.
    pub fn note_change(&mut self, ino: Ino, handle: Option<HandleId>) {
        self.outbox.resend |=
            self.outbox.drafts.changed(ino, handle.map_or(DataChange::ByPath, DataChange::By));
        if handle.is_none() && self.handles.writers(ino) == 0 {
            // Nobody will close it.
            self.outbox.resend |=
                self.outbox.drafts.make_due(ino) | self.outbox.drafts.retry_written();
        }
    }

    /// All data of a file went.
    pub(in crate::core) fn note_emptied(&mut self, ino: Ino) {
        self.outbox.resend |= self.outbox.drafts.changed(ino, DataChange::Emptied);
    }

    /// Marks on the server why something is not sent.
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
            // Without it, a later session takes the file for one that is not whole.
            Err(Stop::Refused(errno)) => {
                tracing::debug!("why {ino} is not sent is not noted: {errno}");
                Ok(())
            }
            done => done,
        }
    }

    /// Takes the mark away again.
    pub(in crate::core) fn unmark(&mut self, ino: Ino) -> Result<(), Stop> {
        match self.all_xattrs(ino)?.contains_key(STATE_XATTR) {
            true => self.change(Action::RemoveXattr { ino, name: Bytes::from_static(STATE_XATTR) }),
            false => Ok(()),
        }
    }
}
