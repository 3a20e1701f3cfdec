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
    /// All smaller numbers are used or skipped.
    next: u64,
    /// More were asked for, and have not come yet.
    asked: bool,
}

impl Numbers {
    pub(in crate::core) fn new(ranges: &[IdRange]) -> Numbers {
        Numbers { ranges: ranges.iter().copied().collect(), next: 0, asked: false }
    }

    /// Takes over the ranges that the server says are left, without the numbers that this side has
    /// used since. The answer to a question for more may be among them.
    pub(in crate::core) fn resume(&mut self, ranges: &[IdRange]) {
        self.ranges = ranges.iter().copied().collect();
        self.use_up(self.next, 0);
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
        self.next = next;
        self.ranges.retain_mut(|range| {
            range.first = range.first.max(next);
            range.first < range.end
        });
    }

    /// Adds a granted range. False if a server may not grant it, since ranges only rise.
    pub(in crate::core) fn add(&mut self, range: IdRange) -> bool {
        let newest = self.ranges.back().map_or(Ino::FIRST_GRANTED, |last| last.end);
        let possible = follows(newest, range);
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

/// Whether a server may grant these ranges: each is after the one before.
pub(crate) fn can_be_granted(ranges: &[IdRange]) -> bool {
    let mut end = Ino::FIRST_GRANTED;
    ranges.iter().all(|range| follows(std::mem::replace(&mut end, range.end), *range))
}

fn follows(end: u64, range: IdRange) -> bool {
    end <= range.first && range.first <= range.end && range.end - range.first <= IDS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_in_order_though_a_run_does_not_fit_what_is_left() {
        let mut numbers = Numbers::new(&[IdRange { first: 5000, end: 5010 }]);
        assert!(numbers.add(IdRange { first: 7000, end: 8000 }));
        assert_eq!(numbers.next_run(5), Some(5000));
        assert_eq!(numbers.next_run(50), Some(7000));
        numbers.use_up(7000, 50);
        assert_eq!(numbers.next_run(1), Some(7050));
    }

    #[test]
    fn no_number_is_used_again_after_the_server_has_said_which_are_left() {
        let range = |first| IdRange { first, end: first + 10 };
        let mut numbers = Numbers::new(&[range(5000)]);
        numbers.use_up(5004, 1);
        // Its answer to the question for more was lost.
        numbers.note_asked();
        numbers.rewind();
        numbers.resume(&[range(5000), range(7000)]);
        assert_eq!(numbers.next_run(1), Some(5005));
        numbers.use_up(5005, 5);
        assert_eq!(numbers.next_run(1), Some(7000));
        numbers.resume(&[range(5000)]);
        assert_eq!(numbers.next_run(1), None);
    }

    #[test]
    fn ranges_that_overlap_or_fall_can_not_be_granted() {
        let range = |first, end| IdRange { first, end };
        assert!(can_be_granted(&[range(5000, 5010), range(5010, 5020)]));
        assert!(!can_be_granted(&[range(5000, 5010), range(5009, 5020)]));
        assert!(!can_be_granted(&[range(5010, 5000)]));
        assert!(!can_be_granted(&[range(1, 5000)]));
        assert!(!can_be_granted(&[range(5000, 5001 + IDS_MAX)]));
    }
}
