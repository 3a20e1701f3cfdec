//! Deliveries: from their send until the sender has removed their records.
//!
//! The total size of an account's waiting deliveries is in its row, so a query for it costs the
//! same however many wait.
//!
//! **Invariant:** only waiting deliveries have items, and `contents` counts the contents of those
//! items. A delivery that was received or refused is only a head, kept for the sender's questions.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};
use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::{Delivery, Item, ItemKind};
use xfer_protocol::{ContentId, DeliveryId, Timestamp};

use super::SqliteStore;
use super::contents::refer;
use super::rows::{
    all, change, damaged, decode, encode, first, number, read_id, read_name, read_time,
};
use crate::{AccountId, Decided, StoreError};

impl SqliteStore {
    /// A delivery that waits to be accepted by this account.
    ///
    /// # Errors
    /// If the database fails.
    pub fn delivery(
        &self,
        to: AccountId,
        id: DeliveryId,
    ) -> Result<Option<Arc<Delivery>>, StoreError> {
        self.connections.read(|reader| delivery(reader, to, id))
    }

    /// The number of deliveries that wait, for all accounts together.
    ///
    /// # Errors
    /// If the database fails.
    pub fn count_waiting(&self) -> Result<u64, StoreError> {
        self.connections.read(|reader| all_waiting(reader))
    }

    /// The deliveries that wait to be accepted by this account, oldest first, each with its place
    /// in the order of arrival: at most `count`, after the place `after`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn waiting_after(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Result<Vec<(u64, DeliveryHead)>, StoreError> {
        self.connections.read(|reader| waiting(reader, to, after, count))
    }

    /// The deliveries sent by this account that found no room and whose records still exist.
    ///
    /// # Errors
    /// If the database fails.
    pub fn no_room(&self, from: AccountId) -> Result<Vec<(DeliveryId, DeliveryState)>, StoreError> {
        self.connections.read(|reader| without_room(reader, from))
    }

    /// The state of a delivery that this account sent.
    ///
    /// # Errors
    /// If the database fails.
    pub fn delivery_state(
        &self,
        from: AccountId,
        id: DeliveryId,
    ) -> Result<DeliveryState, StoreError> {
        self.connections.read(|reader| state(reader, from, id))
    }

    /// The account that sent a delivery.
    ///
    /// # Errors
    /// If the database fails.
    pub fn delivery_sender(&self, id: DeliveryId) -> Result<Option<AccountId>, StoreError> {
        self.connections.read(|reader| sender(reader, id))
    }
}

/// The state of a delivery. The numbers are on disk: never change one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits for the recipient.
    Waiting = 1,
    /// The recipient has it.
    Received = 2,
    /// The recipient declined it, or does not exist.
    Refused = 3,
    /// The inbox had no room for it.
    NoRoom = 4,
}

/// Puts a delivery into its recipient's queue. The references to its contents are already counted.
///
/// If there is no such account, or the number is taken (which is the sender's fault), the
/// references are given back.
pub(super) fn send(
    transaction: &Transaction<'_>,
    from: AccountId,
    to: Option<AccountId>,
    delivery: &Delivery,
    time: Timestamp,
) -> Result<(), StoreError> {
    if let Some(to) = to {
        let head = Head { from, to: Some(to), state: Outcome::Waiting };
        if insert_head(transaction, head, delivery, delivery.sent)? {
            count_waiting(transaction, to, delivery)?;
            return insert_items(transaction, delivery);
        }
    } else {
        refuse(transaction, from, delivery, Outcome::Refused, time)?;
    }
    delivery.items.iter().filter_map(content).try_for_each(|id| refer(transaction, id, -1))
}

/// Keeps only the refusal of a delivery, for its sender, as long as its record exists. The
/// references to its contents are not counted.
pub(super) fn refuse(
    transaction: &Transaction<'_>,
    from: AccountId,
    delivery: &Delivery,
    state: Outcome,
    time: Timestamp,
) -> Result<(), StoreError> {
    let head = Head { from, to: None, state };
    insert_head(transaction, head, delivery, time)?;
    forget_unrecorded(transaction, from, delivery.id)
}

/// Forgets a delivery that no longer waits, if its sender's record is gone.
pub(super) fn forget_unrecorded(
    transaction: &Transaction<'_>,
    from: AccountId,
    id: DeliveryId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM deliveries
               WHERE id = ?1 AND from_account = ?2 AND to_account IS NULL AND NOT EXISTS (
                   SELECT 1 FROM nodes WHERE account = ?2 AND sent = ?1)";
    change(transaction, sql, [id.0.cast_signed(), from.0.cast_signed()])?;
    Ok(())
}

fn count_waiting(
    transaction: &Transaction<'_>,
    to: AccountId,
    delivery: &Delivery,
) -> Result<(), StoreError> {
    let sql = "UPDATE accounts SET waiting_bytes = waiting_bytes + ?,
                                   waiting_items = waiting_items + ? WHERE id = ?";
    let (bytes, items) = (delivery.bytes().cast_signed(), delivery.items.len() as i64);
    change(transaction, sql, [bytes, items, to.0.cast_signed()])?;
    Ok(())
}

/// The columns of a new delivery's row that the delivery itself does not determine.
struct Head {
    from: AccountId,
    to: Option<AccountId>,
    state: Outcome,
}

/// Returns false if a delivery with this number exists already.
fn insert_head(
    transaction: &Transaction<'_>,
    head: Head,
    delivery: &Delivery,
    since: Timestamp,
) -> Result<bool, StoreError> {
    let item = delivery.items.first();
    let item = item.ok_or_else(|| StoreError::Database("a delivery of nothing".into()))?;
    let sql = "INSERT INTO deliveries (
                   id, from_account, to_account, from_name, name, sent_secs, sent_nanos,
                   items, bytes, state, state_secs, state_nanos
               ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";
    let params = params![
        delivery.id.0.cast_signed(),
        head.from.0.cast_signed(),
        head.to.map(|to| to.0.cast_signed()),
        delivery.from.as_bytes(),
        item.name.as_bytes(),
        delivery.sent.secs(),
        delivery.sent.nanos(),
        delivery.items.len() as i64,
        delivery.bytes().cast_signed(),
        head.state as i64,
        since.secs(),
        since.nanos(),
    ];
    Ok(change(transaction, sql, params)? == 1)
}

fn insert_items(transaction: &Transaction<'_>, delivery: &Delivery) -> Result<(), StoreError> {
    let sql = "INSERT INTO delivery_items (delivery, place, content, item) VALUES (?, ?, ?, ?)";
    for (place, item) in delivery.items.iter().enumerate() {
        let content = content(item).map(|id| id.0.cast_signed());
        let params = params![delivery.id.0.cast_signed(), place as i64, content, encode(item)?];
        change(transaction, sql, params)?;
    }
    Ok(())
}

/// Records the end of a delivery's wait for `to`. The batch that ends it has taken over or given
/// back the references to its contents.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    to: AccountId,
    id: DeliveryId,
    state: Outcome,
    time: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE accounts SET (waiting_bytes, waiting_items) = (
                   SELECT waiting_bytes - bytes, waiting_items - items FROM deliveries
                   WHERE id = ?1 AND to_account = ?2)
               WHERE id = ?2
                   AND EXISTS (SELECT 1 FROM deliveries WHERE id = ?1 AND to_account = ?2)";
    if change(transaction, sql, [id.0.cast_signed(), to.0.cast_signed()])? != 1 {
        return Err(StoreError::Database(format!("delivery {id} does not wait")));
    }
    let sql = "UPDATE deliveries SET state = ?, state_secs = ?, state_nanos = ?, to_account = NULL
               WHERE id = ?";
    let params = params![state as i64, time.secs(), time.nanos(), id.0.cast_signed()];
    change(transaction, sql, params)?;
    let sql = "DELETE FROM delivery_items WHERE delivery = ?";
    change(transaction, sql, [id.0.cast_signed()])?;
    match sender(transaction, id)? {
        Some(from) => forget_unrecorded(transaction, from, id),
        // No sender is left to ask about it.
        None => {
            change(transaction, "DELETE FROM deliveries WHERE id = ?", [id.0.cast_signed()])?;
            Ok(())
        }
    }
}

pub(super) fn delivery(
    connection: &Connection,
    to: AccountId,
    id: DeliveryId,
) -> Result<Option<Arc<Delivery>>, StoreError> {
    let sql = "SELECT from_name, sent_secs, sent_nanos FROM deliveries
               WHERE id = ? AND to_account = ?";
    let head = first(connection, sql, [id.0.cast_signed(), to.0.cast_signed()], |row| {
        Ok((read_name(row, 0)?, read_time(row, 1)?))
    })?;
    let Some((from, sent)) = head else { return Ok(None) };
    let sql = "SELECT item FROM delivery_items WHERE delivery = ? ORDER BY place";
    let items: Vec<Item> = all(connection, sql, [id.0.cast_signed()], |row| {
        decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
    })?;
    Ok(Some(Arc::new(Delivery { id, from, sent, items })))
}

pub(super) fn waiting(
    connection: &Connection,
    to: AccountId,
    after: u64,
    count: usize,
) -> Result<Vec<(u64, DeliveryHead)>, StoreError> {
    let sql = "SELECT id, from_name, name, sent_secs, sent_nanos, items, bytes, arrival
               FROM deliveries WHERE to_account = ? AND arrival > ? ORDER BY arrival LIMIT ?";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let params = [to.0.cast_signed(), after.cast_signed(), count];
    all(connection, sql, params, |row| {
        let head = DeliveryHead {
            id: DeliveryId(number(row, 0)?),
            from: read_name(row, 1)?,
            name: read_name(row, 2)?,
            sent: read_time(row, 3)?,
            items: row.get(5)?,
            bytes: number(row, 6)?,
        };
        Ok((number(row, 7)?, head))
    })
}

pub(super) fn all_waiting(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM deliveries WHERE to_account IS NOT NULL";
    Ok(first(connection, sql, [], |row| number(row, 0))?.unwrap_or_default())
}

pub(super) fn without_room(
    connection: &Connection,
    from: AccountId,
) -> Result<Vec<(DeliveryId, DeliveryState)>, StoreError> {
    let sql = "SELECT id, state_secs, state_nanos FROM deliveries
               WHERE from_account = ? AND state = 4 ORDER BY id";
    all(connection, sql, [from.0.cast_signed()], |row| {
        Ok((DeliveryId(number(row, 0)?), DeliveryState::NoRoom(read_time(row, 1)?)))
    })
}

pub(super) fn state(
    connection: &Connection,
    from: AccountId,
    id: DeliveryId,
) -> Result<DeliveryState, StoreError> {
    let sql = "SELECT state, state_secs, state_nanos FROM deliveries
               WHERE id = ? AND from_account = ?";
    let state = first(connection, sql, [id.0.cast_signed(), from.0.cast_signed()], |row| {
        let since = read_time(row, 1)?;
        let state: i64 = row.get(0)?;
        let is = |known: Outcome| state == known as i64;
        Ok(if is(Outcome::Waiting) {
            DeliveryState::Sent(since)
        } else if is(Outcome::Received) {
            DeliveryState::Received(since)
        } else if is(Outcome::Refused) {
            DeliveryState::Refused(since)
        } else if is(Outcome::NoRoom) {
            DeliveryState::NoRoom(since)
        } else {
            return Err(damaged(format!("a delivery in state {state}")));
        })
    })?;
    Ok(state.unwrap_or(DeliveryState::Unknown))
}

/// The news of a delivery for its sender; `None` if its whole record is gone.
pub(super) fn decided(
    connection: &Connection,
    sender: AccountId,
    delivery: DeliveryId,
) -> Result<Option<Decided>, StoreError> {
    let state = state(connection, sender, delivery)?;
    Ok((state != DeliveryState::Unknown).then_some(Decided { sender, delivery, state }))
}

pub(super) fn sender(
    connection: &Connection,
    id: DeliveryId,
) -> Result<Option<AccountId>, StoreError> {
    let sql = "SELECT from_account FROM deliveries WHERE id = ?";
    let sender = first(connection, sql, [id.0.cast_signed()], |row| read_id(row, 0))?;
    Ok(sender.flatten().map(AccountId))
}

pub(super) fn content(item: &Item) -> Option<ContentId> {
    match &item.kind {
        ItemKind::File { content, .. } => *content,
        ItemKind::Directory | ItemKind::Symlink { .. } | ItemKind::Link { .. } => None,
    }
}
