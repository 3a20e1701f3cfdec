//! Deliveries in memory.

use std::time::Instant;

use xfer_protocol::DeliveryId;
use xfer_protocol::message::{DeliveryHead, DeliveryState};

use super::tables::Tables;
use super::{Memory, answer};
use crate::inbox::{Filling, Sending};
use crate::{AccountId, Answer, Deliveries, Reservation, Reserved};

impl Deliveries for Memory {
    fn waiting(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Answer<'_, Vec<(u64, DeliveryHead)>> {
        let state = self.lock();
        let waits = |sent: &&super::tables::Sent| sent.to == Some(to) && sent.arrival > after;
        let mut waiting: Vec<_> = state.deliveries.values().filter(waits).collect();
        waiting.sort_by_key(|sent| sent.arrival);
        let heads = waiting.into_iter().take(count).filter_map(|sent| {
            let delivery = &sent.delivery;
            let head = DeliveryHead {
                id: delivery.id,
                from: delivery.from.clone(),
                name: delivery.items.first()?.name.clone(),
                sent: delivery.sent,
                items: delivery.items.len() as u32,
                bytes: delivery.bytes(),
            };
            Some((sent.arrival, head))
        });
        answer(Ok(heads.collect()))
    }

    fn count_waiting(&self) -> Answer<'_, u64> {
        let state = self.lock();
        let waiting = state.deliveries.values().filter(|sent| sent.to.is_some());
        answer(Ok(waiting.count() as u64))
    }

    fn without_room(&self, from: AccountId) -> Answer<'_, Vec<(DeliveryId, DeliveryState)>> {
        let state = self.lock();
        let of = state.deliveries.iter().filter(|(_, sent)| sent.from == Some(from));
        let of = of.filter(|(_, sent)| matches!(sent.state, DeliveryState::NoRoom(_)));
        answer(Ok(of.map(|(id, sent)| (*id, sent.state.clone())).collect()))
    }

    fn state(&self, from: AccountId, id: DeliveryId) -> Answer<'_, DeliveryState> {
        let state = self.lock();
        let sent = state.deliveries.get(&id).filter(|sent| sent.from == Some(from));
        answer(Ok(sent.map_or(DeliveryState::Unknown, |sent| sent.state.clone())))
    }

    fn reserve(&self, reservation: Reservation) -> Answer<'_, Reserved> {
        answer(Ok(self.lock().reserve(&reservation)))
    }

    fn release(&self, from: AccountId) -> Answer<'_, ()> {
        self.lock().inboxes.forget(from);
        answer(Ok(()))
    }
}

impl Tables {
    fn reserve(&mut self, asked: &Reservation) -> Reserved {
        if !self.runs(asked.from, asked.epoch) {
            return Reserved::Over;
        }
        let recipient = self.named(&asked.to).filter(|to| to.id != asked.from);
        let Some(to) = recipient else { return Reserved::NoUser };
        let sending = Sending { from: asked.from, ino: asked.ino, to: to.id, size: asked.size };
        let filling = Filling { used: to.waiting, budget: to.inbox };
        match self.inboxes.reserve(sending, filling, Instant::now()) {
            true => Reserved::Kept,
            false => Reserved::Full,
        }
    }
}
