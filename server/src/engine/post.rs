//! Deliveries between users: room in inboxes, and who is told what.
//!
//! **Invariant:** only the committer admits deliveries, one group of batches at a time, and what it
//! admits stays reserved until the store counts it: an inbox never holds more than its budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use xfer_protocol::message::ReadError;
use xfer_protocol::tree::{Delivery, DeliveryEffect, ItemKind, Quota, Usage};
use xfer_protocol::{ContentId, DeliveryId, Name};

use super::registry::Registry;
use super::session::News;
use crate::store::{AccountId, Batch, Committed, MetaStore, StoreError};

/// How long room stays reserved for a send that does not come.
const RESERVATION_LIFE: Duration = Duration::from_secs(15 * 60);

/// How many reservations one account may hold.
const RESERVATIONS_MAX: usize = 1024;

/// The queues between the users.
pub(super) struct Post {
    meta: Arc<dyn MetaStore>,
    registry: Arc<Registry>,
    reservations: Mutex<HashMap<AccountId, Vec<Reservation>>>,
}

/// Room in someone's inbox. They are kept by whose inbox it is.
#[derive(Debug)]
struct Reservation {
    from: AccountId,
    size: Usage,
    made: Instant,
    /// A send that is being committed has it.
    used: bool,
}

impl Post {
    pub(super) fn new(meta: Arc<dyn MetaStore>, registry: Arc<Registry>) -> Post {
        Post { meta, registry, reservations: Mutex::default() }
    }

    /// Keeps room in the inbox of `to`. Blocks.
    pub(super) fn reserve(&self, from: AccountId, to: &Name, size: Usage) -> Result<(), ReadError> {
        let recipient = self.meta.account(to).map_err(storage)?;
        let recipient = recipient.filter(|to| to.id != from).ok_or(ReadError::NoUser)?;
        let mut reservations = self.lock();
        let held = reservations.values().flatten().filter(|held| held.from == from).count();
        let kept = reservations.entry(recipient.id).or_default();
        kept.retain(|kept| kept.used || kept.made.elapsed() < RESERVATION_LIFE);
        let used = self.meta.inbox_usage(recipient.id).map_err(storage)?;
        if held >= RESERVATIONS_MAX || !fits(used, kept, size, recipient.inbox) {
            return Err(ReadError::InboxFull);
        }
        kept.push(Reservation { from, size, made: Instant::now(), used: false });
        Ok(())
    }

    /// Gives up what an account has reserved: its session is over.
    pub(super) fn forget(&self, from: AccountId) {
        self.lock().retain(|_, kept| {
            kept.retain(|kept| kept.from != from || kept.used);
            !kept.is_empty()
        });
    }

    /// Decides about the deliveries in batches that are about to be committed: those that there is
    /// no room for become refused ones. Blocks.
    pub(super) fn judge(&self, batches: &mut [Batch]) -> Result<(), StoreError> {
        for batch in batches {
            let mut refused = Vec::new();
            for effect in &batch.deliveries {
                let DeliveryEffect::Sent { to, delivery } = effect else { continue };
                if !self.admit(batch.account, to, delivery)? {
                    refused.push(delivery.clone());
                }
            }
            for delivery in refused {
                withdraw(batch, &delivery);
            }
        }
        Ok(())
    }

    /// Forgets what [`Post::judge`] set aside: the store counts it now, or it did not come to be.
    pub(super) fn release_used(&self) {
        self.lock().retain(|_, kept| {
            kept.retain(|kept| !kept.used);
            !kept.is_empty()
        });
    }

    /// Tells those concerned what a batch that is now durable did. Blocks.
    pub(super) fn announce(&self, batch: &Batch, committed: Committed) -> Result<(), StoreError> {
        match committed {
            Committed::Fenced => return Ok(()),
            Committed::Durable => {}
        }
        for effect in &batch.deliveries {
            match effect {
                DeliveryEffect::Sent { delivery, .. } if batch.refused.contains(&delivery.id) => {
                    self.tell_sender(delivery.id)?;
                }
                DeliveryEffect::Sent { to, .. } => {
                    if let Some(session) = self.registry.of_user(to) {
                        session.pass_on(News::Arrived);
                    }
                }
                DeliveryEffect::Accepted(id) | DeliveryEffect::Declined(id) => {
                    self.tell_sender(*id)?;
                }
            }
        }
        Ok(())
    }

    fn tell_sender(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        let Some(sender) = self.meta.delivery_sender(delivery)? else { return Ok(()) };
        if let Some(session) = self.registry.of_account(sender) {
            let state = self.meta.delivery_state(sender, delivery)?;
            session.pass_on(News::Settled(delivery, state));
        }
        Ok(())
    }

    fn admit(&self, from: AccountId, to: &Name, delivery: &Delivery) -> Result<bool, StoreError> {
        let Some(recipient) = self.meta.account(to)? else { return Ok(false) };
        let size = size(delivery);
        let mut reservations = self.lock();
        let kept = reservations.entry(recipient.id).or_default();
        let covers = |kept: &&mut Reservation| {
            let enough = kept.size.bytes >= size.bytes && kept.size.nodes >= size.nodes;
            kept.from == from && !kept.used && enough
        };
        if let Some(kept) = kept.iter_mut().find(covers) {
            kept.used = true;
            return Ok(true);
        }
        let used = self.meta.inbox_usage(recipient.id)?;
        let room = fits(used, kept, size, recipient.inbox);
        if room {
            kept.push(Reservation { from, size, made: Instant::now(), used: true });
        }
        Ok(room)
    }

    /// Every change to the reservations is one step, so a panic elsewhere leaves them whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AccountId, Vec<Reservation>>> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The contents of a delivery.
pub(super) fn contents(delivery: &Delivery) -> impl Iterator<Item = ContentId> + '_ {
    delivery.items.iter().filter_map(|item| match &item.kind {
        ItemKind::File { content, .. } => *content,
        ItemKind::Directory | ItemKind::Symlink { .. } => None,
    })
}

fn storage(error: StoreError) -> ReadError {
    tracing::error!(%error, "an inbox can't be read");
    ReadError::Storage
}

fn size(delivery: &Delivery) -> Usage {
    Usage { bytes: delivery.bytes(), nodes: delivery.items.len() as u64 }
}

/// Whether `more` fits an inbox of this budget, beside what is in it and what is kept for others.
fn fits(used: Usage, kept: &[Reservation], more: Usage, budget: Quota) -> bool {
    let sum = kept.iter().map(|kept| kept.size).chain([more]).fold(used, |sum, size| Usage {
        bytes: sum.bytes.saturating_add(size.bytes),
        nodes: sum.nodes.saturating_add(size.nodes),
    });
    sum.bytes <= budget.bytes && sum.nodes <= budget.nodes
}

/// Makes a delivery in a batch one that was refused: it refers to no contents.
fn withdraw(batch: &mut Batch, delivery: &Delivery) {
    for content in contents(delivery) {
        match batch.references.iter_mut().find(|(id, _)| *id == content) {
            Some((_, by)) => *by -= 1,
            None => batch.references.push((content, -1)),
        }
    }
    batch.references.retain(|(_, by)| *by != 0);
    batch.refused.push(delivery.id);
}
