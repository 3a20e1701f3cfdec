//! Reservations of room in inboxes, and how far they take room from other senders.
//!
//! A sender asks for room before it sends, so that it learns of a full inbox at once. The room
//! stays reserved until the delivery is committed. A sender must not be able to shut others out
//! that way. So the reservations of one sender take at most half of the room that is free when they are
//! made from others, however much those send meanwhile, and only for a while; a sender that lets one
//! lapse takes no room from others for some time. A sender's reservations always count against its
//! own next question.
//!
//! An engine with sole use of its store keeps reservations in memory. They outlive a link that breaks,
//! as the session does, but not the server: clients that come back can't tell which it was, so they
//! ask again. A reservation that is still here is replaced by that, not added to. If it is gone, and
//! others have taken the room by then, the file waits.
//!
//! **Invariant:** admitted deliveries fit the budget, whatever was reserved.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xfer_protocol::Ino;
use xfer_protocol::tree::{Quota, Usage};

use crate::AccountId;

/// How long room stays reserved for a send that does not come.
const KEPT_FOR: Duration = Duration::from_secs(5 * 60);

/// How long a sender takes no room from others after it let a reservation lapse.
const LAPSED_FOR: Duration = Duration::from_secs(20 * 60);

/// The most reservations of one sender at a time.
const KEPT_MAX: usize = 256;

/// The reserved room in all inboxes. A copy is cheap enough to be worked on and thrown away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inboxes {
    inboxes: BTreeMap<AccountId, Inbox>,
}

/// A delivery that is sent, or is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) from: AccountId,
    /// The node that is, or will become, its record.
    pub(crate) ino: Ino,
    pub(crate) to: AccountId,
    pub(crate) size: Usage,
}

/// The usage of an inbox, and its budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    pub(crate) used: Usage,
    pub(crate) budget: Quota,
}

impl Inboxes {
    /// Whether a delivery fits beside those that wait and those reserved; if so, its room is
    /// reserved.
    pub(crate) fn reserve(&mut self, sending: Sending, filling: Filling, now: Instant) -> bool {
        let inbox = self.inboxes.entry(sending.to).or_default();
        inbox.reserve((sending.from, sending.ino), sending.size, filling, now)
    }

    /// Whether a delivery that is sent fits. Its reservation is given up either way. The caller
    /// counts an admitted delivery as waiting from now on.
    pub(crate) fn admit(&mut self, sending: Sending, filling: Filling, now: Instant) -> bool {
        let Some(inbox) = self.inboxes.get_mut(&sending.to) else {
            return covers(left(filling), sending.size);
        };
        inbox.admit((sending.from, sending.ino), sending.size, filling, now)
    }

    /// Gives up the reservations of a sender whose session has ended.
    pub(crate) fn forget(&mut self, from: AccountId) {
        self.inboxes.retain(|_, inbox| {
            inbox.forget(from);
            !inbox.senders.is_empty()
        });
    }
}

/// The reserved room in one inbox.
#[derive(Clone, Debug, Default)]
struct Inbox {
    senders: BTreeMap<AccountId, Sender>,
}

/// The reservations of one sender, by the node to be sent.
#[derive(Clone, Debug, Default)]
struct Sender {
    kept: BTreeMap<Ino, Kept>,
    /// When a reservation lapsed, if that was not long ago.
    lapsed: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Kept {
    size: Usage,
    /// The part of it that others can't have.
    held: Usage,
    /// The time of the first request: asking again does not extend it.
    since: Instant,
}

impl Inbox {
    fn reserve(
        &mut self,
        (from, ino): (AccountId, Ino),
        size: Usage,
        filling: Filling,
        now: Instant,
    ) -> bool {
        self.expire(now);
        let free = self.free_beside(from, filling);
        let sender = self.senders.entry(from).or_default();
        let others = sender.kept.iter().filter(|(kept, _)| **kept != ino);
        let own = others.map(|(_, kept)| kept.size).fold(size, add);
        let fits = covers(free, own);
        let has_place = sender.kept.len() < KEPT_MAX || sender.kept.contains_key(&ino);
        if fits && has_place {
            let before = sender.kept.remove(&ino);
            let own = sender.held();
            let since = before.as_ref().map_or(now, |kept| kept.since);
            // Others may have taken the other half since it was asked for first.
            let first = before.map_or(Usage::default(), |kept| kept.held);
            let held = Usage {
                bytes: size.bytes.min(first.bytes.max((free.bytes / 2).saturating_sub(own.bytes))),
                nodes: size.nodes.min(first.nodes.max((free.nodes / 2).saturating_sub(own.nodes))),
            };
            sender.kept.insert(ino, Kept { size, held, since });
        }
        fits
    }

    fn admit(
        &mut self,
        (from, ino): (AccountId, Ino),
        size: Usage,
        filling: Filling,
        now: Instant,
    ) -> bool {
        self.expire(now);
        let kept = self.senders.get_mut(&from).and_then(|sender| sender.kept.remove(&ino));
        let is_kept = kept.is_some_and(|kept| covers(kept.size, size));
        // A reservation is honoured, unless others were promised the same room.
        let free = if is_kept { left(filling) } else { self.free_beside(from, filling) };
        covers(free, size)
    }

    fn forget(&mut self, from: AccountId) {
        if let Some(sender) = self.senders.get_mut(&from) {
            sender.kept.clear();
        }
        self.senders.retain(|_, sender| !sender.is_idle());
    }

    fn expire(&mut self, now: Instant) {
        for sender in self.senders.values_mut() {
            let count = sender.kept.len();
            sender.kept.retain(|_, kept| now.duration_since(kept.since) < KEPT_FOR);
            if sender.kept.len() < count {
                sender.lapsed = Some(now);
            }
            sender.lapsed = sender.lapsed.filter(|since| now.duration_since(*since) < LAPSED_FOR);
        }
        self.senders.retain(|_, sender| !sender.is_idle());
    }

    /// The free room for a sender, beside what is held for the others.
    fn free_beside(&self, from: AccountId, filling: Filling) -> Usage {
        let mut free = left(filling);
        for (other, sender) in &self.senders {
            if *other == from || sender.lapsed.is_some() {
                continue;
            }
            let held = sender.held();
            free.bytes = free.bytes.saturating_sub(held.bytes);
            free.nodes = free.nodes.saturating_sub(held.nodes);
        }
        free
    }
}

impl Sender {
    /// What others can't have because of it.
    fn held(&self) -> Usage {
        self.kept.values().map(|kept| kept.held).fold(Usage::default(), add)
    }

    fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.lapsed.is_none()
    }
}

/// The part of the budget that is still free.
fn left(Filling { used, budget }: Filling) -> Usage {
    Usage {
        bytes: budget.bytes.saturating_sub(used.bytes),
        nodes: budget.nodes.saturating_sub(used.nodes),
    }
}

fn covers(room: Usage, size: Usage) -> bool {
    size.bytes <= room.bytes && size.nodes <= room.nodes
}

fn add(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.saturating_add(other.bytes),
        nodes: one.nodes.saturating_add(other.nodes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ALICE: AccountId = AccountId(1);
    const BOB: AccountId = AccountId(3);
    const CAROL: AccountId = AccountId(2);
    const BUDGET: Quota = Quota { bytes: 1000, nodes: 100 };
    const EMPTY: Filling = with(0, 0);

    const fn with(bytes: u64, nodes: u64) -> Filling {
        Filling { used: Usage { bytes, nodes }, budget: BUDGET }
    }

    fn item(from: AccountId, ino: u64, bytes: u64) -> Sending {
        Sending { from, ino: Ino(ino), to: BOB, size: Usage { bytes, nodes: 1 } }
    }

    /// So long after the beginning.
    fn at(begun: Instant, minutes: u64) -> Instant {
        begun + Duration::from_secs(60 * minutes)
    }

    #[test]
    fn one_sender_can_fill_an_inbox_to_the_last_byte() {
        let (mut inboxes, now) = (Inboxes::default(), Instant::now());
        assert!(inboxes.reserve(item(ALICE, 1, 900), EMPTY, now));
        assert!(inboxes.reserve(item(ALICE, 2, 100), EMPTY, now));
        assert!(!inboxes.reserve(item(ALICE, 3, 1), EMPTY, now));
        // The same question again reserves nothing new.
        assert!(inboxes.reserve(item(ALICE, 1, 900), EMPTY, now));
        assert!(inboxes.admit(item(ALICE, 1, 900), EMPTY, now));
        assert!(inboxes.admit(item(ALICE, 2, 100), with(900, 1), now));
        assert!(!inboxes.admit(item(ALICE, 3, 1), with(1000, 2), now));
    }

    #[test]
    fn one_sender_keeps_no_more_than_half_from_the_others() {
        let (mut inboxes, now) = (Inboxes::default(), Instant::now());
        assert!(inboxes.reserve(item(ALICE, 1, 1000), EMPTY, now));
        assert!(!inboxes.reserve(item(CAROL, 1, 501), EMPTY, now));
        assert!(inboxes.reserve(item(CAROL, 1, 500), EMPTY, now));
        // The first to come is admitted; the budget holds.
        assert!(inboxes.admit(item(CAROL, 1, 500), EMPTY, now));
        assert!(!inboxes.admit(item(ALICE, 1, 1000), with(500, 1), now));
    }

    #[test]
    fn what_one_sender_keeps_is_not_taken_bit_by_bit() {
        let (mut inboxes, now) = (Inboxes::default(), Instant::now());
        assert!(inboxes.reserve(item(ALICE, 1, 500), EMPTY, now));
        let mut used = 0;
        while inboxes.admit(item(CAROL, 1, 10), with(used, 1), now) {
            used += 10;
        }
        assert_eq!(used, 500);
        // To ask again changes nothing, but a sender gets no second half by that.
        assert!(inboxes.reserve(item(ALICE, 1, 500), with(500, 1), now));
        assert!(!inboxes.reserve(item(CAROL, 1, 1), with(500, 1), now));
        assert!(inboxes.admit(item(ALICE, 1, 500), with(500, 1), now));
        let mut inboxes = Inboxes::default();
        for ino in 0..100 {
            assert!(inboxes.reserve(item(ALICE, ino, 10), EMPTY, now));
        }
        assert!(!inboxes.reserve(item(CAROL, 1, 501), EMPTY, now));
        assert!(inboxes.reserve(item(CAROL, 1, 500), EMPTY, now));
    }

    #[test]
    fn room_is_kept_for_minutes_and_cannot_be_renewed_for_ever() {
        let (mut inboxes, begun) = (Inboxes::default(), Instant::now());
        let mut kept_out = 0;
        for passed in 0..60 {
            let now = at(begun, passed);
            assert!(inboxes.reserve(item(ALICE, 1, 1000), EMPTY, now));
            if !inboxes.reserve(item(CAROL, 1, 501), EMPTY, now) {
                kept_out += 1;
            }
            inboxes.forget(CAROL);
        }
        assert!(kept_out <= 15, "{kept_out} minutes of an hour");
    }

    #[test]
    fn room_goes_with_what_it_was_for() {
        let (mut inboxes, now) = (Inboxes::default(), Instant::now());
        assert!(inboxes.reserve(item(ALICE, 1, 400), EMPTY, now));
        assert!(inboxes.reserve(item(ALICE, 2, 400), EMPTY, now));
        // The delivery is smaller than its reservation.
        assert!(inboxes.admit(item(ALICE, 1, 10), EMPTY, now));
        let used = with(10, 1);
        assert!(inboxes.reserve(item(CAROL, 1, 590), used, now));
        inboxes.forget(CAROL);
        inboxes.forget(ALICE);
        assert!(inboxes.reserve(item(CAROL, 1, 990), used, now));
        inboxes.forget(CAROL);
        assert!(inboxes.inboxes.is_empty());
    }

    #[test]
    fn what_is_kept_for_one_sender_has_a_bound_in_number() {
        let (mut inboxes, now) = (Inboxes::default(), Instant::now());
        for ino in 0..10_000 {
            let nothing = Sending { size: Usage::default(), ..item(ALICE, ino, 0) };
            inboxes.reserve(nothing, EMPTY, now);
        }
        assert_eq!(inboxes.inboxes[&BOB].senders[&ALICE].kept.len(), KEPT_MAX);
    }
}
