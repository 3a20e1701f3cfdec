//! Sending: a complete file or directory in a mailbox is sent.
//!
//! A file counts as complete when its last writing handle was closed, unless a change of it failed or its
//! writer was killed ([`super::failures`]). It is sent once it was left alone for a while after that
//! ([`super::quiet`]), or at once if a program said that it is complete: by `fsync`, or by moving it here.
//! Room in the recipient's inbox is reserved before the close, so that the program that sends learns of a
//! full inbox. A draft that is refused nevertheless is sent later, automatically.
//!
//! **Invariant:** an attempt sends last, when all of the draft is loaded and its room is reserved.

use std::collections::BTreeSet;

use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::tree::{Action, Item};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::drafts::{InboxRoom, Location, Unsent};
use super::temporary::is_temporary;
use crate::core::pause::{Pause, Reservation, Stop};
use crate::core::state::Core;

/// The most nodes with reserved room that are not in their mailbox yet.
const MOVING_MAX: usize = 256;

/// The most deliveries whose records are remembered. Others are searched for.
const SENT_MAX: usize = 10_000;

/// The number of nodes whose attributes are loaded at a time before a send.
const LOADED_AT_ONCE: usize = 64;

/// The sums over a node and everything in it.
pub(in crate::core) struct Weight {
    /// The room that it takes in an inbox.
    pub(in crate::core) room: InboxRoom,
    /// Whether a program has a file in it open for writing.
    pub(super) is_written: bool,
    /// The torn nodes in it.
    pub(super) torn: Vec<Ino>,
    /// All of its nodes, itself too.
    pub(super) members: Vec<Ino>,
}

impl Core {
    /// Notes that a loaded node is a draft.
    pub(in crate::core) fn note_draft(&mut self, ino: Ino, location: Location) {
        let is_directory = self.known_node(ino).is_some_and(|node| node.is_directory());
        self.outbox.drafts.note(ino, location, is_directory);
        if self.handles.writers(ino) > 0 {
            self.outbox.drafts.note_open(ino);
        }
    }

    /// Before a descriptor of a file is closed: reserves room for the file if it is a draft that is
    /// neither held nor temporary. Other writers do not count here: the last close sends the file.
    pub(in crate::core) fn prepare_close(&mut self, ino: Ino) -> Result<(), Stop> {
        let Some(draft) = self.outbox.drafts.get_mut(ino) else { return Ok(()) };
        if draft.is_held() || draft.is_temporary() {
            return Ok(());
        }
        draft.why = None;
        let Location { to, name, .. } = draft.location.clone();
        let room = self.weigh(ino, &name)?.room;
        self.must_have_room(ino, &to, room)
    }

    /// After a handle of a file was closed: leaves the file at rest if it is a draft and no other program
    /// writes to it. Sends it at once if it was synced since its last change.
    pub(in crate::core) fn send_closed(&mut self, ino: Ino) -> Result<(), Stop> {
        // A directory may have waited for this file to be closed.
        self.outbox.resend |= self.outbox.drafts.retry_written();
        self.outbox.drafts.forget_torn(|ino| self.handles.writers(ino) > 0);
        if self.handles.writers(ino) > 0 {
            return Ok(());
        }
        let is_synced = self.outbox.drafts.synced.contains(&ino);
        let Some(draft) = self.outbox.drafts.get_mut(ino) else { return Ok(()) };
        match draft.why {
            Some(
                Unsent::Waiting(_)
                | Unsent::Failed(_)
                | Unsent::Killed
                | Unsent::Left
                | Unsent::Cancelled,
            ) => self.mark(ino),
            // It has not changed since. While it was open for writing, the drive did not look at it.
            Some(Unsent::AtRest(_, until)) => {
                self.outbox.rests_until(until.max(self.now.monotonic));
                Ok(())
            }
            // A program that has read it says nothing about it.
            None if draft.is_only_made() => Ok(()),
            None if !is_synced || draft.is_temporary() => self.rest(ino),
            None | Some(Unsent::Due) => {
                draft.why = Some(Unsent::Due);
                self.send_draft(ino)
            }
        }
    }

    /// Before a node is renamed into a mailbox: reserves room for it, if that sends it. A record
    /// that replaces another is sent again: programs write a new version beside the old one and
    /// rename it.
    pub(in crate::core) fn prepare_rename(
        &mut self,
        moved: Ino,
        (from, to): (Ino, Ino),
        name: &Name,
        replaced: Option<Ino>,
    ) -> Result<(), Stop> {
        let Some(user) = self.mailbox(to)? else { return Ok(()) };
        let is_record = self.outbox.drafts.get(moved).is_none() && self.node(moved)?.sent.is_some();
        let held = from == to && self.outbox.drafts.get(moved).is_some_and(|draft| draft.is_held());
        let stays = is_record && replaced.is_none();
        if from != to && self.outbox.drafts.has_torn() {
            // A node that is moved in is sent as it is, so its torn files are taken for complete,
            // except those that are still being written.
            let torn = self.weigh(moved, name)?.torn;
            let left = torn.into_iter().filter(|ino| self.handles.writers(*ino) == 0);
            left.for_each(|ino| self.outbox.drafts.mend(ino));
        }
        if stays || held || is_temporary(name) || self.handles.writers(moved) > 0 {
            return Ok(());
        }
        // A directory that was made here may not be complete yet.
        if from == to && self.node(moved)?.is_directory() {
            return Ok(());
        }
        let room = self.weigh(moved, name)?.room;
        self.must_have_room(moved, &user, room)?;
        if is_record { self.revise(moved) } else { Ok(()) }
    }

    /// Sends a node that was renamed into a mailbox, unless a program still writes to it.
    ///
    /// A node that is moved in from elsewhere is sent as it is, since its user wants that. A new
    /// name in the same mailbox completes nothing (`rsync --partial`), and programs set more after it
    /// (`zip`): the node rests.
    pub(in crate::core) fn send_renamed(
        &mut self,
        moved: Ino,
        (from, to): (Ino, Ino),
        name: &Name,
    ) -> Result<(), Stop> {
        let Some(user) = self.mailbox(to)? else {
            self.outbox.drafts.remove(moved);
            return self.unmark(moved);
        };
        if self.outbox.drafts.get(moved).is_none() && self.node(moved)?.sent.is_some() {
            return Ok(());
        }
        self.note_draft(moved, Location { mailbox: to, to: user, name: name.clone() });
        let room = self.outbox.moving.remove(&moved);
        if let Some(draft) = self.outbox.drafts.get_mut(moved) {
            draft.room = room.unwrap_or(draft.room);
            let is_held = draft.is_held();
            let is_written = self.handles.writers(moved) > 0;
            if is_written {
                self.outbox.drafts.hold(moved, &[moved]);
            } else if from != to {
                self.outbox.drafts.mend(moved);
                self.outbox.drafts.note_open(moved);
            }
            if from == to && !is_held && !is_written {
                return self.rest(moved);
            }
        }
        let is_in_doubt = is_temporary(name) && self.node(moved)?.file().is_some();
        if from != to && !is_in_doubt && self.handles.writers(moved) == 0 {
            self.outbox.drafts.make_due(moved);
        }
        self.send_closed(moved)
    }

    /// Notes that a draft must wait: it was refused, or room could not be reserved.
    pub(crate) fn refuse_room(&mut self, ino: Ino, errno: Errno) {
        if let Some(draft) = self.outbox.drafts.get_mut(ino) {
            draft.why = Some(Unsent::Waiting(errno));
        }
        self.outbox.resend = true;
        if let Err(pause) = self.mark_waiting(ino) {
            tracing::debug!("why {ino} is not sent is not noted: {pause:?}");
        }
    }

    /// Marks a draft as `waiting`, unless it is written to or torn. Without the mark, a later
    /// session does not send it.
    pub(in crate::core) fn mark_waiting(&mut self, ino: Ino) -> Result<(), Stop> {
        let Some(draft) = self.outbox.drafts.get(ino) else { return Ok(()) };
        let name = draft.location.name.clone();
        let Weight { is_written, torn, members, .. } = self.weigh(ino, &name)?;
        if is_written || !torn.is_empty() {
            return self.unmark(ino);
        }
        self.outbox.drafts.set_members(ino, members);
        self.mark(ino)
    }

    /// Notes room that was reserved for a node.
    pub(crate) fn grant_room(&mut self, need: &Reservation) {
        let room = InboxRoom { bytes: need.bytes, items: need.items };
        match self.outbox.drafts.get_mut(need.ino) {
            Some(draft) => draft.room = room,
            // It is about to be renamed into a mailbox.
            None => {
                if self.outbox.moving.len() >= MOVING_MAX {
                    self.outbox.moving.clear();
                }
                self.outbox.moving.insert(need.ino, room);
            }
        }
    }

    /// Sends a draft if all of it is complete and there is room for it.
    fn send_draft(&mut self, ino: Ino) -> Result<(), Stop> {
        let Some(draft) = self.outbox.drafts.get(ino) else { return Ok(()) };
        let Location { to, name, .. } = draft.location.clone();
        let Weight { room, is_written, torn, .. } = self.weigh(ino, &name)?;
        if is_written {
            self.unmark(ino)?;
            self.outbox.drafts.wait_for_writers(ino);
            return Ok(());
        }
        if !torn.is_empty() {
            self.outbox.drafts.hold(ino, &torn);
            return self.mark(ino);
        }
        self.must_have_room(ino, &to, room)?;
        let delivery = DeliveryId(self.fresh()?);
        self.change(Action::Send { to, name, from: self.user.clone(), delivery })?;
        if self.outbox.sent.len() >= SENT_MAX {
            self.outbox.sent.clear();
        }
        self.outbox.sent.insert(delivery, ino);
        self.outbox.drafts.remove(ino);
        Ok(())
    }

    /// Pauses until room is reserved in the recipient's inbox, unless enough is reserved already.
    fn must_have_room(&self, ino: Ino, to: &Name, room: InboxRoom) -> Result<(), Stop> {
        let InboxRoom { bytes, items } = room;
        if !self.outbox.users.contains(to) {
            return Err(Errno::ENOENT.into());
        }
        let held = self.outbox.drafts.get(ino).map(|draft| draft.room);
        let held = held.or(self.outbox.moving.get(&ino).copied()).unwrap_or_default();
        match bytes <= held.bytes && items <= held.items {
            true => Ok(()),
            false => {
                Err(Pause::Reservation(Reservation { ino, to: to.clone(), bytes, items }).into())
            }
        }
    }

    /// The sums over a node, as if it had this name, and everything in it. When they are given,
    /// everything that is sent with the node is loaded, so that sending it needs nothing more.
    pub(in crate::core) fn weigh(&self, ino: Ino, name: &Name) -> Result<Weight, Stop> {
        let (mut room, mut is_written) = (InboxRoom::default(), false);
        let (mut torn, mut members) = (Vec::new(), Vec::new());
        let mut waiting = vec![(name.clone(), ino)];
        let (mut missing, mut linked) = (Vec::new(), BTreeSet::new());
        while let Some((name, ino)) = waiting.pop() {
            let node = self.node(ino)?;
            room.items += 1;
            if room.items as usize > DELIVERY_ITEMS_MAX {
                return Err(Errno::EDQUOT.into());
            }
            // Another name of what is sent already takes along nothing else.
            if !node.is_directory() && node.nlink > 1 && !linked.insert(ino) {
                room.bytes += name.as_bytes().len() as u64;
                continue;
            }
            members.push(ino);
            match self.all_xattrs(ino) {
                Err(Stop::Pause(Pause::Rows(needs))) if missing.len() < LOADED_AT_ONCE => {
                    missing.extend(needs)
                }
                Err(Stop::Pause(Pause::Rows(_))) => break,
                all => drop(all?),
            }
            room.bytes += Item::bytes_of(&name, &node);
            is_written |= self.handles.writers(ino) > 0;
            torn.extend(self.outbox.drafts.torn(ino).map(|_| ino));
            if node.is_directory() {
                waiting.extend(self.children(ino)?);
            }
        }
        match missing.is_empty() {
            true => Ok(Weight { room, is_written, torn, members }),
            false => Err(Pause::Rows(missing).into()),
        }
    }
}
