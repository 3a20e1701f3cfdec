//! A link that is lost, and the next one, over which the session goes on.
//!
//! **Invariant:** ops up to the one that the server has applied are durable, and are never sent
//! again. All later ones are sent over the new link, in order. So each has its effect exactly once.

use std::time::{Duration, Instant};

use xfer_protocol::DeliveryId;
use xfer_protocol::Seq;
use xfer_protocol::message::{Grant, Refusal};

use super::seat::Holder;
use crate::core::link::{Ending, Link, LinkLoss};
use crate::core::state::Core;
use crate::core::uplink::{Astray, can_be_granted};

impl Core {
    /// Notes that the link was lost. All ops that are not durable are sent over the next one, even
    /// if they were sent before. False if it was lost already.
    pub(crate) fn lose_link(&mut self, loss: LinkLoss) -> bool {
        let is_news = self.session.is_up();
        if is_news {
            let (since, trouble, next_try) = (self.now.monotonic, None, None);
            if loss == LinkLoss::DiskFull {
                self.uplink.disk_room.note_full(since);
            }
            self.session.link = Link::Down { since, loss, trouble, next_try };
            self.session.holding = false;
            self.follow_loss();
            self.uplink.rewind();
        }
        is_news
    }

    /// Keeps the seat with the session, unless the link was lost because another client has it.
    fn follow_loss(&mut self) {
        let Link::Down { loss, .. } = &self.session.link else { return };
        match loss {
            LinkLoss::TakenOver { host, address } => {
                let (host, address) = (host.clone(), address.clone());
                self.note_holder(Holder { host, address });
                self.lose_seat();
            }
            LinkLoss::Yielded => self.lose_seat(),
            LinkLoss::Closed
            | LinkLoss::Silent
            | LinkLoss::Stopping
            | LinkLoss::DiskFull
            | LinkLoss::Unheard { .. }
            | LinkLoss::Asleep
            | LinkLoss::Moved
            | LinkLoss::Continued
            | LinkLoss::Broken(_) => self.stay(),
        }
    }

    /// Notes why the server was not reached, and when the next try is.
    pub(crate) fn note_try(&mut self, why: Option<String>, next: Option<Instant>) {
        match &mut self.session.link {
            Link::Down { trouble, next_try, .. } => {
                *trouble = why.or(trouble.take());
                *next_try = next;
            }
            Link::Up | Link::Over(_) => {}
        }
    }

    /// The moment after a pause from now.
    pub(crate) fn now_after(&self, pause: Duration) -> Instant {
        self.now.monotonic + pause
    }

    /// The last op that is known to be durable.
    pub(crate) fn durable(&self) -> Seq {
        self.uplink.log.durable()
    }

    /// Goes on over a new link. An error ends the session; nothing has changed then.
    pub(crate) fn resume(&mut self, grant: &Grant) -> Result<(), Ending> {
        self.may_go_on(grant)?;
        self.must_fit(grant.applied)?;
        self.session.link = Link::Up;
        self.uplink.resume(grant, self.now.monotonic);
        self.replica.table.mark_durable(grant.applied);
        self.data.cache.acknowledge(grant.applied);
        self.replica.table.set_quota(grant.quota);
        self.outbox.forget_news();
        let users = grant.users.iter().cloned().collect();
        if users != self.outbox.users {
            self.set_users(users);
        }
        grant.deliveries.iter().for_each(|head| self.note_arrival(head.clone()));
        if !self.has_seat() {
            self.take_seat();
        }
        Ok(())
    }

    /// Whether the session waits for a link, and this grant can be for it.
    pub(in crate::core) fn may_go_on(&self, grant: &Grant) -> Result<(), Ending> {
        match &self.session.link {
            Link::Down { .. } => {}
            // It ended while the server was asked.
            Link::Over(ending) => return Err(ending.clone()),
            Link::Up => return Err(Ending::Misbehaved("continued a session that has its link")),
        }
        if !can_be_granted(&grant.ids) {
            return Err(Ending::Misbehaved("granted numbers that cannot be"));
        }
        if grant.user != self.user {
            return Err(Ending::Misbehaved("continued another user's session"));
        }
        Ok(())
    }

    /// Whether the server can have applied the log up to this op, and no more of it.
    pub(in crate::core) fn must_fit(&self, applied: Seq) -> Result<(), Ending> {
        self.uplink.log.check(applied).map_err(|astray| match astray {
            Astray::Behind => Ending::Refused(Refusal::RolledBack),
            Astray::Ahead => Ending::Misbehaved("applied what it was not sent"),
        })
    }

    /// The deliveries whose recipients had not decided when the link was lost. Their states must be
    /// asked for, since news of them may have been lost too.
    pub(crate) fn undecided(&self) -> Vec<DeliveryId> {
        self.outbox.sent.keys().copied().collect()
    }

    /// Has changes wait until the link is down: the server is stopping, and all earlier changes are
    /// to become durable first.
    pub(in crate::core) fn hold(&mut self) {
        if self.takes_changes() {
            self.session.holding = true;
            self.uplink.barrier = self.uplink.log.last();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::core::tests::{core, grant};
    use crate::core::uplink::Outgoing;
    use xfer_protocol::IdRange;
    use xfer_protocol::message::{EndReason, ToClient};

    #[test]
    fn a_link_that_was_lost_leaves_the_session_and_its_changes() {
        let mut core = core();
        let down = core.now.monotonic;
        assert!(core.lose_link(LinkLoss::Silent));
        assert!(!core.lose_link(LinkLoss::Closed));
        assert!(matches!(
            &core.session.link,
            Link::Down { since, loss: LinkLoss::Silent, .. } if *since == down
        ));
        assert!(core.takes_changes());
        assert!(core.poll_outgoing().is_none(), "there is nothing to send it over");
        core.resume(&grant()).unwrap();
        assert_eq!(core.session.link, Link::Up);
    }

    #[test]
    fn a_server_that_can_not_be_the_one_of_before_is_not_trusted_with_the_log() {
        let mut core = core();
        core.lose_link(LinkLoss::Closed);
        let ahead = Grant { applied: Seq(1), ..grant() };
        assert!(matches!(core.resume(&ahead), Err(Ending::Misbehaved(_))));
        let ids = vec![IdRange { first: 7000, end: 6000 }];
        assert!(matches!(core.resume(&Grant { ids, ..grant() }), Err(Ending::Misbehaved(_))));
        assert!(!core.session.is_up());
    }

    #[test]
    fn a_session_that_ended_while_the_server_was_asked_stays_so() {
        let mut core = core();
        core.lose_link(LinkLoss::Closed);
        assert!(core.end(Ending::LoggedOut, "alice@host"));
        assert_eq!(core.resume(&grant()), Err(Ending::LoggedOut));
        assert!(!core.takes_changes());
    }

    #[test]
    fn a_server_that_stops_is_left_once_everything_is_durable_and_changes_wait_until_then() {
        let mut core = core();
        let words = ToClient::Drain { reason: EndReason::Stopping, deadline_ms: 1000 };
        core.handle_message(words).unwrap();
        assert!(core.takes_changes());
        assert!(core.session.holding);
        assert!(matches!(core.poll_outgoing(), Some(Outgoing::Message(_)) | Some(Outgoing::Close)));
        core.lose_link(LinkLoss::Stopping);
        assert!(!core.session.holding);
    }
}
