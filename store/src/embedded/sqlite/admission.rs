//! Decides which deliveries of a batch the recipients' inboxes have room for.
//!
//! **Invariant:** the decision is made in the transaction that fills the inbox, from the rows that
//! wait there: an inbox never holds more than its budget.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use rusqlite::Transaction;
use xfer_protocol::DeliveryId;
use xfer_protocol::tree::{DeliveryEffect, Usage};

use super::accounts;
use crate::inbox::{Filling, Inboxes, Sending};
use crate::{AccountId, Batch, StoreError};

/// The fate of a delivery that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It waits for this account.
    Waits(AccountId),
    /// The inbox has no room for it.
    NoRoom,
    /// There is no such recipient.
    NoUser,
}

/// Decides the fate of each delivery that a batch sends.
pub(super) fn decide(
    transaction: &Transaction<'_>,
    batch: &Batch,
    inboxes: &mut Inboxes,
) -> Result<BTreeMap<DeliveryId, Fate>, StoreError> {
    let mut fates = BTreeMap::new();
    // Additions by this batch, which the rows don't count yet.
    let mut added: HashMap<AccountId, Usage> = HashMap::new();
    for effect in &batch.deliveries {
        let DeliveryEffect::Sent { to, root, delivery } = effect else { continue };
        let Some(recipient) = accounts::by_name(transaction, to)? else {
            fates.insert(delivery.id, Fate::NoUser);
            continue;
        };
        let size = Usage { bytes: delivery.bytes(), nodes: delivery.items.len() as u64 };
        let sending = Sending { from: batch.account, ino: *root, to: recipient.id, size };
        let added = added.entry(recipient.id).or_default();
        let used = sum(recipient.waiting, *added);
        let filling = Filling { used, budget: recipient.inbox };
        let fate = if inboxes.admit(sending, filling, Instant::now()) {
            *added = sum(*added, size);
            Fate::Waits(recipient.id)
        } else {
            Fate::NoRoom
        };
        fates.insert(delivery.id, fate);
    }
    Ok(fates)
}

fn sum(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.saturating_add(other.bytes),
        nodes: one.nodes.saturating_add(other.nodes),
    }
}
