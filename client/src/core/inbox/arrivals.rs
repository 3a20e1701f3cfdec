//! Placing arrivals: the name for a delivery, and accepting it under that name.
//!
//! **Invariant:** each delivery is accepted by one op of the log, so it appears whole or not at
//! all, and only once.

use xfer_protocol::message::DeliveryHead;
use xfer_protocol::tree::{Action, ItemKind, Loaded, Owner, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::numbering::{NUMBER_MAX, free_number, numbered};
use crate::core::notice::Notice;
use crate::core::pause::Stop;
use crate::core::state::Core;
use crate::core::tree::New;

/// The most names of which the last number is remembered.
const NUMBERED_MAX: usize = 10_000;

impl Core {
    /// Accepts a delivery under a name.
    pub fn accept(
        &mut self,
        delivery: DeliveryId,
        parent: Ino,
        name: &Name,
        owner: Owner,
    ) -> Result<(), Stop> {
        let items = match self.replica.table.delivery(delivery) {
            Loaded::Present(delivery) => delivery.items.len() as u64,
            Loaded::Absent | Loaded::Unknown => return Err(Errno::ENOENT.into()),
        };
        let first = Ino(self.fresh_run(items)?);
        self.change(Action::Accept { delivery, parent, name: name.clone(), first, owner })?;
        self.inbox.news += 1;
        Ok(())
    }

    /// A number that rises whenever something may have arrived.
    pub(crate) fn inbox_news(&self) -> u64 {
        self.inbox.news
    }

    pub(crate) fn is_directory_delivery(&mut self, id: DeliveryId) -> Result<bool, Stop> {
        match self.replica.table.delivery(id) {
            Loaded::Present(delivery) => Ok(delivery
                .items
                .first()
                .is_some_and(|item| matches!(item.kind, ItemKind::Directory))),
            Loaded::Absent | Loaded::Unknown => Err(Errno::ENOENT.into()),
        }
    }

    /// The directory for a sender's deliveries, made if it is missing. If something else has its
    /// name, the next numbered name is taken that is free or a directory's.
    pub(crate) fn sender_directory(&mut self, sender: &Name, owner: Owner) -> Result<Ino, Stop> {
        let (name, there) = self.find_sender_directory(sender)?;
        if let Some(ino) = there {
            return Ok(ino);
        }
        let new = New::Directory { mode: 0o700 };
        let ino = self.add(Ino::INBOX, &name, &new, owner)?;
        self.notices.push(Notice::Entry(Ino::INBOX, name));
        self.notices.push(Notice::Node(Ino::INBOX));
        Ok(ino)
    }

    /// Notes a delivery that waits. One that is known already, or was accepted, stays as it is: a
    /// new link announces again what waits.
    pub(in crate::core) fn note_arrival(&mut self, head: DeliveryHead) {
        let is_known = self.inbox.waiting.iter().any(|known| known.id == head.id);
        if !is_known && self.replica.table.delivery(head.id) != Loaded::Absent {
            self.inbox.waiting.push_back(head);
        }
    }

    /// The first delivery that fits the quota, of which arrivals leave a tenth free; and the number
    /// of deliveries that wait.
    pub(crate) fn next_arrival(&self) -> (Option<DeliveryHead>, usize) {
        let waiting = &self.inbox.waiting;
        let head = waiting.iter().find(|head| self.has_room_to_receive(head)).cloned();
        (head, waiting.len())
    }

    /// Whether a delivery fits the part of the quota that arrivals may use, by its announced size.
    pub(in crate::core) fn has_room_to_receive(&self, head: &DeliveryHead) -> bool {
        let (usage, quota) =
            (self.replica.table.usage(), self.replica.table.quota().for_arrivals());
        usage.bytes.saturating_add(head.bytes) <= quota.bytes
            && usage.nodes.saturating_add(head.items.into()) <= quota.nodes
    }

    /// A free name for a delivery in its sender's directory, and the number in it. A program may
    /// still take the name before the delivery is placed.
    pub(crate) fn free_name(&mut self, from: &Name, wanted: &Name) -> Result<(u32, Name), Stop> {
        let (_, Some(directory)) = self.find_sender_directory(from)? else {
            return Ok((1, wanted.clone()));
        };
        let key = (from.clone(), wanted.clone());
        let hint = self.inbox.numbered.get(&key).copied().unwrap_or(1);
        let number = free_number(hint, |number| {
            Ok::<_, Stop>(self.entry(directory, &numbered(wanted, number)?)?.is_some())
        })?;
        let number = number.ok_or(Errno::EEXIST)?;
        Ok((number, numbered(wanted, number)?))
    }

    /// Remembers that a number of a name is taken.
    pub(crate) fn note_number(&mut self, head: &DeliveryHead, number: u32) {
        if self.inbox.numbered.len() >= NUMBERED_MAX {
            self.inbox.numbered.clear();
        }
        self.inbox.numbered.insert((head.from.clone(), head.name.clone()), number);
    }

    /// The name of the directory for a sender's deliveries, and the directory if it exists.
    fn find_sender_directory(&mut self, sender: &Name) -> Result<(Name, Option<Ino>), Stop> {
        for number in 1..NUMBER_MAX {
            let name = numbered(sender, number)?;
            match self.entry(Ino::INBOX, &name)? {
                Some(ino) if self.node(ino)?.is_directory() => return Ok((name, Some(ino))),
                Some(_) => {}
                None => return Ok((name, None)),
            }
        }
        Err(Errno::EEXIST.into())
    }

    /// Takes a delivery off those that wait if it was placed or is gone, else moves it behind the
    /// others. Returns whether it is off.
    pub(crate) fn finish_delivery(&mut self, id: DeliveryId, placed: bool) -> bool {
        let gone = placed || self.replica.table.delivery(id) == Loaded::Absent;
        let place = self.inbox.waiting.iter().position(|head| head.id == id);
        let head = place.and_then(|place| self.inbox.waiting.remove(place));
        self.inbox.waiting.extend(head.filter(|_| !gone));
        gone
    }
}
