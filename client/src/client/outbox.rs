//! Sending: what stands in a mailbox is sent when it is whole.
//!
//! A file is whole when its last writing handle closes, or when it is renamed to a name that is
//! not a temporary one; but not if part of it could not be written, or its writer was killed
//! ([`failures`]). Room in the other's inbox is asked for before, so that a full inbox is told to the
//! program that sends. What is refused all the same is sent later, by itself ([`super::tending`]).

pub(super) mod drafts;

mod failures;

mod records;

mod unsent;

mod temporary;

use std::collections::HashSet;

use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::tree::{Action, Item, Loaded, Owner, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use self::drafts::{Place, Room, Unsent};
use self::temporary::is_temporary;
use super::kernel::Notice;
use super::state::{Pause, RoomNeed, State};

/// The most things that room was granted for and that are not in their mailbox yet.
const MOVING_MAX: usize = 256;

/// The most deliveries whose records are remembered; others are looked for.
const SENT_MAX: usize = 10_000;

/// How many nodes' attributes are asked for at a time, for what is to be sent.
const LOADED_AT_ONCE: usize = 64;

/// What a node and all that is in it come to.
struct Weight {
    /// What it takes up in an inbox.
    room: Room,
    /// Whether a program has a file in it open to write.
    is_written: bool,
    /// What of it is not whole.
    torn: Vec<Ino>,
    /// All of it.
    members: Vec<Ino>,
}

impl State {
    /// The user whose mailbox a directory is, if it is one.
    pub(super) fn mailbox(&mut self, directory: Ino) -> Result<Option<Name>, Pause> {
        // Mailboxes are never renamed or removed.
        if let Some(user) = self.mailboxes.get(&directory) {
            return Ok(Some(user.clone()));
        }
        match self.table.node(directory) {
            Loaded::Present(node) if node.parent() == Some(Ino::OUTBOX) => {}
            Loaded::Present(_) | Loaded::Absent | Loaded::Unknown => return Ok(None),
        }
        let mailboxes = self.children(Ino::OUTBOX)?;
        self.mailboxes = mailboxes.into_iter().map(|(user, ino)| (ino, user)).collect();
        Ok(self.mailboxes.get(&directory).cloned())
    }

    /// Whether a mailbox is not shown: its user was removed, and it is empty.
    pub(super) fn is_hidden(&self, user: &Name, mailbox: Ino) -> Result<bool, Pause> {
        Ok(!self.users.contains(user) && self.children(mailbox)?.is_empty())
    }

    /// Has the kernel forget a mailbox that is not shown any more, now that something went from it.
    pub(super) fn hide_if_empty(&mut self, mailbox: Ino) {
        let Some(user) = self.mailboxes.get(&mailbox) else { return };
        if matches!(self.is_hidden(user, mailbox), Ok(true)) {
            self.notices.push(Notice::Entry(Ino::OUTBOX, user.clone()));
            self.notices.push(Notice::Contents(Ino::OUTBOX));
        }
    }

    /// Makes the mailboxes that are missing.
    pub(super) fn make_mailboxes(&mut self, owner: Owner) -> Result<(), Pause> {
        let there = self.children(Ino::OUTBOX)?;
        let there: HashSet<&Name> = there.iter().map(|(name, _)| name).collect();
        let missing = self.users.iter().filter(|user| !there.contains(user));
        for user in missing.cloned().collect::<Vec<Name>>() {
            let ino = Ino(self.fresh()?);
            self.change(Action::Mailbox { user: user.clone(), ino, owner })?;
            self.mailboxes.insert(ino, user);
        }
        Ok(())
    }

    /// Notes what stands in a mailbox, and is loaded.
    pub(super) fn note_draft(&mut self, ino: Ino, place: Place) {
        let is_directory =
            matches!(self.table.node(ino), Loaded::Present(node) if node.is_directory());
        self.drafts.note(ino, place, is_directory);
    }

    /// Asks for room for what is about to be closed, if that will send it.
    pub(super) fn prepare_close(&mut self, ino: Ino) -> Result<(), Pause> {
        let Some(draft) = self.drafts.get_mut(ino) else { return Ok(()) };
        if draft.is_held() || draft.is_temporary() {
            return Ok(());
        }
        draft.why = None;
        let Place { to, name, .. } = draft.place.clone();
        let room = self.weigh(ino, &name)?.room;
        self.must_have_room(ino, &to, room)
    }

    /// Sends what was closed, if it stands in a mailbox and nobody writes to it any more.
    pub(super) fn send_closed(&mut self, ino: Ino) -> Result<(), Pause> {
        // A directory that was moved in may have waited for this file.
        self.resend |= self.drafts.retry_written();
        self.drafts.forget_torn(|ino| self.handles.writers(ino) > 0);
        let writers = self.handles.writers(ino);
        let Some(draft) = self.drafts.get_mut(ino) else { return Ok(()) };
        if writers > 0 {
            return Ok(());
        }
        match draft.why {
            Some(Unsent::Waiting(_) | Unsent::Failed(_) | Unsent::Killed | Unsent::Left) => {
                self.mark(ino)
            }
            None | Some(Unsent::Due) if draft.is_temporary() => Ok(()),
            None | Some(Unsent::Due) => {
                draft.why = Some(Unsent::Due);
                self.send_draft(ino)
            }
        }
    }

    /// Asks for room for what is about to be renamed into a mailbox. A record that replaces another is
    /// sent again: programs write a new version beside the old one and rename it.
    pub(super) fn prepare_rename(
        &mut self,
        moved: Ino,
        (from, to): (Ino, Ino),
        name: &Name,
        replaced: Option<Ino>,
    ) -> Result<(), Pause> {
        let Some(user) = self.mailbox(to)? else { return Ok(()) };
        let is_record = self.drafts.get(moved).is_none() && self.node(moved)?.sent.is_some();
        let held = from == to && self.drafts.get(moved).is_some_and(|draft| draft.is_held());
        let stays = is_record && replaced.is_none();
        if from != to && self.drafts.has_torn() {
            // It is sent as it is, but for what is still being written.
            let torn = self.weigh(moved, name)?.torn;
            let left = torn.into_iter().filter(|ino| self.handles.writers(*ino) == 0);
            left.for_each(|ino| self.drafts.mend(ino));
        }
        if stays || held || is_temporary(name) || self.handles.writers(moved) > 0 {
            return Ok(());
        }
        let room = self.weigh(moved, name)?.room;
        self.must_have_room(moved, &user, room)?;
        if is_record { self.revise(moved) } else { Ok(()) }
    }

    /// Sends what was renamed into a mailbox, unless a program still writes to it.
    ///
    /// What is moved in from elsewhere is sent as it is, for that is what somebody wants; a new name
    /// in the same mailbox makes nothing whole that is not (`rsync --partial`).
    pub(super) fn send_renamed(
        &mut self,
        moved: Ino,
        (from, to): (Ino, Ino),
        name: &Name,
    ) -> Result<(), Pause> {
        let Some(user) = self.mailbox(to)? else {
            self.drafts.remove(moved);
            return self.unmark(moved);
        };
        if self.drafts.get(moved).is_none() && self.node(moved)?.sent.is_some() {
            return Ok(());
        }
        self.note_draft(moved, Place { mailbox: to, to: user, name: name.clone() });
        let room = self.moving.remove(&moved);
        if let Some(draft) = self.drafts.get_mut(moved) {
            draft.room = room.unwrap_or(draft.room);
            let is_held = from == to && draft.is_held();
            if self.handles.writers(moved) > 0 {
                self.drafts.hold(moved, &[moved]);
            } else if !is_held {
                self.drafts.mend(moved);
            }
        }
        self.send_closed(moved)
    }

    /// Notes that there is no room for something, or that it can't be asked for: it waits.
    pub(super) fn refuse_room(&mut self, ino: Ino, errno: Errno) {
        if let Some(draft) = self.drafts.get_mut(ino) {
            draft.why = Some(Unsent::Waiting(errno));
        }
        self.resend = true;
        if let Err(pause) = self.mark_waiting(ino) {
            tracing::debug!("why {ino} is not sent is not noted: {pause:?}");
        }
    }

    /// Marks that something waits, unless it is written to or torn: without the mark, a later session
    /// does not send it.
    pub(super) fn mark_waiting(&mut self, ino: Ino) -> Result<(), Pause> {
        let Some(draft) = self.drafts.get(ino) else { return Ok(()) };
        let name = draft.place.name.clone();
        let Weight { is_written, torn, members, .. } = self.weigh(ino, &name)?;
        if is_written || !torn.is_empty() {
            return self.unmark(ino);
        }
        self.drafts.set_members(ino, members);
        self.mark(ino)
    }

    /// Notes room that was granted for something.
    pub(super) fn grant_room(&mut self, need: &RoomNeed) {
        let room = Room { bytes: need.bytes, items: need.items };
        match self.drafts.get_mut(need.ino) {
            Some(draft) => draft.room = room,
            // It is about to be renamed into the mailbox.
            None => {
                if self.moving.len() >= MOVING_MAX {
                    self.moving.clear();
                }
                self.moving.insert(need.ino, room);
            }
        }
    }

    /// Sends what is whole, if there is room for it.
    fn send_draft(&mut self, ino: Ino) -> Result<(), Pause> {
        let Some(draft) = self.drafts.get(ino) else { return Ok(()) };
        let Place { to, name, .. } = draft.place.clone();
        let Weight { room, is_written, torn, .. } = self.weigh(ino, &name)?;
        if is_written {
            self.unmark(ino)?;
            self.drafts.wait_for_writers(ino);
            return Ok(());
        }
        if !torn.is_empty() {
            self.drafts.hold(ino, &torn);
            return self.mark(ino);
        }
        self.must_have_room(ino, &to, room)?;
        let delivery = DeliveryId(self.fresh()?);
        self.change(Action::Send { to, name, from: self.user.clone(), delivery })?;
        if self.sent.len() >= SENT_MAX {
            self.sent.clear();
        }
        self.sent.insert(delivery, ino);
        self.drafts.remove(ino);
        Ok(())
    }

    /// Asks for room in the other's inbox, unless there is enough for what is to be sent.
    fn must_have_room(&self, ino: Ino, to: &Name, room: Room) -> Result<(), Pause> {
        let Room { bytes, items } = room;
        if !self.users.contains(to) {
            return Err(Errno::ENOENT.into());
        }
        let held = self.drafts.get(ino).map(|draft| draft.room);
        let held = held.or(self.moving.get(&ino).copied()).unwrap_or_default();
        match bytes <= held.bytes && items <= held.items {
            true => Ok(()),
            false => Err(Pause::Room(RoomNeed { ino, to: to.clone(), bytes, items })),
        }
    }

    /// What a node of this name and all that is in it come to. Afterwards all is loaded that is sent
    /// of them, so that to send them needs nothing more.
    fn weigh(&self, ino: Ino, name: &Name) -> Result<Weight, Pause> {
        let (mut room, mut is_written) = (Room::default(), false);
        let (mut torn, mut members) = (Vec::new(), Vec::new());
        let mut waiting = vec![(name.clone(), ino)];
        let mut missing = Vec::new();
        while let Some((name, ino)) = waiting.pop() {
            let node = self.node(ino)?;
            room.items += 1;
            members.push(ino);
            if room.items as usize > DELIVERY_ITEMS_MAX {
                return Err(Errno::EDQUOT.into());
            }
            match self.all_xattrs(ino) {
                Err(Pause::Rows(needs)) if missing.len() < LOADED_AT_ONCE => missing.extend(needs),
                Err(Pause::Rows(_)) => break,
                all => drop(all?),
            }
            room.bytes += Item::bytes_of(&name, &node);
            is_written |= self.handles.writers(ino) > 0;
            torn.extend(self.drafts.torn(ino).map(|_| ino));
            if node.is_directory() {
                waiting.extend(self.children(ino)?);
            }
        }
        match missing.is_empty() {
            true => Ok(Weight { room, is_written, torn, members }),
            false => Err(Pause::Rows(missing)),
        }
    }
}
