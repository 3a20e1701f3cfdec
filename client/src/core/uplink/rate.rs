//! How fast the log link carries ops to the server's disk.
//!
//! It only measures; [`super::log`] bounds its backlog and its frames by the result.

use std::time::Instant;

/// The rate at which the log becomes durable, measured only while it has something to carry.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bytes_per_s: Option<f64>,
    since: Option<Instant>,
    bytes: usize,
}

impl Rate {
    /// The smallest sample, in bytes. A smaller one says little about the link.
    const SAMPLE_BYTES: usize = 1 << 20;

    /// The mean rate, in which the latest sample counts half. `None` until there is a sample.
    pub(super) fn bytes_per_s(&self) -> Option<f64> {
        self.bytes_per_s
    }

    /// Begins a sample: the log has something to carry from now on.
    pub(super) fn start(&mut self, now: Instant) {
        self.since = Some(now);
        self.bytes = 0;
    }

    /// Drops the present sample: the link is down, and that says nothing about the next one.
    pub(super) fn stop(&mut self) {
        self.since = None;
    }

    /// Notes that `bytes` more became durable.
    pub(super) fn carried(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        let Some(since) = self.since else { return };
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        if self.bytes >= Self::SAMPLE_BYTES && elapsed > 0.01 {
            let measured = self.bytes as f64 / elapsed;
            let mean = self.bytes_per_s.map_or(measured, |before| (before + measured) / 2.0);
            self.bytes_per_s = Some(mean);
            self.start(now);
        }
    }
}
