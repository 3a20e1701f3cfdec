//! How far ahead of a reading program to fetch: a pure rule for each open file.
//!
//! It knows neither the file's size nor what is cached; its caller cuts the ranges to that.

use std::ops::Range;

use xfer_protocol::limits::BLOCK_BYTES;

/// The first window of a sequential reader, in bytes.
const WINDOW_BYTES_MIN: u64 = 256 << 10;

/// The largest window, in bytes: a quarter of a second at 1 Gbit/s.
const WINDOW_BYTES_MAX: u64 = 32 << 20;

/// The largest gap between sequential reads, in bytes. The kernel reads ahead too, and its requests
/// overtake each other.
const GAP_BYTES: u64 = 1 << 20;

/// The state of one reader.
#[derive(Debug, Default)]
pub(in crate::core) struct Readahead {
    /// Where the furthest read ended.
    end: u64,
    /// How far ahead to fetch, in bytes. 0 for a reader at random offsets.
    window: u64,
    reads: u64,
}

/// The ranges to fetch for a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) struct Plan {
    /// The range that the read needs, in whole blocks. No more is asked: a longer answer may take
    /// more than one round trip.
    pub(in crate::core) needed: Range<u64>,
    /// The range to fetch besides. The read does not wait for it.
    pub(in crate::core) ahead: Range<u64>,
}

impl Readahead {
    /// Notes a read of `range`, and returns the ranges to fetch. `bytes_max` is the memory that the
    /// cache can spare for this, in bytes.
    pub(in crate::core) fn plan(&mut self, range: Range<u64>, bytes_max: u64) -> Plan {
        let in_sequence = range.start <= self.end + GAP_BYTES && range.end + GAP_BYTES >= self.end;
        let advanced = range.end > self.end;
        if !in_sequence {
            self.window = 0;
        } else if advanced && self.reads > 0 {
            let max = WINDOW_BYTES_MAX.min(bytes_max).max(WINDOW_BYTES_MIN);
            // Not for the first read, since many programs look at the beginning of a file and no
            // further. Nor for a read that others have overtaken, which shows no progress.
            self.window = (self.window * 2).clamp(WINDOW_BYTES_MIN, max);
        }
        self.reads += 1;
        self.end = if in_sequence { self.end.max(range.end) } else { range.end };
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES);
        Plan { needed: start..end, ahead: end..end + self.window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_file_fetches_little() {
        let mut reader = Readahead::default();
        let plan = reader.plan(0..4096, u64::MAX);
        assert_eq!((plan.needed, plan.ahead.is_empty()), (0..BLOCK_BYTES, true));
    }

    #[test]
    fn a_reader_in_sequence_gets_a_growing_window() {
        let mut reader = Readahead::default();
        let windows: Vec<u64> = (0..12)
            .map(|n| reader.plan(n * 131_072..(n + 1) * 131_072, u64::MAX).ahead)
            .map(|ahead| ahead.end - ahead.start)
            .collect();
        assert!(windows.is_sorted());
        assert_eq!(*windows.last().expect("twelve"), WINDOW_BYTES_MAX);
    }

    #[test]
    fn a_reader_at_random_places_gets_none() {
        let mut reader = Readahead::default();
        for place in [50, 3, 90, 17, 60] {
            let at = place << 24;
            assert!(reader.plan(at..at + 4096, u64::MAX).ahead.is_empty());
        }
    }
}
