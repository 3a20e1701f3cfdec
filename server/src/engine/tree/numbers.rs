//! The numbers that a session may use for new nodes, contents and deliveries.
//!
//! **Invariant:** a number names one thing on a server for ever: it is used only if it was granted
//! to this session, and only once. The rules rely on this: they take a number without a loaded row
//! for an unused one.
//!
//! Numbers are used in order: those of an op are greater than those of every op before. So one
//! number, the end of the used ones, is enough to know which are free. Numbers may be skipped.

use std::collections::VecDeque;

use xfer_protocol::limits::ID_RANGES_MAX;
use xfer_protocol::tree::{Changes, ContentEffect, DeliveryEffect, Loaded, Rows};
use xfer_protocol::{Errno, IdRange};

/// The numbers that are granted to a session and not used.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    /// In order, as the store grants them.
    granted: VecDeque<IdRange>,
    /// All smaller numbers are used or skipped.
    next: u64,
}

impl Numbers {
    pub(crate) fn new(range: IdRange) -> Numbers {
        Numbers { granted: [range].into(), next: range.first }
    }

    /// The numbers of a session that is resumed: the ranges in order, and the end of those that its
    /// durable ops used or skipped.
    pub(crate) fn resumed(granted: Vec<IdRange>, next: u64) -> Numbers {
        let left = granted.into_iter().filter(|range| range.end > next);
        Numbers { granted: left.collect(), next }
    }

    /// The ranges that are not used up, for the grant to the client.
    pub(crate) fn granted(&self) -> Vec<IdRange> {
        self.granted.iter().copied().collect()
    }

    /// All smaller numbers are used or skipped.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Whether the session may be granted more numbers before it uses those that it has.
    pub(crate) fn may_grow(&self) -> bool {
        self.granted.len() < ID_RANGES_MAX
    }

    pub(crate) fn grow(&mut self, range: IdRange) {
        self.granted.push_back(range);
    }

    /// Whether the number may still be used.
    pub(crate) fn is_free(&self, id: u64) -> bool {
        id >= self.next && self.granted.iter().any(|range| range.contains(id))
    }

    /// Uses the numbers of everything that `changes` create, or none of them if one can't be used.
    pub(crate) fn admit(&mut self, rows: &dyn Rows, changes: &Changes) -> Result<(), Errno> {
        self.use_up(new_ids(rows, changes).collect())
    }

    /// Uses an op's numbers, which may come in any order.
    fn use_up(&mut self, mut new: Vec<u64>) -> Result<(), Errno> {
        new.sort_unstable();
        let is_twice = new.windows(2).any(|pair| pair[0] == pair[1]);
        if is_twice || !new.iter().all(|id| self.is_free(*id)) {
            return Err(Errno::EINVAL);
        }
        if let Some(last) = new.last() {
            self.next = last + 1;
            self.granted.retain(|range| range.end > self.next);
        }
        Ok(())
    }
}

/// Lists the numbers that `changes` use for the first time. An existing node was loaded before the
/// rules changed it, so every other node is new.
fn new_ids<'a>(rows: &'a dyn Rows, changes: &'a Changes) -> impl Iterator<Item = u64> + 'a {
    let nodes = changes
        .nodes
        .iter()
        .filter(|(ino, node)| node.is_some() && !matches!(rows.node(*ino), Loaded::Present(_)))
        .map(|(ino, _)| ino.0);
    let contents = changes.contents.iter().filter_map(|effect| match effect {
        ContentEffect::Create { content } | ContentEffect::Clone { to: content, .. } => {
            Some(content.0)
        }
        ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Copy { .. }
        | ContentEffect::Free { .. } => None,
    });
    let deliveries = changes.deliveries.iter().filter_map(|effect| match effect {
        DeliveryEffect::Sent { delivery, .. } => Some(delivery.id.0),
        DeliveryEffect::Accepted(_) | DeliveryEffect::Declined(_) => None,
    });
    nodes.chain(contents).chain(deliveries)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LEN: u64 = 100;

    fn range(at: u64) -> IdRange {
        IdRange { first: at * LEN, end: (at + 1) * LEN }
    }

    #[test]
    fn numbers_are_granted_for_ever_and_take_no_room_once_they_are_used() {
        let mut ids = Numbers::new(range(1));
        for at in 1..5_000 {
            assert!(ids.may_grow(), "after {at} ranges");
            ids.grow(range(at + 1));
            for id in (at * LEN..(at + 1) * LEN).step_by(2) {
                ids.use_up(vec![id]).unwrap();
            }
            assert!(ids.granted.len() <= 2);
        }
    }

    #[test]
    fn what_is_granted_and_not_used_has_a_bound() {
        let mut ids = Numbers::new(range(1));
        for at in 1..ID_RANGES_MAX as u64 {
            assert!(ids.may_grow());
            ids.grow(range(at + 1));
        }
        assert!(!ids.may_grow());
        ids.use_up(vec![2 * LEN - 1]).unwrap();
        assert!(ids.may_grow());
    }

    #[test]
    fn a_number_is_used_once_and_none_that_was_passed_over_or_not_granted() {
        let mut ids = Numbers::new(range(1));
        ids.use_up(vec![105, 103]).unwrap();
        for wrong in [vec![103], vec![104], vec![105], vec![106, 106], vec![106, 200], vec![99]] {
            assert_eq!(ids.use_up(wrong.clone()), Err(Errno::EINVAL), "{wrong:?}");
        }
        ids.use_up(vec![106]).unwrap();
        ids.use_up(Vec::new()).unwrap();
    }
}
