//! How long something takes: how often in each range of times, and the last ones exactly.
//!
//! Noting a time takes a few atomic additions and no lock. A reader may see one that is noted in part:
//! the sums of what it reads agree to within the times that are being noted.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The upper ends of the ranges, in seconds; there is one more above them.
pub const ENDS_SECS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// How many of the last times are kept.
const RECENT: usize = 1024;

/// Times that were noted.
pub(crate) struct Latency {
    ranges: [AtomicU64; ENDS_SECS.len() + 1],
    sum_micros: AtomicU64,
    /// The last times, in microseconds; 0 where there is none yet.
    recent: Box<[AtomicU32]>,
    next: AtomicUsize,
}

/// What was noted up to one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// How many were noted.
    pub count: u64,
    /// How many times lie in each range of [`ENDS_SECS`], and above the last.
    pub ranges: Vec<u64>,
    /// The sum of all times, in seconds.
    pub sum_secs: f64,
    /// Half of the last 1,024 took no longer, in seconds; absent if there were none.
    pub p50_secs: Option<f64>,
    /// 99 of 100 of the last 1,024 took no longer, in seconds; absent if there were none.
    pub p99_secs: Option<f64>,
}

impl Default for Latency {
    fn default() -> Latency {
        let recent = (0..RECENT).map(|_| AtomicU32::new(0)).collect();
        let (ranges, sum_micros, next) = Default::default();
        Latency { ranges, sum_micros, recent, next }
    }
}

impl Latency {
    /// Notes how long one took.
    pub(crate) fn note(&self, took: Duration) {
        let range = ENDS_SECS.iter().position(|end| took.as_secs_f64() <= *end);
        self.ranges[range.unwrap_or(ENDS_SECS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = took.as_micros().max(1);
        self.sum_micros.fetch_add(micros.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        let place = self.next.fetch_add(1, Ordering::Relaxed) % RECENT;
        self.recent[place].store(micros.try_into().unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.load(Ordering::Relaxed)).sum()
    }

    /// Reads what was noted.
    pub(crate) fn read(&self) -> Latencies {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let ranges: Vec<u64> = self.ranges.iter().map(load).collect();
        let recent = self.recent.iter().map(|micros| micros.load(Ordering::Relaxed));
        let mut recent: Vec<u32> = recent.filter(|micros| *micros > 0).collect();
        recent.sort_unstable();
        Latencies {
            count: ranges.iter().sum(),
            ranges,
            sum_secs: Duration::from_micros(load(&self.sum_micros)).as_secs_f64(),
            p50_secs: percentile(&recent, 50),
            p99_secs: percentile(&recent, 99),
        }
    }
}

/// The smallest of these sorted times that so many percent do not exceed.
fn percentile(sorted_micros: &[u32], percent: usize) -> Option<f64> {
    let rank = (sorted_micros.len() * percent).div_ceil(100);
    let micros = sorted_micros.get(rank.checked_sub(1)?)?;
    Some(Duration::from_micros(u64::from(*micros)).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(millis: impl Iterator<Item = u64>) -> Latencies {
        let latency = Latency::default();
        millis.for_each(|millis| latency.note(Duration::from_millis(millis)));
        latency.read()
    }

    #[test]
    fn each_time_is_in_the_range_that_it_is_not_above() {
        let noted = noted([1, 2, 3, 30_000, 30_001].into_iter());
        assert_eq!(noted.ranges, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((noted.count, noted.sum_secs), (5, 60.007));
    }

    #[test]
    fn percentiles_are_those_of_the_last_times_alone() {
        assert_eq!((noted(0..0).p50_secs, noted(0..0).p99_secs), (None, None));
        assert_eq!((noted(7..8).p50_secs, noted(7..8).p99_secs), (Some(0.007), Some(0.007)));
        let noted = noted((0..500).map(|_| 60_000).chain(1..=1024));
        assert_eq!((noted.p50_secs, noted.p99_secs), (Some(0.512), Some(1.014)));
    }
}
