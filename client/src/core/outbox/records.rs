//! Records: the places of sent nodes, and the states of their deliveries.

use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Action, Loaded, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::drafts::Location;
use super::rest::Rest;
use crate::core::pause::Stop;
use crate::core::state::Core;

impl Core {
    /// Notes the state of a delivery. A final state stays.
    pub(crate) fn learn_state(&mut self, id: DeliveryId, state: DeliveryState) {
        let known = self.outbox.deliveries.entry(id).or_insert(DeliveryState::Unknown);
        match known {
            DeliveryState::Received(_) | DeliveryState::Refused(_) | DeliveryState::NoRoom(_) => {}
            DeliveryState::Unknown | DeliveryState::Sent(_) => *known = state,
        }
    }

    /// Makes the record of a delivery a draft again, after there was no room for it when it was
    /// committed. The record of an earlier session's delivery is searched for.
    pub(crate) fn take_back(&mut self, id: DeliveryId) -> Result<(), Stop> {
        let ino = match self.outbox.sent.get(&id) {
            Some(ino) => Some(*ino),
            None => self.record_of(id)?,
        };
        let Some(ino) = ino else { return Ok(()) };
        let is_record = match self.replica.table.node(ino) {
            Loaded::Present(node) => node.sent == Some(id),
            Loaded::Absent => false,
            Loaded::Unknown => self.node(ino)?.sent == Some(id),
        };
        if is_record && let Some(place) = self.find_place(ino)? {
            self.note_draft(ino, place);
            self.refuse_room(ino, Errno::EDQUOT);
        }
        self.outbox.sent.remove(&id);
        Ok(())
    }

    /// The record that a node is, or is a part of, with its place. `None` if it is neither, as far as is
    /// known.
    pub(in crate::core) fn record(&mut self, ino: Ino) -> Result<Option<(Ino, Location)>, Stop> {
        let Some(id) = self.node(ino)?.sent else { return Ok(None) };
        let mut record = ino;
        for _ in 0..DELIVERY_ITEMS_MAX {
            let directory = self.node(record)?.parent();
            let Some(directory) = directory.or(self.handles.kernel.directory_of(record)) else {
                break;
            };
            if let Some(to) = self.mailbox(directory)? {
                let place = self.place_in(directory, to, record)?;
                return Ok(place.map(|place| (record, place)));
            }
            if self.node(directory)?.sent != Some(id) {
                break;
            }
            record = directory;
        }
        Ok(None)
    }

    /// Makes a record a draft again, because the node, which is the record or a part of it, is about to
    /// change. Any other node stays as it is.
    pub(in crate::core) fn revise(&mut self, ino: Ino) -> Result<(), Stop> {
        let Some((record, place)) = self.record(ino)? else { return Ok(()) };
        let is_directory = self.node(record)?.is_directory();
        if is_directory {
            // So that all of it is loaded in a few steps, and nothing is missing for the rest.
            self.weigh(record, &place.name)?;
        }
        self.change(Action::Revise { ino: record })?;
        self.outbox.drafts.remove(record);
        self.note_draft(record, place);
        if is_directory {
            let rest = Rest::Directory;
            self.rest_until(record, rest, self.now.monotonic + rest.quiet());
        }
        Ok(())
    }

    /// If a directory is in the way of a change that adds something to it, because it was sent, it becomes a
    /// draft.
    pub(in crate::core) fn make_way(
        &mut self,
        directory: Ino,
        change: &Action,
    ) -> Result<(), Stop> {
        let was_sent = self.known_node(directory).is_some_and(|node| node.sent.is_some());
        if was_sent && let Err(Stop::Refused(Errno::EPERM)) = self.check(change) {
            self.revise(directory)?;
        }
        Ok(())
    }

    /// The record of a delivery, searched for in all mailboxes.
    fn record_of(&mut self, id: DeliveryId) -> Result<Option<Ino>, Stop> {
        for (_, mailbox) in self.children(Ino::OUTBOX)? {
            for (_, ino) in self.children(mailbox)? {
                if self.node(ino)?.sent == Some(id) {
                    return Ok(Some(ino));
                }
            }
        }
        Ok(None)
    }

    /// The place of a node, searched for in all mailboxes.
    fn find_place(&mut self, ino: Ino) -> Result<Option<Location>, Stop> {
        for (to, mailbox) in self.children(Ino::OUTBOX)? {
            if let Some(place) = self.place_in(mailbox, to, ino)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The place of a node in a mailbox. Of the mailbox's names, only that one is copied.
    fn place_in(&self, mailbox: Ino, to: Name, ino: Ino) -> Result<Option<Location>, Stop> {
        if !self.replica.table.is_complete(mailbox) {
            self.children(mailbox)?;
        }
        let mut entries = self.replica.table.known_entries(mailbox, None);
        let found = entries.find(|(_, entry)| *entry == Some(ino));
        Ok(found.map(|(name, _)| Location { mailbox, to, name: name.clone() }))
    }
}
