//! Room in one inbox: what is spoken for, and what of that keeps others out.
//!
//! A sender asks for room before it sends, so that a full inbox is told at once; the room is then
//! kept until what it is for is committed. That must not be a way to keep others out: so what one
//! sender has kept counts against others with half of what is free at most, for a while only, and
//! one that lets it lapse keeps nobody out for some time. What a sender has kept always counts
//! against its own next question.
//!
//! **Invariant:** what is admitted fits the budget, whoever had what kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use xfer_protocol::Ino;
use xfer_protocol::tree::{Quota, Usage};
use xfer_store::AccountId;

/// How long room is kept for a send that does not come.
const KEPT_FOR: Duration = Duration::from_secs(5 * 60);

/// How long a sender keeps nobody out after it let room lapse.
const LAPSED_FOR: Duration = Duration::from_secs(20 * 60);

/// For how many sends of one sender room is kept at a time.
const KEPT_MAX: usize = 256;

/// Room in an inbox that is spoken for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    senders: HashMap<AccountId, Sender>,
    /// What was admitted and is being committed.
    admitted: Usage,
}

/// What is kept for a sender, by what is to be sent.
#[derive(Debug, Default)]
struct Sender {
    kept: HashMap<Ino, Kept>,
    /// Until when it keeps nobody out.
    lapsed_until: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    size: Usage,
    /// When it was first asked for: asking again makes it last no longer.
    since: Instant,
}

impl Inbox {
    /// Whether something fits beside what waits (`used`) and what is spoken for; then it is kept.
    pub(super) fn reserve(
        &mut self,
        (from, ino): (AccountId, Ino),
        size: Usage,
        (used, budget): (Usage, Quota),
        now: Instant,
    ) -> bool {
        self.expire(now);
        let free = self.free_beside(from, used, budget, now);
        let sender = self.senders.entry(from).or_default();
        let others = sender.kept.iter().filter(|(kept, _)| **kept != ino);
        let own = others.map(|(_, kept)| kept.size).fold(size, add);
        let fits = covers(free, own);
        let has_place = sender.kept.len() < KEPT_MAX || sender.kept.contains_key(&ino);
        if fits && has_place {
            let since = sender.kept.get(&ino).map_or(now, |kept| kept.since);
            sender.kept.insert(ino, Kept { size, since });
        }
        fits
    }

    /// Whether something that is sent fits; then it counts until [`Inbox::release_admitted`]. What
    /// was kept for it is given up either way.
    pub(super) fn admit(
        &mut self,
        (from, ino): (AccountId, Ino),
        size: Usage,
        (used, budget): (Usage, Quota),
        now: Instant,
    ) -> bool {
        self.expire(now);
        let kept = self.senders.get_mut(&from).and_then(|sender| sender.kept.remove(&ino));
        let is_kept = kept.is_some_and(|kept| covers(kept.size, size));
        // What was promised is kept, unless others were promised the same.
        let free = match is_kept {
            true => left(used, self.admitted, budget),
            false => self.free_beside(from, used, budget, now),
        };
        let fits = covers(free, size);
        if fits {
            self.admitted = add(self.admitted, size);
        }
        fits
    }

    /// What was admitted is counted by the store now, or did not come to be.
    pub(super) fn release_admitted(&mut self) {
        self.admitted = Usage::default();
    }

    /// Gives up what a sender had kept: its session is over.
    pub(super) fn forget(&mut self, from: AccountId) {
        if let Some(sender) = self.senders.get_mut(&from) {
            sender.kept.clear();
        }
        self.senders.retain(|_, sender| !sender.is_idle());
    }

    /// Whether nothing has to be remembered of it.
    pub(super) fn is_empty(&self) -> bool {
        self.senders.is_empty() && self.admitted == Usage::default()
    }

    fn expire(&mut self, now: Instant) {
        for sender in self.senders.values_mut() {
            let count = sender.kept.len();
            sender.kept.retain(|_, kept| now.duration_since(kept.since) < KEPT_FOR);
            if sender.kept.len() < count {
                sender.lapsed_until = Some(now + LAPSED_FOR);
            }
            sender.lapsed_until = sender.lapsed_until.filter(|until| *until > now);
        }
        self.senders.retain(|_, sender| !sender.is_idle());
    }

    /// What is free for a sender, beside what others have kept: each of them at most half of what
    /// the others leave.
    fn free_beside(&self, from: AccountId, used: Usage, budget: Quota, now: Instant) -> Usage {
        let mut free = left(used, self.admitted, budget);
        for (other, sender) in &self.senders {
            let lapsed = sender.lapsed_until.is_some_and(|until| until > now);
            if *other == from || lapsed {
                continue;
            }
            let kept = sender.kept.values().map(|kept| kept.size).fold(Usage::default(), add);
            free.bytes -= kept.bytes.min(free.bytes / 2);
            free.nodes -= kept.nodes.min(free.nodes / 2);
        }
        free
    }
}

impl Sender {
    fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.lapsed_until.is_none()
    }
}

/// What a budget leaves beside what waits and what is about to.
fn left(used: Usage, admitted: Usage, budget: Quota) -> Usage {
    let taken = add(used, admitted);
    Usage {
        bytes: budget.bytes.saturating_sub(taken.bytes),
        nodes: budget.nodes.saturating_sub(taken.nodes),
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
mod tests {
    use super::*;

    const ALICE: AccountId = AccountId(1);
    const CAROL: AccountId = AccountId(2);
    const BUDGET: Quota = Quota { bytes: 1000, nodes: 100 };
    const EMPTY: (Usage, Quota) = (Usage { bytes: 0, nodes: 0 }, BUDGET);

    fn bytes(bytes: u64) -> Usage {
        Usage { bytes, nodes: 1 }
    }

    #[test]
    fn one_sender_can_fill_an_inbox_to_the_last_byte() {
        let (mut inbox, now) = (Inbox::default(), Instant::now());
        assert!(inbox.reserve((ALICE, Ino(1)), bytes(900), EMPTY, now));
        assert!(inbox.reserve((ALICE, Ino(2)), bytes(100), EMPTY, now));
        assert!(!inbox.reserve((ALICE, Ino(3)), bytes(1), EMPTY, now));
        // Asking for the same once more asks for nothing new.
        assert!(inbox.reserve((ALICE, Ino(1)), bytes(900), EMPTY, now));
        assert!(inbox.admit((ALICE, Ino(1)), bytes(900), EMPTY, now));
        assert!(inbox.admit((ALICE, Ino(2)), bytes(100), EMPTY, now));
        assert!(!inbox.admit((ALICE, Ino(3)), bytes(1), EMPTY, now));
    }

    #[test]
    fn one_sender_keeps_no_more_than_half_from_the_others() {
        let (mut inbox, now) = (Inbox::default(), Instant::now());
        assert!(inbox.reserve((ALICE, Ino(1)), bytes(1000), EMPTY, now));
        assert!(!inbox.reserve((CAROL, Ino(1)), bytes(501), EMPTY, now));
        assert!(inbox.reserve((CAROL, Ino(1)), bytes(500), EMPTY, now));
        // Who comes first is let in; the budget is kept.
        assert!(inbox.admit((CAROL, Ino(1)), bytes(500), EMPTY, now));
        assert!(!inbox.admit((ALICE, Ino(1)), bytes(1000), EMPTY, now));
    }

    #[test]
    fn room_is_kept_for_minutes_and_cannot_be_renewed_for_ever() {
        let (mut inbox, start) = (Inbox::default(), Instant::now());
        let mut kept_out = Duration::ZERO;
        let minute = Duration::from_secs(60);
        for passed in 0..60 {
            let now = start + passed * minute;
            assert!(inbox.reserve((ALICE, Ino(1)), bytes(1000), EMPTY, now));
            if !inbox.reserve((CAROL, Ino(1)), bytes(501), EMPTY, now) {
                kept_out += minute;
            }
            inbox.forget(CAROL);
        }
        assert!(kept_out <= 15 * minute, "{kept_out:?} of an hour");
    }

    #[test]
    fn room_goes_with_what_it_was_for() {
        let (mut inbox, now) = (Inbox::default(), Instant::now());
        assert!(inbox.reserve((ALICE, Ino(1)), bytes(400), EMPTY, now));
        assert!(inbox.reserve((ALICE, Ino(2)), bytes(400), EMPTY, now));
        // It became smaller than what was asked for.
        assert!(inbox.admit((ALICE, Ino(1)), bytes(10), EMPTY, now));
        inbox.release_admitted();
        let used = (bytes(10), BUDGET);
        assert!(inbox.reserve((CAROL, Ino(1)), bytes(590), used, now));
        inbox.forget(CAROL);
        inbox.forget(ALICE);
        assert!(inbox.reserve((CAROL, Ino(1)), bytes(990), used, now));
        inbox.forget(CAROL);
        assert!(inbox.is_empty());
    }

    #[test]
    fn what_is_kept_for_one_sender_has_a_bound_in_number() {
        let (mut inbox, now) = (Inbox::default(), Instant::now());
        for ino in 0..10_000 {
            inbox.reserve((ALICE, Ino(ino)), Usage::default(), EMPTY, now);
        }
        assert_eq!(inbox.senders[&ALICE].kept.len(), KEPT_MAX);
    }
}
