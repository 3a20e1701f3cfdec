//! Commits. A batch is checked as a whole before any of it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Delivery, DeliveryEffect, Usage, Xattrs};
use xfer_protocol::{ContentId, DeliveryId};

use super::tables::{Sent, Tables, content};
use crate::inbox::{Filling, Sending};
use crate::{AccountId, Batch, Committed, Decided, StoreError};

/// The fate of a delivery that is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits(AccountId),
    NoRoom,
    NoUser,
}

impl Tables {
    /// Writes a batch, unless its session was fenced.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        match self.accounts.get(&batch.account) {
            Some(account) if account.epoch == batch.epoch => {}
            Some(account) if account.epoch < batch.epoch => {
                return Err(StoreError::Damaged("a session of an epoch to come".to_owned()));
            }
            Some(_) | None => return Ok(Committed::Fenced),
        }
        check_nodes(batch)?;
        // The reservations for these deliveries end here, even if the batch fails.
        let fates = self.fates(batch);
        let references = references(batch, &fates);
        self.check(batch, &fates, &references)?;
        self.write_rows(batch);
        for (content, by) in references {
            self.refer(content, by);
        }
        let mut decided = Vec::new();
        for effect in &batch.deliveries {
            decided.extend(self.deliver(batch, effect, &fates));
        }
        Ok(Committed::Durable(decided))
    }

    /// Checks that the references and deliveries of a batch are possible.
    fn check(
        &self,
        batch: &Batch,
        fates: &BTreeMap<DeliveryId, Fate>,
        references: &BTreeMap<ContentId, i64>,
    ) -> Result<(), StoreError> {
        let failed = |what: String| Err(StoreError::Database(what));
        let mut counts: BTreeMap<ContentId, i64> = BTreeMap::new();
        let mut refer = |content: ContentId, by: i64| {
            let before = self.references.get(&content).copied().unwrap_or(0);
            let count = counts.entry(content).or_insert(before);
            *count += by;
            *count >= 0
        };
        for (content, by) in references {
            let is_garbage = self.garbage.contains(content) && *by != 0;
            if is_garbage || !refer(*content, *by) {
                return failed(format!("content {content} cannot have so many references"));
            }
        }
        let mut taken: BTreeSet<DeliveryId> = self.deliveries.keys().copied().collect();
        let waits = self.deliveries.iter().filter(|(_, sent)| sent.to == Some(batch.account));
        let mut waiting: BTreeSet<DeliveryId> = waits.map(|(id, _)| *id).collect();
        for effect in &batch.deliveries {
            match effect {
                DeliveryEffect::Sent { delivery, .. } => {
                    if delivery.items.is_empty() {
                        return failed("a delivery of nothing".to_owned());
                    }
                    let fate = fates.get(&delivery.id).copied().unwrap_or(Fate::NoUser);
                    let is_new = taken.insert(delivery.id);
                    match fate {
                        Fate::Waits(to) if is_new => {
                            waiting.extend((to == batch.account).then_some(delivery.id));
                        }
                        Fate::NoRoom => {}
                        Fate::Waits(_) | Fate::NoUser => {
                            let mut contents = delivery.items.iter().filter_map(content);
                            if !contents.all(|content| refer(content, -1)) {
                                return failed("a delivery without its references".to_owned());
                            }
                        }
                    }
                }
                DeliveryEffect::Accepted(id) | DeliveryEffect::Declined(id) => {
                    if !waiting.remove(id) {
                        return failed(format!("delivery {id} does not wait"));
                    }
                }
            }
        }
        Ok(())
    }

    fn write_rows(&mut self, batch: &Batch) {
        let id = batch.account;
        if let Some(account) = self.accounts.get_mut(&id) {
            (account.applied, account.usage) = (batch.applied, batch.usage);
        }
        if let Some(sessions) = self.sessions.get_mut(&id) {
            sessions.note(batch);
        }
        for (ino, node) in &batch.nodes {
            match node {
                Some(node) => drop(self.nodes.insert((id, *ino), node.clone())),
                None => drop(self.nodes.remove(&(id, *ino))),
            }
        }
        for (parent, name, ino) in &batch.entries {
            let directory = self.entries.entry((id, *parent)).or_default();
            match ino {
                Some(ino) => drop(directory.insert(name.clone(), *ino)),
                None => drop(directory.remove(name)),
            }
        }
        for delivery in &batch.unrecorded {
            self.forget_unrecorded(id, *delivery);
        }
    }

    /// Decides which deliveries the recipients' inboxes have room for.
    fn fates(&mut self, batch: &Batch) -> BTreeMap<DeliveryId, Fate> {
        let mut fates = BTreeMap::new();
        let mut added: BTreeMap<AccountId, Usage> = BTreeMap::new();
        for effect in &batch.deliveries {
            let DeliveryEffect::Sent { to, root, delivery } = effect else { continue };
            let Some(to) = self.named(to) else {
                fates.insert(delivery.id, Fate::NoUser);
                continue;
            };
            let (id, waiting, budget) = (to.id, to.waiting, to.inbox);
            let size = Usage { bytes: delivery.bytes(), nodes: delivery.items.len() as u64 };
            let sending = Sending { from: batch.account, ino: *root, to: id, size };
            let added = added.entry(id).or_default();
            let used = sum(waiting, *added);
            let fits = self.inboxes.admit(sending, Filling { used, budget }, Instant::now());
            if fits {
                *added = sum(*added, size);
            }
            fates.insert(delivery.id, if fits { Fate::Waits(id) } else { Fate::NoRoom });
        }
        fates
    }

    fn deliver(
        &mut self,
        batch: &Batch,
        effect: &DeliveryEffect,
        fates: &BTreeMap<DeliveryId, Fate>,
    ) -> Option<Decided> {
        let (id, state) = match effect {
            DeliveryEffect::Sent { delivery, .. } => match fates.get(&delivery.id) {
                Some(Fate::Waits(to)) => {
                    self.send(batch, *to, delivery);
                    return None;
                }
                Some(Fate::NoRoom) => {
                    self.turn_away(batch, delivery, DeliveryState::NoRoom(batch.time));
                    return self.decided(batch.account, delivery.id);
                }
                Some(Fate::NoUser) | None => {
                    self.turn_away(batch, delivery, DeliveryState::Refused(batch.time));
                    self.drop_contents(delivery);
                    return None;
                }
            },
            DeliveryEffect::Accepted(id) => (*id, DeliveryState::Received(batch.time)),
            DeliveryEffect::Declined(id) => (*id, DeliveryState::Refused(batch.time)),
        };
        let sender = self.deliveries.get(&id).and_then(|sent| sent.from);
        self.decide(id, state);
        self.decided(sender?, id)
    }

    /// The news of a delivery for its sender; `None` if its whole record is gone.
    fn decided(&self, sender: AccountId, delivery: DeliveryId) -> Option<Decided> {
        let sent = self.deliveries.get(&delivery).filter(|sent| sent.from == Some(sender))?;
        Some(Decided { sender, delivery, state: sent.state.clone() })
    }

    /// Puts a delivery into its recipient's queue, unless its number is taken.
    fn send(&mut self, batch: &Batch, to: AccountId, delivery: &Arc<Delivery>) {
        let state = DeliveryState::Sent(delivery.sent);
        if !self.insert(batch.account, Some(to), delivery, state) {
            return self.drop_contents(delivery);
        }
        if let Some(to) = self.accounts.get_mut(&to) {
            to.waiting.bytes += delivery.bytes();
            to.waiting.nodes += delivery.items.len() as u64;
        }
    }

    fn turn_away(&mut self, batch: &Batch, delivery: &Arc<Delivery>, state: DeliveryState) {
        self.insert(batch.account, None, delivery, state);
        self.forget_unrecorded(batch.account, delivery.id);
    }

    /// Returns whether the number was free.
    fn insert(
        &mut self,
        from: AccountId,
        to: Option<AccountId>,
        delivery: &Arc<Delivery>,
        state: DeliveryState,
    ) -> bool {
        if self.deliveries.contains_key(&delivery.id) {
            return false;
        }
        let (arrival, delivery) = (self.next_arrival, delivery.clone());
        self.next_arrival += 1;
        let sent = Sent { arrival, from: Some(from), to, delivery: delivery.clone(), state };
        self.deliveries.insert(delivery.id, sent);
        true
    }

    fn drop_contents(&mut self, delivery: &Delivery) {
        delivery.items.iter().filter_map(content).for_each(|id| self.refer(id, -1));
    }
}

fn check_nodes(batch: &Batch) -> Result<(), StoreError> {
    for (ino, node) in &batch.nodes {
        if node.as_ref().is_some_and(|node| matches!(node.xattrs, Xattrs::LeftOut { .. })) {
            return Err(StoreError::Database(format!("node {ino} lacks its attributes")));
        }
    }
    Ok(())
}

/// For each content, the change in the number of nodes and deliveries that refer to it, without the
/// deliveries that found no room.
fn references(batch: &Batch, fates: &BTreeMap<DeliveryId, Fate>) -> BTreeMap<ContentId, i64> {
    let mut references: BTreeMap<ContentId, i64> = batch.references.iter().copied().collect();
    for effect in &batch.deliveries {
        let DeliveryEffect::Sent { delivery, .. } = effect else { continue };
        if fates.get(&delivery.id) == Some(&Fate::NoRoom) {
            for content in delivery.items.iter().filter_map(content) {
                *references.entry(content).or_default() -= 1;
            }
        }
    }
    references
}

fn sum(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.saturating_add(other.bytes),
        nodes: one.nodes.saturating_add(other.nodes),
    }
}
