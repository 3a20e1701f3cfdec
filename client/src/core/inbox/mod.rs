//! The inbox: deliveries from other users appear at `inbox/<sender>/<name>`.

mod numbering;
mod arrivals;

use std::collections::{BTreeMap, VecDeque};

use xfer_protocol::Name;
use xfer_protocol::message::DeliveryHead;

/// All that is known of deliveries to this user.
#[derive(Debug)]
pub(in crate::core) struct Inbox {
    /// Deliveries that wait to be placed, in the order in which they are tried.
    pub(in crate::core) waiting: VecDeque<DeliveryHead>,
    /// The last number that was used for a name, by its sender and name.
    pub(in crate::core) numbered: BTreeMap<(Name, Name), u32>,
}

impl Inbox {
    pub(in crate::core) fn new(waiting: &[DeliveryHead]) -> Inbox {
        Inbox { waiting: waiting.iter().cloned().collect(), numbered: BTreeMap::new() }
    }
}
