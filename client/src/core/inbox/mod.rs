//! The inbox: deliveries from other users appear at `inbox/<sender>/<name>`.
//!
//! The drive tends it: it fetches a delivery and asks for a free name. With a mount, the kernel's
//! rename to that name accepts the delivery; without one, the drive accepts it.

mod numbering;
mod arrivals;

use std::collections::{BTreeMap, VecDeque};

use xfer_protocol::Name;
use xfer_protocol::message::DeliveryHead;

/// The deliveries that wait to be placed.
#[derive(Debug)]
pub(in crate::core) struct Inbox {
    /// Deliveries that wait to be placed, in the order in which they are tried.
    pub(in crate::core) waiting: VecDeque<DeliveryHead>,
    /// The last number that was used for a name, by the sender and the name that was sent.
    pub(in crate::core) numbered: BTreeMap<(Name, Name), u32>,
    /// Rises whenever something may have arrived, at another client too.
    pub(in crate::core) news: u64,
}

impl Inbox {
    pub(in crate::core) fn new(waiting: &[DeliveryHead]) -> Inbox {
        let waiting = waiting.iter().cloned().collect();
        Inbox { waiting, numbered: BTreeMap::new(), news: 0 }
    }

    /// The inbox after other clients have had the seat.
    pub(in crate::core) fn begin_again(&mut self, waiting: &[DeliveryHead]) {
        *self = Inbox { news: self.news + 1, ..Inbox::new(waiting) };
    }
}
