//! What the server says over the log link.

use std::collections::BTreeSet;

use xfer_protocol::message::{DeliveryState, ToClient};
use xfer_protocol::{DeliveryId, Ino, Name};

use crate::core::link::Ending;
use crate::core::notice::Notice;
use crate::core::state::Core;

/// What is left to do after a message was taken in.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing.
    Nothing,
    /// The server asks for an end: write back what programs have mapped, then drain.
    Drain(Ending),
    /// A delivery found no room in its inbox: its record becomes a draft again.
    TakeBack(DeliveryId),
}

impl Core {
    /// Takes a message in. An error is the end of the session.
    pub(crate) fn handle_message(&mut self, message: ToClient) -> Result<Then, Ending> {
        match message {
            ToClient::Durable { seq, disk, limit } => {
                self.uplink.disk_room.hear(disk, limit);
                if !self.acknowledge(seq) {
                    return Err(Ending::Misbehaved("acknowledged what it was not sent"));
                }
            }
            ToClient::Room { disk, limit } => {
                self.uplink.disk_room.hear_answer(disk, limit, self.now.monotonic);
            }
            ToClient::Diverged { seq, errno } => return Err(Ending::Diverged { seq, errno }),
            ToClient::Arrived(head) => self.inbox.waiting.push_back(head),
            ToClient::Settled { delivery, state } => return Ok(self.conclude(delivery, state)),
            ToClient::Users(users) => self.set_users(users.into_iter().collect()),
            ToClient::Quota(quota) => self.replica.table.set_quota(quota),
            ToClient::Ids(range) => {
                if !self.uplink.numbers.add(range) {
                    return Err(Ending::Misbehaved("granted numbers that can't be"));
                }
            }
            ToClient::Pong => {
                let now = self.now.monotonic;
                let heartbeat = &mut self.uplink.heartbeat;
                heartbeat.round_trip =
                    heartbeat.pinged.take().map(|pinged| now.saturating_duration_since(pinged));
            }
            ToClient::Drain { reason, .. } => return Ok(Then::Drain(reason.into())),
            ToClient::Ended(reason) => return Err(reason.into()),
        }
        Ok(Then::Nothing)
    }

    /// Takes in the final state of something that was sent. If it was received, that made room.
    fn conclude(&mut self, id: DeliveryId, state: DeliveryState) -> Then {
        self.learn_state(id, state.clone());
        match state {
            DeliveryState::NoRoom(_) => return Then::TakeBack(id),
            DeliveryState::Received(_) | DeliveryState::Refused(_) => {
                self.outbox.sent.remove(&id);
                self.outbox.resend |= !self.outbox.drafts.is_empty();
            }
            DeliveryState::Sent(_) | DeliveryState::Unknown => {}
        }
        Then::Nothing
    }

    /// Takes over the users that can be sent to; the outbox shows one directory for each.
    fn set_users(&mut self, users: BTreeSet<Name>) {
        let outbox = &mut self.outbox;
        let changed = outbox.users.symmetric_difference(&users).cloned();
        self.notices.extend(changed.map(|name| Notice::Entry(Ino::OUTBOX, name)));
        self.notices.push(Notice::Contents(Ino::OUTBOX));
        outbox.users = users;
        outbox.users_changes += 1;
        // Deliveries that waited for a removed user were refused.
        outbox.deliveries.retain(|_, state| !matches!(state, DeliveryState::Sent(_)));
        // A user who is back can be sent to.
        outbox.resend |= !outbox.drafts.is_empty();
    }
}
