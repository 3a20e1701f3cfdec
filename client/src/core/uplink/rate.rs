//! How fast the log link carries ops to the server's disk.

use std::time::Instant;

/// How fast the log becomes durable, measured while it has something to carry.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bytes_per_s: Option<f64>,
    since: Option<Instant>,
    bytes: usize,
}

impl Rate {
    /// Less than this says little about the link, in bytes.
    const SAMPLE_BYTES: usize = 1 << 20;

    /// The mean rate so far, if enough was carried to tell.
    pub(super) fn bytes_per_s(&self) -> Option<f64> {
        self.bytes_per_s
    }

    /// Begins to measure: the log has something to carry from now on.
    pub(super) fn start(&mut self, now: Instant) {
        self.since = Some(now);
        self.bytes = 0;
    }

    /// Notes that so many bytes became durable.
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
