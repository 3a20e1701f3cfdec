//! News of deliveries between users. The store, not this file, decides whether an inbox has room.

use std::sync::Arc;

use xfer_protocol::message::ReadError;
use xfer_protocol::tree::{DeliveryEffect, Usage};
use xfer_protocol::{DeliveryId, Ino, Name};
use xfer_store::{Batch, Decided, Reservation, Reserved};

use crate::engine::seats::registry::Registry;
use crate::engine::session::Session;
use crate::engine::session::queues::News;
use crate::engine::stores::Stores;

/// Passes news of deliveries between the sessions of their users.
pub(crate) struct Exchange {
    stores: Stores,
    registry: Arc<Registry>,
}

impl Exchange {
    pub(crate) fn new(stores: Stores, registry: Arc<Registry>) -> Exchange {
        Exchange { stores, registry }
    }

    /// Reserves room in the inbox of `to`, or says why there is none.
    pub(crate) async fn reserve(
        &self,
        by: &Session,
        to: Name,
        ino: Ino,
        size: Usage,
    ) -> Result<(), ReadError> {
        let epoch = by.position.epoch().ok_or(ReadError::Ended)?;
        let from = by.account();
        let reservation = Reservation { from, epoch, to, ino, size };
        match self.stores.store.deliveries.reserve(reservation).await {
            Ok(Reserved::Kept) => Ok(()),
            Ok(Reserved::Full) => Err(ReadError::InboxFull),
            Ok(Reserved::NoUser) => Err(ReadError::NoUser),
            Ok(Reserved::Over) => Err(ReadError::Ended),
            Err(error) => {
                tracing::error!(%error, "an inbox cannot be read");
                Err(ReadError::Storage)
            }
        }
    }

    /// Tells the recipients of a batch's deliveries that they have arrived.
    pub(crate) fn announce(&self, sent: &[(DeliveryId, Name)], decided: &[Decided]) {
        for (id, to) in sent {
            // A delivery that found no room did not arrive.
            let is_refused = decided.iter().any(|one| one.delivery == *id);
            if !is_refused && let Some(session) = self.registry.of_user(to) {
                session.pass_on(News::Arrived);
            }
        }
    }

    /// Tells senders the new states of their deliveries.
    pub(crate) fn tell(&self, decided: Vec<Decided>) {
        for Decided { sender, delivery, state } in decided {
            if let Some(session) = self.registry.of_account(sender) {
                session.pass_on(News::Settled(delivery, state));
            }
        }
    }
}

/// The deliveries that a batch sends, with their recipients.
pub(crate) fn sent(batch: &Batch) -> Vec<(DeliveryId, Name)> {
    let sent = |effect: &DeliveryEffect| match effect {
        DeliveryEffect::Sent { to, delivery, .. } => Some((delivery.id, to.clone())),
        DeliveryEffect::Accepted(_) | DeliveryEffect::Declined(_) => None,
    };
    batch.deliveries.iter().filter_map(sent).collect()
}
