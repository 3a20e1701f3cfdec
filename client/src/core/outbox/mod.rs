//! The outbox: what stands in a mailbox is sent once it is complete.
//!
//! Reading order: [`mailboxes`] (the directories), [`drafts`] (what was not sent, and why: plain data),
//! [`temporary`] (names of files that are not complete), [`sending`], [`failures`] (what makes a file
//! incomplete), [`records`] (what was sent), [`unsent`] (what is tried again).

mod mailboxes;
mod drafts;
mod temporary;
mod sending;
mod failures;
mod records;
mod unsent;

use std::collections::{BTreeMap, BTreeSet};

use xfer_protocol::message::DeliveryState;
use xfer_protocol::{DeliveryId, Ino, Name};

pub(in crate::core) use drafts::Location;
pub(crate) use unsent::OutboxDue;

pub use drafts::Unsents;

use drafts::{Drafts, InboxRoom};

/// All that is known of the outbox.
#[derive(Debug)]
pub(in crate::core) struct Outbox {
    pub(in crate::core) drafts: Drafts,
    /// The users that can be sent to.
    pub(in crate::core) users: BTreeSet<Name>,
    /// How often those changed.
    pub(in crate::core) users_changes: u64,
    /// The mailboxes that were looked for so far, and their users.
    pub(in crate::core) mailboxes: BTreeMap<Ino, Name>,
    /// The records of what was sent in this session, until the recipient has decided.
    pub(in crate::core) sent: BTreeMap<DeliveryId, Ino>,
    /// The states of deliveries, as far as asked or told.
    pub(in crate::core) deliveries: BTreeMap<DeliveryId, DeliveryState>,
    /// Room in inboxes that was reserved for files about to be moved into a mailbox.
    pub(in crate::core) moving: BTreeMap<Ino, InboxRoom>,
    /// Whether a draft is to be tried again soon.
    pub(in crate::core) resend: bool,
}

impl Outbox {
    /// An outbox of which nothing is known but the users that can be sent to.
    pub(in crate::core) fn new(users: &[Name]) -> Outbox {
        Outbox {
            drafts: Drafts::default(),
            users: users.iter().cloned().collect(),
            users_changes: 0,
            mailboxes: BTreeMap::new(),
            sent: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            moving: BTreeMap::new(),
            resend: false,
        }
    }
}
