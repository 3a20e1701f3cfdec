//! The outbox: complete files and directories in a mailbox are sent to its user.
//!
//! Reading order: [`mailboxes`] (the directories), [`drafts`] (unsent nodes and the reasons: plain
//! data), [`temporary`] (names of incomplete files), [`rest`] and [`quiet`] (how long they are left alone
//! before they are sent), [`sending`], [`failures`] (how a file becomes
//! incomplete, and complete again), [`orders`] (of users), [`records`] (sent nodes), [`unsent`] (finding drafts and trying
//! them again).

mod mailboxes;
mod drafts;
mod temporary;
mod rest;
mod quiet;
mod sending;
mod failures;
mod orders;
mod records;
mod unsent;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use xfer_protocol::message::DeliveryState;
use xfer_protocol::{DeliveryId, Ino, Name};

pub(in crate::core) use drafts::Location;
pub(crate) use unsent::OutboxDue;

pub use drafts::Unsents;
pub use orders::Order;

use drafts::{Drafts, InboxRoom};
use rest::Touches;

/// The state of the outbox.
#[derive(Debug)]
pub(in crate::core) struct Outbox {
    pub(in crate::core) drafts: Drafts,
    /// Whether those of earlier sessions were found.
    are_drafts_found: bool,
    /// The users that can be sent to.
    pub(in crate::core) users: BTreeSet<Name>,
    /// The number of times that those changed.
    pub(in crate::core) users_changes: u64,
    /// The mailboxes that are known so far, and their users.
    pub(in crate::core) mailboxes: BTreeMap<Ino, Name>,
    /// The records of this session's deliveries, until their recipients have decided.
    pub(in crate::core) sent: BTreeMap<DeliveryId, Ino>,
    /// The states of deliveries, as far as they are known.
    pub(in crate::core) deliveries: BTreeMap<DeliveryId, DeliveryState>,
    /// The room reserved in inboxes for nodes that are about to be moved into a mailbox.
    pub(in crate::core) moving: BTreeMap<Ino, InboxRoom>,
    /// Whether a draft should be tried again soon.
    pub(in crate::core) resend: bool,
    /// Whether the drive was told so.
    resend_is_told: bool,
    /// When nodes were last touched, as long as there are drafts.
    touches: Touches,
    /// When the first of the drafts that began to rest may be sent, until the drive takes it.
    rested: Option<Instant>,
    /// Whether the drive was told so.
    rested_is_told: bool,
}

impl Outbox {
    /// Whether a draft is to be tried again soon and the drive was not told yet. A drive that is told
    /// each time would wake itself for ever.
    pub(in crate::core) fn tell_resend(&mut self) -> bool {
        let is_news = self.resend && !self.resend_is_told;
        self.resend_is_told |= is_news;
        is_news
    }

    /// Notes that a draft at rest may be sent at a time.
    fn rests_until(&mut self, until: Instant) {
        if self.rested.is_none_or(|rested| rested > until) {
            (self.rested, self.rested_is_told) = (Some(until), false);
        }
    }

    /// Whether a draft will have rested at a time that the drive was not told yet.
    pub(in crate::core) fn tell_rested(&mut self) -> bool {
        let is_news = self.rested.is_some() && !self.rested_is_told;
        self.rested_is_told = true;
        is_news
    }

    /// Clears `resend` and returns what it was.
    pub(in crate::core) fn take_resend(&mut self) -> bool {
        self.resend_is_told = false;
        std::mem::take(&mut self.resend)
    }

    /// Forgets what may have changed while there was no link: the states of deliveries that were not
    /// settled, and the room that was reserved in inboxes. The server still keeps that room, unless
    /// it was started again, so it is asked for again; that counts once. Drafts are tried again.
    pub(in crate::core) fn forget_news(&mut self) {
        let is_open = |state: &DeliveryState| {
            matches!(state, DeliveryState::Sent(_) | DeliveryState::Unknown)
        };
        self.deliveries.retain(|_, state| !is_open(state));
        self.drafts.forget_rooms();
        self.moving.clear();
        self.resend |= !self.drafts.is_empty();
    }

    /// Forgets everything but the users that can be sent to, since other sessions have changed the
    /// tree.
    pub(in crate::core) fn begin_again(&mut self, users: &[Name]) {
        let users_changes = self.users_changes + 1;
        *self = Outbox { users_changes, ..Outbox::new(users) };
    }

    /// An outbox without drafts, for the users that can be sent to.
    pub(in crate::core) fn new(users: &[Name]) -> Outbox {
        Outbox {
            drafts: Drafts::default(),
            are_drafts_found: false,
            users: users.iter().cloned().collect(),
            users_changes: 0,
            mailboxes: BTreeMap::new(),
            sent: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            moving: BTreeMap::new(),
            resend: false,
            resend_is_told: false,
            touches: Touches::default(),
            rested: None,
            rested_is_told: false,
        }
    }
}
