//! Writing batches: rows, references and deliveries of one session's ops.

use rusqlite::{Transaction, params};
use xfer_protocol::tree::{DeliveryEffect, Node};
use xfer_protocol::{Ino, Name};

use super::rows::{change, put_node};
use super::{accounts, contents, deliveries, trims};
use crate::{AccountId, Batch, Committed, StoreError};

/// Writes batches, each under a savepoint: nothing is written of one that fails, and the others are.
///
/// # Errors
/// After some failures (a full disk, an input error) SQLite undoes the whole transaction: then `culprit`
/// says which batch met it.
pub(super) fn write_each(
    transaction: &Transaction<'_>,
    batches: &[Batch],
    culprit: &mut Option<usize>,
) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
    let mut all = Vec::with_capacity(batches.len());
    for (place, batch) in batches.iter().enumerate() {
        transaction.execute_batch("SAVEPOINT batch")?;
        let written = write(transaction, batch);
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
pub(super) fn write(transaction: &Transaction<'_>, batch: &Batch) -> Result<Committed, StoreError> {
    if !advance(transaction, batch)? {
        accounts::fenced(transaction, batch.account, batch.epoch)?;
        return Ok(Committed::Fenced);
    }
    for (ino, node) in &batch.nodes {
        write_node(transaction, batch.account, *ino, node.as_deref())?;
    }
    for (parent, name, ino) in &batch.entries {
        write_entry(transaction, batch.account, (*parent, name), *ino)?;
    }
    for delivery in &batch.unrecorded {
        deliveries::forget_unrecorded(transaction, batch.account, *delivery)?;
    }
    for (content, by) in &batch.references {
        contents::refer(transaction, *content, *by)?;
    }
    trims::note(transaction, batch.account, &batch.trims)?;
    for effect in &batch.deliveries {
        match effect {
            DeliveryEffect::Sent { to, delivery, .. } => {
                if batch.refused.contains(&delivery.id) {
                    let state = deliveries::State::NoRoom;
                    deliveries::refuse(transaction, batch.account, delivery, state, batch.time)?;
                } else {
                    deliveries::send(transaction, batch.account, to, delivery, batch.time)?;
                }
            }
            DeliveryEffect::Accepted(id) => {
                let state = deliveries::State::Received;
                deliveries::settle(transaction, batch.account, *id, state, batch.time)?;
            }
            DeliveryEffect::Declined(id) => {
                let state = deliveries::State::Refused;
                deliveries::settle(transaction, batch.account, *id, state, batch.time)?;
            }
        }
    }
    Ok(Committed::Durable)
}

/// Notes how far the log is applied, if the account is still the batch's session's.
///
/// An account that was removed has no row, and so all that comes for it is fenced, too.
fn advance(transaction: &Transaction<'_>, batch: &Batch) -> Result<bool, StoreError> {
    let sql = "UPDATE accounts SET applied = ?, usage_bytes = ?, usage_nodes = ?
               WHERE id = ? AND epoch = ?";
    let params = params![
        batch.applied.0.cast_signed(),
        batch.usage.bytes.cast_signed(),
        batch.usage.nodes.cast_signed(),
        batch.account.0.cast_signed(),
        batch.epoch.0.cast_signed(),
    ];
    Ok(change(transaction, sql, params)? == 1)
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

/// Writes the entry `place`, a directory and a name in it.
pub(super) fn write_entry(
    transaction: &Transaction<'_>,
    account: AccountId,
    place: (Ino, &Name),
    ino: Option<Ino>,
) -> Result<(), StoreError> {
    let (account, parent, name) =
        (account.0.cast_signed(), place.0.0.cast_signed(), place.1.as_bytes());
    match ino {
        Some(ino) => {
            let sql = "INSERT OR REPLACE INTO entries (account, parent, name, ino)
                       VALUES (?, ?, ?, ?)";
            change(transaction, sql, params![account, parent, name, ino.0.cast_signed()])?;
        }
        None => {
            let sql = "DELETE FROM entries WHERE account = ? AND parent = ? AND name = ?";
            change(transaction, sql, params![account, parent, name])?;
        }
    }
    Ok(())
}
