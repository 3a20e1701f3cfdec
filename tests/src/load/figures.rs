//! What sessions did, how long it took, and what failed.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many failures are told in words.
const TOLD_MAX: usize = 10;

/// What a session does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// From the connection to the mailboxes being there.
    Login,
    /// Making a small file, writing it, and closing it.
    Create,
    /// Waiting until all that was done is on the server's disk.
    Sync,
    /// Reading a file whose bytes are not in the client's cache.
    Read,
    /// Listing a directory.
    List,
    /// From the closing of a file in the outbox until the other's client has it.
    Send,
    /// Removing a file.
    Remove,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Login, Kind::Create, Kind::Sync, Kind::Read, Kind::List, Kind::Send, Kind::Remove];

    /// What it is called in tables.
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

/// What one session or many did.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    times: BTreeMap<Kind, Vec<Duration>>,
    failures: BTreeMap<Kind, usize>,
    /// The first failures, in words.
    pub told: Vec<String>,
    /// Bytes that were written to files.
    pub written: u64,
    /// Bytes that were read from files, and right.
    pub read: u64,
}

impl Figures {
    /// Notes that something succeeded.
    pub fn note(&mut self, kind: Kind, time: Duration) {
        self.times.entry(kind).or_default().push(time);
    }

    /// Notes that something failed.
    pub fn note_failure(&mut self, kind: Kind, why: String) {
        *self.failures.entry(kind).or_default() += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("{}: {why}", kind.label()));
        }
    }

    /// Adds what another session did.
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

    /// How many of a kind succeeded.
    pub fn count(&self, kind: Kind) -> usize {
        self.times.get(&kind).map_or(0, Vec::len)
    }

    /// How many of all kinds succeeded.
    pub fn count_all(&self) -> usize {
        self.times.values().map(Vec::len).sum()
    }

    /// How many of a kind failed.
    pub fn failed(&self, kind: Kind) -> usize {
        self.failures.get(&kind).copied().unwrap_or(0)
    }

    /// How many of all kinds failed.
    pub fn failed_all(&self) -> usize {
        self.failures.values().sum()
    }

    /// The times within which these parts (0 to 1) of a kind's operations were done; none if there
    /// were none.
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
