//! Names: look-up, and the operations that make, move or remove a name.
//!
//! Names in a mailbox are those of drafts and records, so each operation here keeps the drafts in
//! step.

use std::sync::Arc;

use bytes::Bytes;
use xfer_protocol::tree::{Action, Loaded, Node, Owner, RenameMode, Rows, SpecialKind};
use xfer_protocol::{Errno, Ino, Name};

use super::handles::HandleId;
use crate::core::outbox::Location;
use crate::core::pause::Stop;
use crate::core::state::Core;

/// A node that an operation found or made.
pub type Found = (Ino, Arc<Node>);

/// The kind of a new node, and what it is made with.
#[derive(Clone, Debug)]
pub enum New {
    /// An empty regular file.
    File {
        /// Its permission bits.
        mode: u16,
    },
    /// An empty directory.
    Directory {
        /// Its permission bits.
        mode: u16,
    },
    /// A symbolic link.
    Symlink {
        /// The path that it points to.
        target: Bytes,
    },
    /// A pipe, socket or device.
    Special {
        /// Which of these.
        kind: SpecialKind,
        /// Its permission bits.
        mode: u16,
    },
}

impl Core {
    /// Finds an entry. The kernel knows its node from then on.
    pub fn lookup(&mut self, parent: Ino, name: &Name) -> Result<Option<Found>, Stop> {
        self.must_have_session()?;
        let Some(ino) = self.entry(parent, name)? else { return Ok(None) };
        if parent == Ino::OUTBOX && self.is_hidden(name, ino)? {
            return Ok(None);
        }
        let node = self.node(ino)?;
        self.handles.kernel.remember(ino, parent, Some(name));
        Ok(Some((ino, node)))
    }

    /// Finds a node by its number. The kernel knows it from then on.
    pub fn find(&mut self, ino: Ino) -> Result<Found, Stop> {
        self.must_have_session()?;
        let node = self.node(ino)?;
        let directory = node.parent().or(self.handles.kernel.directory_of(ino));
        self.handles.kernel.remember(ino, directory.unwrap_or(Ino::ROOT), None);
        Ok((ino, node))
    }

    /// Finds the directory that a directory is in. The kernel knows it from then on.
    pub fn find_parent(&mut self, ino: Ino) -> Result<Found, Stop> {
        let parent = self.node(ino)?.parent().ok_or(Errno::ENOTDIR)?;
        self.find(parent)
    }

    /// Finds a node by its path from the root. The kernel is not noted as knowing it.
    pub(crate) fn find_path(&mut self, path: &[Name]) -> Result<Found, Stop> {
        self.must_have_session()?;
        let mut ino = Ino::ROOT;
        for name in path {
            let parent = ino;
            if !self.node(parent)?.is_directory() {
                return Err(Errno::ENOTDIR.into());
            }
            ino = self.entry(parent, name)?.ok_or(Errno::ENOENT)?;
            if parent == Ino::OUTBOX && self.is_hidden(name, ino)? {
                return Err(Errno::ENOENT.into());
            }
        }
        Ok((ino, self.node(ino)?))
    }

    /// Whether the kernel may cache that a name is absent.
    pub fn may_keep_absent(&mut self, parent: Ino, name: &Name) -> bool {
        self.handles.kernel.remember_absent(parent, name)
    }

    /// Makes a node. The kernel knows it from then on.
    pub fn make(
        &mut self,
        parent: Ino,
        name: &Name,
        new: &New,
        owner: Owner,
    ) -> Result<Found, Stop> {
        let ino = self.add(parent, name, new, owner)?;
        self.handles.kernel.remember(ino, parent, Some(name));
        Ok((ino, self.node(ino)?))
    }

    /// Makes a node without noting that the kernel knows it.
    pub(crate) fn add(
        &mut self,
        parent: Ino,
        name: &Name,
        new: &New,
        owner: Owner,
    ) -> Result<Ino, Stop> {
        let ino = Ino(self.fresh()?);
        self.prepare_entry(parent)?;
        let mailbox = self.mailbox(parent)?;
        if mailbox.as_ref().is_some_and(|user| !self.outbox.users.contains(user)) {
            return Err(Errno::ENOENT.into());
        }
        let (given, name) = (name, name.clone());
        let make = match new.clone() {
            New::File { mode } => Action::Create { parent, name, ino, mode, owner },
            New::Directory { mode } => Action::Mkdir { parent, name, ino, mode, owner },
            New::Symlink { target } => Action::Symlink { parent, name, ino, target, owner },
            New::Special { kind, mode } => Action::Mknod { parent, name, ino, mode, owner, kind },
        };
        let made = self.make_way(parent, &make).and_then(|()| self.change(make));
        self.note_missing(parent, made)?;
        if let Some(to) = mailbox {
            self.note_draft(ino, Location { mailbox: parent, to, name: given.clone() });
            if matches!(new, New::Directory { .. }) {
                self.rest(ino)?;
            }
        }
        Ok(ino)
    }

    /// Notes that a directory lacks what could not be made in it, for want of room: it is not sent as if
    /// all of it were there.
    fn note_missing(&mut self, directory: Ino, made: Result<(), Stop>) -> Result<(), Stop> {
        if let Err(Stop::Refused(errno)) = made {
            self.note_failure(directory, errno);
        }
        made
    }

    /// Makes a regular file and opens it.
    pub fn create(
        &mut self,
        parent: Ino,
        name: &Name,
        mode: u16,
        owner: Owner,
        writable: bool,
    ) -> Result<(Found, HandleId), Stop> {
        let found = self.make(parent, name, &New::File { mode }, owner)?;
        let handle = self.open_handle(found.0, writable);
        Ok((found, handle))
    }

    /// Gives a node one more name.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &Name) -> Result<Found, Stop> {
        self.prepare_entry(parent)?;
        let link = Action::Link { ino, parent, name: name.clone() };
        // A record gets no further names, wherever they are to be, but within its directory.
        let (of_node, of_parent) = (self.node(ino)?.sent, self.node(parent)?.sent);
        let way = match of_node.is_none() || of_node == of_parent {
            true => self.make_way(parent, &link),
            false => Ok(()),
        };
        let made = way.and_then(|()| self.change(link));
        self.note_missing(parent, made)?;
        self.handles.kernel.remember(ino, parent, Some(name));
        Ok((ino, self.node(ino)?))
    }

    /// Removes a name. A node without names goes once the kernel does not know it any more.
    pub fn unlink(&mut self, parent: Ino, name: &Name) -> Result<(), Stop> {
        let target = self.entry(parent, name)?;
        let is_draft = target.is_some_and(|ino| self.stands_at(ino, parent, name));
        if let Some(ino) = target.filter(|_| is_draft)
            && self.node(ino)?.nlink > 1
        {
            // It goes on under another name, and is an ordinary file there.
            self.unmark(ino)?;
        }
        self.change(Action::Unlink { parent, name: name.clone() })?;
        self.note_unnamed(target, parent, name);
        if let Some(ino) = target.filter(|_| is_draft) {
            self.outbox.drafts.remove(ino);
        }
        self.drop_orphan(target);
        self.hide_if_empty(parent);
        if target.is_some_and(|ino| {
            self.outbox.drafts.torn(ino).is_some() || self.handles.writers(ino) > 0
        }) {
            // The file may live on under another name. The directory that it has left may be
            // complete now.
            self.outbox.resend |= self.outbox.drafts.look_again();
        }
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: Ino, name: &Name) -> Result<(), Stop> {
        let target = self.entry(parent, name)?;
        self.change(Action::Rmdir { parent, name: name.clone() })?;
        self.note_unnamed(target, parent, name);
        target.into_iter().for_each(|ino| self.outbox.drafts.remove(ino));
        self.drop_orphan(target);
        self.hide_if_empty(parent);
        Ok(())
    }

    /// Moves a name. Into a mailbox, that sends the node.
    pub fn rename(
        &mut self,
        from: &(Ino, Name),
        to: &(Ino, Name),
        mode: RenameMode,
    ) -> Result<(), Stop> {
        let moved = self.entry(from.0, &from.1)?.ok_or(Errno::ENOENT)?;
        let replaced = self.entry(to.0, &to.1)?;
        let replaces = replaced.filter(|ino| *ino != moved);
        // Sending takes a number after the rename is done, when it is too late to pause for one.
        self.fresh()?;
        let rename = Action::Rename { from: from.clone(), to: to.clone(), mode };
        if mode != RenameMode::Exchange {
            // Checked first, so that room is reserved only for a rename that succeeds.
            if moved >= Ino(Ino::FIRST_GRANTED) && self.mailbox(moved)?.is_none() {
                self.make_way(to.0, &rename)?;
            }
            self.check(&rename)?;
            self.prepare_rename(moved, (from.0, to.0), &to.1, replaces)?;
        } else if self.mailbox(from.0)?.is_some() || self.mailbox(to.0)?.is_some() {
            return Err(Errno::EINVAL.into());
        }
        self.prepare_entry(to.0)?;
        let goes = replaces.filter(|ino| self.stands_at(*ino, to.0, &to.1));
        // If a draft has a second name elsewhere, and that one is moved, the draft stays in its
        // mailbox.
        let stays = self.is_draft(moved)
            && !self.stands_at(moved, from.0, &from.1)
            && self.mailbox(to.0)?.is_none();
        self.change(rename)?;
        self.note_renamed(moved, replaced, (from, to), mode);
        goes.into_iter().for_each(|ino| self.outbox.drafts.remove(ino));
        self.drop_orphan(replaced);
        self.hide_if_empty(from.0);
        if from.0 != to.0 {
            self.outbox.resend |= self.outbox.drafts.look_again();
        }
        if stays {
            return Ok(());
        }
        // The rename is done. A failure to send must not make it look as if the rename had failed.
        match self.send_renamed(moved, (from.0, to.0), &to.1) {
            Ok(()) => {}
            Err(Stop::Refused(errno)) => self.refuse_room(moved, errno),
            // Sending needs something that this attempt can't wait for any more. It is tried again
            // soon.
            Err(_) => self.outbox.resend = true,
        }
        Ok(())
    }

    /// Notes that the kernel removed a name.
    fn note_unnamed(&mut self, ino: Option<Ino>, parent: Ino, name: &Name) {
        if let Some(ino) = ino {
            self.handles.kernel.removed(ino, &(parent, name.clone()));
        }
    }

    /// Notes that the kernel moved a name, over another one if that was there.
    fn note_renamed(
        &mut self,
        moved: Ino,
        replaced: Option<Ino>,
        (from, to): (&(Ino, Name), &(Ino, Name)),
        mode: RenameMode,
    ) {
        let kernel = &mut self.handles.kernel;
        match (replaced, mode) {
            (Some(other), RenameMode::Exchange) => kernel.moved(other, to, from),
            (Some(other), RenameMode::Replace | RenameMode::NoReplace) => kernel.removed(other, to),
            (None, _) => {}
        }
        kernel.moved(moved, from, to);
    }

    /// Whether a node is a draft, and this is its name in the mailbox.
    fn stands_at(&self, ino: Ino, parent: Ino, name: &Name) -> bool {
        let place = self.outbox.drafts.get(ino).map(|draft| &draft.location);
        place.is_some_and(|place| place.mailbox == parent && place.name == *name)
    }

    /// Notes that the kernel has taken back `count` answers about a node.
    pub fn forget(&mut self, ino: Ino, count: u64) {
        if self.handles.kernel.forget(ino, count) {
            self.drop_orphan(Some(ino));
        }
    }

    /// Removes a node without names, unless the kernel still knows it.
    pub(in crate::core) fn drop_orphan(&mut self, ino: Option<Ino>) {
        let Some(ino) = ino else { return };
        let orphan =
            matches!(self.replica.table.node(ino), Loaded::Present(node) if node.nlink == 0);
        if orphan {
            self.outbox.resend |= self.outbox.drafts.is_torn_no_more(ino);
        }
        if orphan && self.handles.kernel.knows(ino) {
            // It stays loaded. Otherwise it would not be recognised as an orphan when the kernel
            // forgets it.
            self.replica.table.pin(ino);
        } else if orphan {
            // A session that is over or about to end refuses this: the server then removes the orphan
            // itself. So does one without the seat, which tries it again when it comes back.
            let _ = self.change(Action::ForgetOrphan { ino });
            if self.has_seat() {
                self.replica.table.unpin(ino);
            }
        }
    }
}
