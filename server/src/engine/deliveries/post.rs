//! Deliveries between users: room in inboxes, and who is told what.
//!
//! **Invariant:** only the committer admits deliveries, one group of batches at a time, and what it
//! admits stays reserved until the store counts it: an inbox never holds more than its budget.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use xfer_protocol::message::ReadError;
use xfer_protocol::tree::{Delivery, DeliveryEffect, ItemKind, Usage};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name};
use xfer_store::{AccountId, Batch, Committed, MetaStore, StoreError};

use crate::engine::deliveries::inbox::Inbox;
use crate::engine::session::Session;
use crate::engine::session::queues::News;
use crate::engine::session::registry::Registry;

/// The queues between the users.
pub(crate) struct Post {
    meta: Arc<dyn MetaStore>,
    registry: Arc<Registry>,
    inboxes: Mutex<HashMap<AccountId, Inbox>>,
}

impl Post {
    pub(crate) fn new(meta: Arc<dyn MetaStore>, registry: Arc<Registry>) -> Post {
        Post { meta, registry, inboxes: Mutex::default() }
    }

    /// Says whether something fits the inbox of `to`, and keeps the room for it. Blocks.
    pub(crate) fn reserve(
        &self,
        by: &Session,
        to: &Name,
        ino: Ino,
        size: Usage,
    ) -> Result<(), ReadError> {
        let from = by.account();
        let recipient = self.meta.account(to).map_err(storage)?;
        let recipient = recipient.filter(|to| to.id != from).ok_or(ReadError::NoUser)?;
        let mut inboxes = self.lock();
        // A session that ends gives up its room after its tree, so nothing is kept past that.
        if by.tree.has_ended() {
            return Err(ReadError::Ended);
        }
        // Under the lock: what is admitted no longer is what the store counts already.
        let used = self.meta.inbox_usage(recipient.id).map_err(storage)?;
        let inbox = inboxes.entry(recipient.id).or_default();
        match inbox.reserve((from, ino), size, (used, recipient.inbox), Instant::now()) {
            true => Ok(()),
            false => Err(ReadError::InboxFull),
        }
    }

    /// Gives up what an account has reserved: its session is over. Blocks.
    pub(crate) fn forget(&self, from: AccountId) {
        self.lock().retain(|_, inbox| {
            inbox.forget(from);
            !inbox.is_empty()
        });
    }

    /// Decides about the deliveries in a batch that is about to be committed: those that there is
    /// no room for become refused ones. Blocks.
    pub(crate) fn judge(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let mut refused = Vec::new();
        for effect in &batch.deliveries {
            let DeliveryEffect::Sent { to, root, delivery } = effect else { continue };
            if !self.admit((batch.account, *root), to, delivery)? {
                refused.push(delivery.clone());
            }
        }
        withdraw(batch, &refused);
        Ok(())
    }

    /// Commits what was judged. Nobody asks for room meanwhile: what is admitted would count twice, as
    /// soon as the store counts it too. Blocks.
    pub(crate) fn commit<T>(&self, batches: &[Batch], commit: impl FnOnce() -> T) -> T {
        let is_sent = |effect: &DeliveryEffect| matches!(effect, DeliveryEffect::Sent { .. });
        if !batches.iter().any(|batch| batch.deliveries.iter().any(is_sent)) {
            return commit();
        }
        let mut inboxes = self.lock();
        let committed = commit();
        inboxes.values_mut().for_each(Inbox::release_admitted);
        committed
    }

    /// Forgets what [`Post::judge`] set aside: the store counts it now, or it did not come to be.
    pub(crate) fn release_used(&self) {
        self.lock().retain(|_, inbox| {
            inbox.release_admitted();
            !inbox.is_empty()
        });
    }

    /// Tells those concerned what a batch that is now durable did. Blocks.
    pub(crate) fn announce(&self, batch: &Batch, committed: Committed) -> Result<(), StoreError> {
        match committed {
            Committed::Fenced => return Ok(()),
            Committed::Durable => {}
        }
        let refused: HashSet<DeliveryId> = batch.refused.iter().copied().collect();
        for effect in &batch.deliveries {
            match effect {
                DeliveryEffect::Sent { delivery, .. } if refused.contains(&delivery.id) => {
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

    fn admit(
        &self,
        sent: (AccountId, Ino),
        to: &Name,
        delivery: &Delivery,
    ) -> Result<bool, StoreError> {
        // The store refuses what is for nobody.
        let Some(recipient) = self.meta.account(to)? else { return Ok(true) };
        let used = self.meta.inbox_usage(recipient.id)?;
        let mut inboxes = self.lock();
        let inbox = inboxes.entry(recipient.id).or_default();
        Ok(inbox.admit(sent, size(delivery), (used, recipient.inbox), Instant::now()))
    }

    /// Every change to the reservations is one step, so a panic elsewhere leaves them whole.
    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<AccountId, Inbox>> {
        self.inboxes.lock()
    }
}

/// The contents of a delivery.
pub(crate) fn contents(delivery: &Delivery) -> impl Iterator<Item = ContentId> + '_ {
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

/// Makes deliveries in a batch ones that there was no room for: they refer to no contents.
fn withdraw(batch: &mut Batch, refused: &[Arc<Delivery>]) {
    if refused.is_empty() {
        return;
    }
    let mut references: BTreeMap<_, _> = batch.references.drain(..).collect();
    for content in refused.iter().flat_map(|delivery| contents(delivery)) {
        *references.entry(content).or_default() -= 1;
    }
    batch.references = references.into_iter().filter(|(_, by)| *by != 0).collect();
    batch.refused.extend(refused.iter().map(|delivery| delivery.id));
}
