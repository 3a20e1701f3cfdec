//! The operations of sessions: counts, times and failures.

use std::collections::BTreeMap;
use std::time::Duration;

/// The most failures that are described.
const TOLD_MAX: usize = 10;

/// The kinds of operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// From connecting to the existence of the mailboxes.
    Login,
    /// Creating, writing and closing a small file.
    Create,
    /// Waiting until all earlier changes are on the server's disk.
    Sync,
    /// Reading a file that is not in the client's cache.
    Read,
    /// Listing a directory.
    List,
    /// From closing a file in the outbox until the recipient's client has it.
    Send,
    /// Removing a file.
    Remove,
}

impl Kind {
    /// All kinds, in the order of the tables.
    pub const ALL: [Kind; 7] =
        [Kind::Login, Kind::Create, Kind::Sync, Kind::Read, Kind::List, Kind::Send, Kind::Remove];

    /// The name of the kind in tables.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Login => "login",
            Kind::Create => "create",
            Kind::Sync => "fsync",
            Kind::Read => "cold read",
            Kind::List => "list",
            Kind::Send => "send to arrival",
            Kind::Remove => "remove",
        }
    }
}

/// The operations of one session or of many.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    times: BTreeMap<Kind, Vec<Duration>>,
    failures: BTreeMap<Kind, usize>,
    /// Descriptions of the first failures.
    pub told: Vec<String>,
    /// Bytes written to files.
    pub written: u64,
    /// Bytes read from files and found right.
    pub read: u64,
}

impl Figures {
    /// Counts a success and its time.
    pub fn note(&mut self, kind: Kind, time: Duration) {
        self.times.entry(kind).or_default().push(time);
    }

    /// Counts a failure and its reason.
    pub fn note_failure(&mut self, kind: Kind, why: String) {
        *self.failures.entry(kind).or_default() += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("{}: {why}", kind.label()));
        }
    }

    /// Adds the figures of another session.
    pub fn add(&mut self, other: Figures) {
        for (kind, times) in other.times {
            self.times.entry(kind).or_default().extend(times);
        }
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
        self.written += other.written;
        self.read += other.read;
    }

    /// The number of successes of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.times.get(&kind).map_or(0, Vec::len)
    }

    /// The number of all successes.
    pub fn count_all(&self) -> usize {
        self.times.values().map(Vec::len).sum()
    }

    /// The number of failures of a kind.
    pub fn failed(&self, kind: Kind) -> usize {
        self.failures.get(&kind).copied().unwrap_or(0)
    }

    /// The number of all failures.
    pub fn failed_all(&self) -> usize {
        self.failures.values().sum()
    }

    /// The times within which these fractions (0 to 1) of a kind's operations succeeded; `None` if
    /// none did.
    pub fn percentiles<const N: usize>(
        &self,
        kind: Kind,
        parts: [f64; N],
    ) -> Option<[Duration; N]> {
        let mut times = self.times.get(&kind)?.clone();
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        let rank = |part: f64| (part * times.len() as f64).ceil() as usize;
        Some(parts.map(|part| times[rank(part).saturating_sub(1).min(last)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut figures = Figures::default();
        assert_eq!(figures.percentiles(Kind::Sync, [0.5]), None);
        (1..=200).rev().for_each(|ms| figures.note(Kind::Sync, Duration::from_millis(ms)));
        let found = figures.percentiles(Kind::Sync, [0.0, 0.5, 0.95, 0.99, 1.0]);
        assert_eq!(found, Some([1, 100, 190, 198, 200].map(Duration::from_millis)));
    }

    #[test]
    fn failures_are_counted_beyond_those_that_are_told() {
        let mut figures = Figures::default();
        (0..25).for_each(|_| figures.note_failure(Kind::Read, "EIO".to_owned()));
        let mut all = figures.clone();
        all.add(figures);
        assert_eq!((all.failed(Kind::Read), all.failed_all(), all.told.len()), (50, 50, TOLD_MAX));
    }
}
