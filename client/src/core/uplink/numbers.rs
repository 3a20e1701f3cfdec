//! Numbers that the server granted for new nodes, contents and deliveries.
//!
//! **Invariant:** numbers are used in rising order, so none is used twice.

use std::collections::VecDeque;

use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::{IdRange, Ino};

/// More numbers are asked for when fewer than this are left.
const LOW: u64 = 1 << 17;

/// Granted ranges, used up in order.
#[derive(Debug)]
pub(in crate::core) struct Numbers {
    ranges: VecDeque<IdRange>,
    /// More were asked for, and have not come yet.
    asked: bool,
}

impl Numbers {
    pub(in crate::core) fn new(range: IdRange) -> Numbers {
        Numbers { ranges: [range].into(), asked: false }
    }

    /// The first of `count` consecutive numbers, if one range has as many. The ranges before it are
    /// skipped.
    pub(in crate::core) fn next_run(&self, count: u64) -> Option<u64> {
        let fits = |range: &&IdRange| range.end - range.first >= count;
        self.ranges.iter().find(fits).map(|range| range.first)
    }

    /// Uses up numbers, and with them all lower ones.
    pub(in crate::core) fn use_up(&mut self, first: u64, count: u64) {
        let next = first + count;
        self.ranges.retain_mut(|range| {
            range.first = range.first.max(next);
            range.first < range.end
        });
    }

    /// Adds a granted range. False if a server may not grant it, since ranges only rise.
    pub(in crate::core) fn add(&mut self, range: IdRange) -> bool {
        let newest = self.ranges.back().map_or(Ino::FIRST_GRANTED, |last| last.end);
        let possible =
            newest <= range.first && range.first <= range.end && range.end - range.first <= IDS_MAX;
        if possible {
            self.asked = false;
            self.ranges.push_back(range);
        }
        possible
    }

    /// Whether more should be asked for.
    pub(in crate::core) fn are_low(&self) -> bool {
        let left: u64 = self.ranges.iter().map(|range| range.end - range.first).sum();
        left < LOW && !self.asked
    }

    /// Notes that more were asked for.
    pub(in crate::core) fn note_asked(&mut self) {
        self.asked = true;
    }

    /// Forgets that more were asked for: the link broke before the answer.
    pub(in crate::core) fn rewind(&mut self) {
        self.asked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_in_order_though_a_run_does_not_fit_what_is_left() {
        let mut numbers = Numbers::new(IdRange { first: 5000, end: 5010 });
        assert!(numbers.add(IdRange { first: 7000, end: 8000 }));
        assert_eq!(numbers.next_run(5), Some(5000));
        assert_eq!(numbers.next_run(50), Some(7000));
        numbers.use_up(7000, 50);
        assert_eq!(numbers.next_run(1), Some(7050));
    }
}
