//! Messages from the server over the log link. The drive has read and decoded them.
//!
//! **Invariant:** an acknowledgement of ops that were not sent, or a grant of numbers that can't
//! be, ends the session.

use std::collections::BTreeSet;

use xfer_protocol::message::{DeliveryState, ToClient};
use xfer_protocol::{DeliveryId, Ino, Name};

use crate::core::away::Holder;
use crate::core::link::{Ending, LastWords, LinkLoss};
use crate::core::notice::Notice;
use crate::core::state::Core;

/// The work that is left for the drive after a message.
#[derive(Debug)]
pub(crate) enum Then {
    Nothing,
    /// The server asks for the session's end: write back what programs have mapped, then drain.
    Drain(Ending),
    /// The server takes the seat away: give it up before that.
    Leave,
    /// Another client wants the seat: hand it over when nothing needs it.
    HandOver,
    /// The link is lost.
    Lost(LinkLoss),
    /// A delivery found no room in the recipient's inbox: its record becomes a draft again.
    TakeBack(DeliveryId),
}

impl Core {
    /// Takes in a message. An error ends the session.
    pub(crate) fn handle_message(&mut self, message: ToClient) -> Result<Then, Ending> {
        match message {
            ToClient::Durable { seq, disk, limit } => {
                self.uplink.disk_room.hear(disk, limit);
                if !self.acknowledge(seq) {
                    return Err(Ending::Misbehaved("acknowledged what it was not sent"));
                }
            }
            ToClient::Room { disk, limit } => {
                let was_stuck = self.is_stuck();
                self.uplink.disk_room.hear_answer(disk, limit, self.now.monotonic);
                if self.is_stuck() && !was_stuck {
                    tracing::warn!("the server's disk is full; changes wait until it has room");
                }
            }
            ToClient::Diverged { seq, errno } => return Err(Ending::Diverged { seq, errno }),
            ToClient::Arrived(head) => self.note_arrival(head),
            ToClient::Settled { delivery, state } => return Ok(self.conclude(delivery, state)),
            ToClient::Users(users) => self.set_users(users.into_iter().collect()),
            ToClient::Quota(quota) => self.replica.table.set_quota(quota),
            ToClient::Ids(range) => {
                if !self.uplink.numbers.add(range) {
                    return Err(Ending::Misbehaved("granted numbers that cannot be"));
                }
            }
            ToClient::Pong => {
                let now = self.now.monotonic;
                let heartbeat = &mut self.uplink.heartbeat;
                heartbeat.round_trip =
                    heartbeat.pinged.take().map(|pinged| now.saturating_duration_since(pinged));
            }
            ToClient::Drain { reason, .. } => match reason.into() {
                LastWords::Over(ending) => return Ok(Then::Drain(ending)),
                LastWords::Lost(LinkLoss::TakenOver { host, address }) => {
                    self.note_wanted(Some(Holder { host, address }));
                    return Ok(Then::Leave);
                }
                LastWords::Lost(_) => self.hold(),
            },
            ToClient::Wanted { host, address } => {
                self.note_wanted(Some(Holder { host, address }));
                return Ok(Then::HandOver);
            }
            ToClient::Ended(reason) => match reason.into() {
                LastWords::Over(ending) => return Err(ending),
                LastWords::Lost(loss) => return Ok(Then::Lost(loss)),
            },
        }
        Ok(Then::Nothing)
    }

    /// Takes in the final state of a delivery. One that left the inbox made room there, so drafts
    /// are tried again.
    pub(crate) fn conclude(&mut self, id: DeliveryId, state: DeliveryState) -> Then {
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

    /// Replaces the users that can be sent to. The outbox shows a mailbox for each.
    pub(in crate::core) fn set_users(&mut self, users: BTreeSet<Name>) {
        let outbox = &mut self.outbox;
        let changed = outbox.users.symmetric_difference(&users).cloned();
        self.notices.extend(changed.map(|name| Notice::Entry(Ino::OUTBOX, name)));
        self.notices.push(Notice::Contents(Ino::OUTBOX));
        outbox.users = users;
        outbox.users_changes += 1;
        // Deliveries that waited for a removed user were refused, so they are not known to be in
        // the inbox.
        outbox.deliveries.retain(|_, state| !matches!(state, DeliveryState::Sent(_)));
        // Drafts for a user who was added again can be sent.
        outbox.resend |= !outbox.drafts.is_empty();
    }
}
