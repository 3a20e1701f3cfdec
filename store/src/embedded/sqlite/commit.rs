//! Writes batches: the rows, references and deliveries of one session's ops.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Transaction, params};
use xfer_protocol::tree::{DeliveryEffect, Node};
use xfer_protocol::{ContentId, DeliveryId, Ino};

use super::admission::{self, Fate};
use super::rows::{change, first, put_node, write_entry};
use super::{accounts, contents, deliveries, trims};
use crate::inbox::Inboxes;
use crate::{AccountId, Batch, Committed, Decided, StoreError};

/// Writes batches, each under a savepoint, so that a failed batch leaves no trace and the others
/// stay.
///
/// # Errors
/// After some failures (a full disk, an input error) SQLite rolls the whole transaction back: then
/// `culprit` names the batch that met the failure.
pub(super) fn write_each(
    transaction: &Transaction<'_>,
    batches: &[Batch],
    inboxes: &mut Inboxes,
    culprit: &mut Option<usize>,
) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
    let mut all = Vec::with_capacity(batches.len());
    for (place, batch) in batches.iter().enumerate() {
        transaction.execute_batch("SAVEPOINT batch")?;
        let written = write(transaction, batch, inboxes);
        if written.is_err() {
            if transaction.is_autocommit() {
                *culprit = Some(place);
                return written.map(|_| all);
            }
            transaction.execute_batch("ROLLBACK TO batch")?;
        }
        transaction.execute_batch("RELEASE batch")?;
        all.push(written);
    }
    Ok(all)
}

/// Writes one batch, unless its session was fenced.
pub(super) fn write(
    transaction: &Transaction<'_>,
    batch: &Batch,
    inboxes: &mut Inboxes,
) -> Result<Committed, StoreError> {
    let Some(is_untidy) = advance(transaction, batch)? else {
        accounts::fenced(transaction, batch.account, batch.epoch)?;
        return Ok(Committed::Fenced);
    };
    for (ino, node) in &batch.nodes {
        write_node(transaction, batch.account, *ino, node.as_deref())?;
    }
    for (parent, name, ino) in &batch.entries {
        write_entry(transaction, batch.account, (*parent, name), *ino)?;
    }
    accounts::note_changes(transaction, batch)?;
    for delivery in &batch.unrecorded {
        deliveries::forget_unrecorded(transaction, batch.account, *delivery)?;
    }
    let fates = admission::decide(transaction, batch, inboxes)?;
    for (content, by) in references(batch, &fates) {
        contents::refer(transaction, content, by)?;
    }
    trims::note(transaction, batch.account, &batch.trims)?;
    let mut decided = Vec::new();
    for effect in &batch.deliveries {
        decided.extend(deliver(transaction, batch, effect, &fates)?);
    }
    if is_untidy {
        // Once it is sealed, a content is not looked through any more for what was left in it.
        for content in sealed(batch) {
            trims::note_shared(transaction, content)?;
        }
    }
    Ok(Committed::Durable(decided))
}

/// The sealed contents of a batch's nodes and deliveries.
fn sealed(batch: &Batch) -> BTreeSet<ContentId> {
    let nodes = batch.nodes.iter().filter_map(|(_, node)| node.as_deref()?.file());
    let sent = batch.deliveries.iter().filter_map(|effect| match effect {
        DeliveryEffect::Sent { delivery, .. } => Some(&delivery.items),
        DeliveryEffect::Accepted(_) | DeliveryEffect::Declined(_) => None,
    });
    let of_nodes = nodes.filter(|file| file.sealed).filter_map(|file| file.content);
    of_nodes.chain(sent.flatten().filter_map(deliveries::content)).collect()
}

/// Carries out the fate of a delivery, and returns the news for its sender, if any.
fn deliver(
    transaction: &Transaction<'_>,
    batch: &Batch,
    effect: &DeliveryEffect,
    fates: &BTreeMap<DeliveryId, Fate>,
) -> Result<Option<Decided>, StoreError> {
    let account = batch.account;
    let (id, state) = match effect {
        DeliveryEffect::Sent { delivery, .. } => match fates.get(&delivery.id) {
            Some(Fate::NoRoom) => {
                let state = deliveries::Outcome::NoRoom;
                deliveries::refuse(transaction, account, delivery, state, batch.time)?;
                return deliveries::decided(transaction, account, delivery.id);
            }
            Some(Fate::Waits(to)) => {
                deliveries::send(transaction, account, Some(*to), delivery, batch.time)?;
                return Ok(None);
            }
            Some(Fate::NoUser) | None => {
                deliveries::send(transaction, account, None, delivery, batch.time)?;
                return Ok(None);
            }
        },
        DeliveryEffect::Accepted(id) => (*id, deliveries::Outcome::Received),
        DeliveryEffect::Declined(id) => (*id, deliveries::Outcome::Refused),
    };
    let sender = deliveries::sender(transaction, id)?;
    deliveries::settle(transaction, account, id, state, batch.time)?;
    sender.map_or(Ok(None), |sender| deliveries::decided(transaction, sender, id))
}

/// For each content, the change in the number of nodes and deliveries that refer to it, without the
/// deliveries that found no room. A content of such deliveries alone has the change 0 and becomes
/// garbage.
fn references(batch: &Batch, fates: &BTreeMap<DeliveryId, Fate>) -> Vec<(ContentId, i64)> {
    if !fates.values().any(|fate| *fate == Fate::NoRoom) {
        return batch.references.clone();
    }
    let mut references: BTreeMap<ContentId, i64> = batch.references.iter().copied().collect();
    for effect in &batch.deliveries {
        let DeliveryEffect::Sent { delivery, .. } = effect else { continue };
        if fates.get(&delivery.id) == Some(&Fate::NoRoom) {
            for content in delivery.items.iter().filter_map(deliveries::content) {
                *references.entry(content).or_default() -= 1;
            }
        }
    }
    references.into_iter().collect()
}

/// Records how far the log is applied, if the account still has the batch's epoch. Returns whether a
/// session before it may have left uncommitted data on the disk; `None` if it has another epoch.
///
/// A deleted account has no row, so its batches are fenced, too.
fn advance(transaction: &Transaction<'_>, batch: &Batch) -> Result<Option<bool>, StoreError> {
    let sql = "UPDATE accounts SET applied = ?, usage_bytes = ?, usage_nodes = ?, next_id = max(next_id, ?)
               WHERE id = ? AND epoch = ? RETURNING tidied + 1 < epoch";
    let params = params![
        batch.applied.0.cast_signed(),
        batch.usage.bytes.cast_signed(),
        batch.usage.nodes.cast_signed(),
        batch.next_id.cast_signed(),
        batch.account.0.cast_signed(),
        batch.epoch.0.cast_signed(),
    ];
    first(transaction, sql, params, |row| Ok(row.get(0)?))
}

fn write_node(
    transaction: &Transaction<'_>,
    account: AccountId,
    ino: Ino,
    node: Option<&Node>,
) -> Result<(), StoreError> {
    match node {
        Some(node) => put_node(transaction, account, ino, node),
        None => {
            let sql = "DELETE FROM nodes WHERE account = ? AND ino = ?";
            change(transaction, sql, params![account.0.cast_signed(), ino.0.cast_signed()])?;
            Ok(())
        }
    }
}
