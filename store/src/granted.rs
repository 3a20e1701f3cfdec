//! The numbers that a session was granted, as the engines keep them for when it is resumed.

use xfer_protocol::IdRange;
use xfer_protocol::limits::ID_RANGES_MAX;

/// The most ranges that are kept. More would mean that as many millions of numbers were used by ops
/// that are not durable.
const RANGES_MAX: usize = 4 * ID_RANGES_MAX;

/// The ranges, without the numbers below `next_id`, which are used up.
pub(crate) fn left(granted: Vec<IdRange>, next_id: u64) -> Vec<IdRange> {
    let unused = |range: IdRange| IdRange { first: range.first.max(next_id), ..range };
    granted.into_iter().map(unused).filter(|range| range.first < range.end).collect()
}

/// Adds a range, and drops those that are used up.
pub(crate) fn with(granted: Vec<IdRange>, next_id: u64, range: IdRange) -> Vec<IdRange> {
    let mut granted = left(granted, next_id);
    granted.push(range);
    let surplus = granted.len().saturating_sub(RANGES_MAX);
    granted.drain(..surplus);
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_until_they_are_used_up_and_have_a_bound() {
        let range = |n: u64| IdRange { first: n * 10, end: (n + 1) * 10 };
        let two = with(vec![range(1)], 0, range(2));
        assert_eq!(two, [range(1), range(2)]);
        assert_eq!(left(two.clone(), 19), [IdRange { first: 19, end: 20 }, range(2)]);
        assert_eq!(left(two.clone(), 20), [range(2)]);
        assert_eq!(with(two, 20, range(3)), [range(2), range(3)]);
        let many = (1..1000).fold(Vec::new(), |granted, n| with(granted, 0, range(n)));
        assert_eq!((many.len(), many.last()), (RANGES_MAX, Some(&range(999))));
    }
}
