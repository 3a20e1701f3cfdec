//! Why an attempt did not finish: it was refused, or has to wait for something.

use xfer_protocol::tree::{Need, PlanError};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

/// Why an attempt did not finish. Its changes so far are idempotent, so it can be made again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The operation fails.
    Refused(Errno),
    /// The attempt is made again once this has happened.
    Pause(Pause),
}

/// Why an attempt can't be answered yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pause {
    /// These rows must be loaded.
    Rows(Vec<Need>),
    /// The fetches with these numbers must end.
    Data(Vec<u64>),
    /// An op must become durable, the server must grant something, or the log must get shorter.
    Progress,
    /// The client must get the account's seat, which another one may have.
    Seat,
    /// Room in another user's inbox must be reserved.
    Reservation(Reservation),
    /// The server must be asked for the state of a delivery.
    Delivery(DeliveryId),
}

/// Room in an inbox that must be reserved before a send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The file or directory to be sent.
    pub(crate) ino: Ino,
    /// The recipient.
    pub(crate) to: Name,
    /// The room that it takes, in bytes.
    pub(crate) bytes: u64,
    /// The number of its items, counting itself.
    pub(crate) items: u32,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Refused(errno)
    }
}

impl From<Pause> for Stop {
    fn from(pause: Pause) -> Stop {
        Stop::Pause(pause)
    }
}

impl From<PlanError> for Stop {
    fn from(stop: PlanError) -> Stop {
        match stop {
            PlanError::Need(need) => Pause::Rows(vec![need]).into(),
            PlanError::Refused(errno) => Stop::Refused(errno),
        }
    }
}
