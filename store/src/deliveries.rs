//! The waist for deliveries: what waits in inboxes, what became of what was sent, and room that is
//! promised before a send.
//!
//! Deliveries are sent, accepted and declined in a commit, which also decides what an inbox has no room
//! for. Room is promised so that a full inbox is told at once:
//! - It is kept for five minutes; asking again makes it last no longer.
//! - What one sender has kept counts against others with half of what is free at most. One that lets it
//!   lapse keeps nobody out for twenty minutes.
//! - It always counts against the sender's own next question.
//!
//! **Invariant:** what is committed fits the inbox, whoever was promised what.

use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::Usage;
use xfer_protocol::{DeliveryId, Epoch, Ino, Name, Timestamp};

use crate::{AccountId, Answer};

/// Deliveries, and room for them.
pub trait Deliveries: Send + Sync {
    /// The deliveries that wait to be accepted by this account, oldest first, each with its place in
    /// the order of arrivals: at most `count`, after the place `after`.
    fn waiting(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Answer<'_, Vec<(u64, DeliveryHead)>>;

    /// The deliveries of this account that there was no room for, and whose records are still there, in
    /// order of their numbers.
    fn without_room(&self, from: AccountId) -> Answer<'_, Vec<(DeliveryId, DeliveryState)>>;

    /// What became of a delivery that this account sent.
    fn state(&self, from: AccountId, id: DeliveryId) -> Answer<'_, DeliveryState>;

    /// Promises room for something that is to be sent, if there is enough.
    fn reserve(&self, reservation: Reservation) -> Answer<'_, Reserved>;

    /// Gives up what an account's sessions were promised and did not use. To be said after the last of
    /// them has [ended](crate::Trees::end): what it asked for before and is answered later is not kept.
    fn release(&self, from: AccountId) -> Answer<'_, ()>;
}

/// A question for room in an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// Whose session asks.
    pub from: AccountId,
    /// Which of its sessions.
    pub epoch: Epoch,
    /// To whom.
    pub to: Name,
    /// What is to be sent: the node that will be its record.
    pub ino: Ino,
    /// What it takes up.
    pub size: Usage,
    /// Now.
    pub time: Timestamp,
}

/// What becomes of a question for room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// There is room, and it is kept.
    Kept,
    /// There is not.
    Full,
    /// There is no such user, or it is the sender.
    NoUser,
    /// The session that asks is over.
    Over,
}
