//! Records: the places of sent nodes, and the states of their deliveries.

use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Loaded, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::drafts::Location;
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

    /// The place of a record in a mailbox. `None` if it is within a directory that was sent.
    pub(in crate::core) fn record_place(&mut self, ino: Ino) -> Result<Option<Location>, Stop> {
        let Some(mailbox) = self.handles.kernel.directory_of(ino) else { return Ok(None) };
        let Some(to) = self.mailbox(mailbox)? else { return Ok(None) };
        self.place_in(mailbox, to, ino)
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
