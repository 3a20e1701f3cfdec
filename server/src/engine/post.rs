//! Deliveries between users: room in inboxes, and who is told what.
//!
//! **Invariant:** only the committer admits deliveries, one group of batches at a time, and what it
//! admits stays reserved until the store counts it: an inbox never holds more than its budget.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use xfer_protocol::message::ReadError;
use xfer_protocol::tree::{Delivery, DeliveryEffect, ItemKind, Quota, Usage};
use xfer_protocol::{ContentId, DeliveryId, Name};

use super::registry::Registry;
use super::session::{News, Session};
use crate::store::{AccountId, Batch, Committed, MetaStore, StoreError};

/// How long room stays reserved for a send that does not come.
const RESERVATION_LIFE: Duration = Duration::from_secs(15 * 60);

/// The queues between the users.
pub(super) struct Post {
    meta: Arc<dyn MetaStore>,
    registry: Arc<Registry>,
    inboxes: Mutex<HashMap<AccountId, Inbox>>,
}

/// Room in someone's inbox that is spoken for.
#[derive(Debug, Default)]
struct Inbox {
    /// By who asked for it. What is asked for adds up, and what is sent is taken from it, so that a
    /// file that grows asks only for what it lacks.
    kept: HashMap<AccountId, Kept>,
    /// What was admitted and is being committed.
    admitted: Usage,
}

#[derive(Debug)]
struct Kept {
    size: Usage,
    /// When it was last asked for.
    asked: Instant,
}

impl Inbox {
    fn expire(&mut self) {
        self.kept.retain(|_, kept| kept.asked.elapsed() < RESERVATION_LIFE);
    }

    /// Whether `more` fits beside what is in the inbox and what is spoken for.
    fn has_room(&self, used: Usage, more: Usage, budget: Quota) -> bool {
        let kept = self.kept.values().map(|kept| kept.size);
        let sum = kept.chain([self.admitted, more]).fold(used, add);
        sum.bytes <= budget.bytes && sum.nodes <= budget.nodes
    }

    /// What of `size` is not kept for a sender.
    fn lacking(&self, from: AccountId, size: Usage) -> Usage {
        self.kept.get(&from).map_or(size, |kept| subtract(size, kept.size))
    }

    fn admit(&mut self, from: AccountId, size: Usage) {
        if let Some(kept) = self.kept.get_mut(&from) {
            kept.size = subtract(kept.size, size);
        }
        self.kept.retain(|_, kept| kept.size != Usage::default());
        self.admitted = add(self.admitted, size);
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.admitted == Usage::default()
    }
}

fn add(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.saturating_add(other.bytes),
        nodes: one.nodes.saturating_add(other.nodes),
    }
}

fn subtract(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.saturating_sub(other.bytes),
        nodes: one.nodes.saturating_sub(other.nodes),
    }
}

impl Post {
    pub(super) fn new(meta: Arc<dyn MetaStore>, registry: Arc<Registry>) -> Post {
        Post { meta, registry, inboxes: Mutex::default() }
    }

    /// Keeps room in the inbox of `to`. Blocks.
    pub(super) fn reserve(&self, by: &Session, to: &Name, size: Usage) -> Result<(), ReadError> {
        let from = by.account;
        let recipient = self.meta.account(to).map_err(storage)?;
        let recipient = recipient.filter(|to| to.id != from).ok_or(ReadError::NoUser)?;
        let mut inboxes = self.lock();
        // A session that ends gives up its room after its tree, so nothing is kept past that.
        if by.has_ended() {
            return Err(ReadError::Ended);
        }
        // Under the lock: what is admitted no longer is what the store counts already.
        let used = self.meta.inbox_usage(recipient.id).map_err(storage)?;
        let inbox = inboxes.entry(recipient.id).or_default();
        inbox.expire();
        if !inbox.has_room(used, size, recipient.inbox) {
            return Err(ReadError::InboxFull);
        }
        let asked = Instant::now();
        let kept = inbox.kept.entry(from).or_insert(Kept { size: Usage::default(), asked });
        *kept = Kept { size: add(kept.size, size), asked };
        Ok(())
    }

    /// Gives up what an account has reserved: its session is over.
    pub(super) fn forget(&self, from: AccountId) {
        self.lock().retain(|_, inbox| {
            inbox.kept.remove(&from);
            !inbox.is_empty()
        });
    }

    /// Decides about the deliveries in a batch that is about to be committed: those that there is
    /// no room for become refused ones. Blocks.
    pub(super) fn judge(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let mut refused = Vec::new();
        for effect in &batch.deliveries {
            let DeliveryEffect::Sent { to, delivery } = effect else { continue };
            if !self.admit(batch.account, to, delivery)? {
                refused.push(delivery.clone());
            }
        }
        withdraw(batch, &refused);
        Ok(())
    }

    /// Forgets what [`Post::judge`] set aside: the store counts it now, or it did not come to be.
    pub(super) fn release_used(&self) {
        self.lock().retain(|_, inbox| {
            inbox.admitted = Usage::default();
            !inbox.is_empty()
        });
    }

    /// Tells those concerned what a batch that is now durable did. Blocks.
    pub(super) fn announce(&self, batch: &Batch, committed: Committed) -> Result<(), StoreError> {
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

    fn admit(&self, from: AccountId, to: &Name, delivery: &Delivery) -> Result<bool, StoreError> {
        let Some(recipient) = self.meta.account(to)? else { return Ok(false) };
        let size = size(delivery);
        let used = self.meta.inbox_usage(recipient.id)?;
        let mut inboxes = self.lock();
        let inbox = inboxes.entry(recipient.id).or_default();
        inbox.expire();
        let lacking = inbox.lacking(from, size);
        let room = lacking == Usage::default() || inbox.has_room(used, lacking, recipient.inbox);
        if room {
            inbox.admit(from, size);
        }
        Ok(room)
    }

    /// Every change to the reservations is one step, so a panic elsewhere leaves them whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AccountId, Inbox>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Makes deliveries in a batch ones that were refused: they refer to no contents.
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
