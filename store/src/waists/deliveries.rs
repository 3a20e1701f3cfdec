//! The waist for deliveries: those that wait in inboxes, the state of those that were sent, and
//! room that is reserved before a send.
//!
//! Deliveries are sent, accepted and declined in a commit. The commit also decides which of them
//! the inbox has no room for. A reservation lets the sender learn of a full inbox at once:
//! - A reservation lasts five minutes; asking again does not extend it.
//! - The reservations of one sender take at most half of the free room from others. A sender that
//!   lets one lapse takes no room from others for twenty minutes.
//! - A sender's reservations always count against its own next question.
//!
//! **Invariant:** committed deliveries fit the inbox, whatever was reserved.

use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::Usage;
use xfer_protocol::{DeliveryId, Epoch, Ino, Name};

use crate::{AccountId, Answer};

/// Deliveries, and reservations of room for them.
pub trait Deliveries: Send + Sync {
    /// The deliveries that wait to be accepted by this account, oldest first, each with its place
    /// in the order of arrival: at most `count`, after the place `after`.
    fn waiting(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Answer<'_, Vec<(u64, DeliveryHead)>>;

    /// The number of deliveries that wait, for all accounts together.
    fn count_waiting(&self) -> Answer<'_, u64>;

    /// The deliveries sent by this account that found no room and whose records still exist, sorted
    /// by number.
    fn without_room(&self, from: AccountId) -> Answer<'_, Vec<(DeliveryId, DeliveryState)>>;

    /// The state of a delivery that this account sent.
    fn state(&self, from: AccountId, id: DeliveryId) -> Answer<'_, DeliveryState>;

    /// Reserves room for a send, if there is enough.
    fn reserve(&self, reservation: Reservation) -> Answer<'_, Reserved>;

    /// Gives up the unused reservations of an account's sessions. Call it after the last of them
    /// has [ended](crate::Trees::end): a question that is still open then reserves nothing.
    fn release(&self, from: AccountId) -> Answer<'_, ()>;
}

/// A request to reserve room in an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The account that wants to send.
    pub from: AccountId,
    /// The epoch of the session that asks.
    pub epoch: Epoch,
    /// The name of the recipient.
    pub to: Name,
    /// The node to be sent, which becomes the delivery's record.
    pub ino: Ino,
    /// The room that the delivery takes.
    pub size: Usage,
}

/// The answer to a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// There is room, and it is reserved.
    Kept,
    /// There is not enough room.
    Full,
    /// There is no such user, or the recipient is the sender.
    NoUser,
    /// The session that asks has ended.
    Over,
}
