//! What a user orders for a draft: to send it as it is, or not to send it.
//!
//! An order is given by setting the draft's state (`user.xfer.state`), so any program on the mount can
//! give it, without a connection to the mount's process. All other values are refused as those of
//! other attributes in `user.xfer.` are, so that copies of a draft with its attributes are made.

use xfer_protocol::{Errno, Ino};

use super::drafts::{Location, Unsent};
use crate::core::pause::Stop;
use crate::core::state::Core;

/// An order for a draft.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Send it now, as it is.
    Send,
    /// Do not send it, until it is written again or its sending is ordered.
    Cancel,
}

impl Order {
    /// The attribute to set.
    pub const ATTRIBUTE: &str = "user.xfer.state";

    /// The value to set.
    pub fn value(self) -> &'static [u8] {
        match self {
            Order::Send => b"send",
            Order::Cancel => b"cancel",
        }
    }

    /// The order that a value gives, if it is one.
    pub fn of(value: &[u8]) -> Option<Order> {
        [Order::Send, Order::Cancel].into_iter().find(|order| order.value() == value)
    }
}

impl Core {
    /// Carries out an order.
    ///
    /// `EINVAL` if the node is not in a mailbox, `EEXIST` if it was sent, `EBUSY` if a program has it,
    /// or a file in it, open for writing; `EDQUOT` if the recipient's inbox is full: then it waits.
    pub(in crate::core) fn obey(&mut self, ino: Ino, order: Order) -> Result<(), Stop> {
        if !self.is_draft(ino) {
            if self.node(ino)?.sent.is_some() {
                return Err(Errno::EEXIST.into());
            }
            self.know_drafts()?;
        }
        let draft = self.outbox.drafts.get(ino).ok_or(Errno::EINVAL)?;
        let Location { name, .. } = draft.location.clone();
        let weight = self.weigh(ino, &name)?;
        if weight.is_written {
            return Err(Errno::EBUSY.into());
        }
        match order {
            Order::Send => {
                weight.torn.into_iter().for_each(|torn| self.outbox.drafts.mend(torn));
                self.outbox.drafts.mend(ino);
                self.outbox.drafts.make_due(ino);
                self.send_if_whole(ino)
            }
            Order::Cancel => {
                let newest = self.handles.newest();
                self.outbox.drafts.tear(ino, Unsent::Cancelled, newest);
                self.mark(ino)
            }
        }
    }
}
