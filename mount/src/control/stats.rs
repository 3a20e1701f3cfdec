//! `xfer stats`: what a mount has done since it began, in numbers.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xfer_protocol::shown::{Shown, shown};
use xfer_protocol::size;

use super::call::Call;
use super::find::find_call;
use super::{Status, directory, show};
use crate::operations::{KINDS, Operations};
use crate::process::exit::{Exit, Failure};
use crate::process::output::{print, print_json};
use crate::process::report::complain;

/// The counters of a mount, as `xfer stats --json` prints them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// The place where it is mounted.
    pub mountpoint: String,
    /// The account, as `user@host:port`.
    pub account: String,
    /// Operations of programs by kind, but for kinds of which there was none.
    pub operations: Vec<OfKind>,
    /// Reads that were answered from the cache.
    pub data_hits: u64,
    /// Reads for which the server was asked.
    pub data_misses: u64,
    /// Look-ups of names, attributes and lists that were answered from what is loaded.
    pub tree_hits: u64,
    /// Those for which the server was asked.
    pub tree_misses: u64,
    /// The bytes that were sent after the greetings, without those of TLS.
    pub sent_bytes: u64,
    /// The bytes that were received likewise.
    pub received_bytes: u64,
    /// How often the connection was made again.
    pub reconnects: u64,
    /// The number of changes that are not durable yet.
    pub pending_ops: u64,
    /// The bytes of data in those changes.
    pub pending_bytes: u64,
    /// The round-trip time to the server, in milliseconds, once it has been measured.
    pub rtt_ms: Option<f64>,
    /// How fast changes get to the server's disk, in bytes a second, once there were enough.
    pub rate_bytes_per_s: Option<f64>,
    /// The memory that cached data takes up, in bytes.
    pub cache_bytes: u64,
    /// The approximate memory that names and attributes take up, in bytes.
    pub tree_bytes: u64,
}

/// Operations of one kind.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct OfKind {
    /// Its name.
    pub kind: String,
    /// How many were answered.
    pub count: u64,
    /// How many had to wait for what only the server had.
    pub waited: u64,
    /// The time within which half of them were answered, in microseconds, at most a quarter too long.
    pub p50_us: f64,
    /// The same for 99 of 100.
    pub p99_us: f64,
}

impl Stats {
    /// Takes in what the mount has answered.
    #[must_use]
    pub fn with_operations(mut self, operations: &Operations) -> Stats {
        let micros = |time: Option<Duration>| time.unwrap_or_default().as_nanos() as f64 / 1000.0;
        let of_kind = KINDS.iter().map(|(kind, name)| {
            let counters = operations.of(*kind);
            OfKind {
                kind: (*name).to_owned(),
                count: counters.count(),
                waited: counters.waited(),
                p50_us: micros(counters.within(0.5)),
                p99_us: micros(counters.within(0.99)),
            }
        });
        self.operations = of_kind.filter(|of| of.count > 0).collect();
        for OfKind { kind, count, waited, .. } in &self.operations {
            let hits = count.saturating_sub(*waited);
            match kind.as_str() {
                "read" => (self.data_hits, self.data_misses) = (hits, *waited),
                "lookup" | "attributes" | "list" => {
                    self.tree_hits += hits;
                    self.tree_misses += waited;
                }
                _ => {}
            }
        }
        self
    }

    /// Takes in what a status has too.
    #[must_use]
    pub fn with_status(self, status: &Status) -> Stats {
        Stats {
            mountpoint: status.mountpoint.clone(),
            account: status.account(),
            pending_ops: status.pending_ops,
            pending_bytes: status.pending_bytes,
            rtt_ms: status.rtt_ms,
            cache_bytes: status.cache_bytes,
            tree_bytes: status.tree_bytes,
            ..self
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let of = |hits: u64, misses: u64| format!("{hits} from memory, {misses} from the server");
        let rate = self.rate_bytes_per_s.map(|rate| format!("{}/s", size::display(rate as u64)));
        for (name, value) in [
            ("mount point", self.mountpoint.clone()),
            ("server", self.account.clone()),
            ("data read", of(self.data_hits, self.data_misses)),
            ("names", of(self.tree_hits, self.tree_misses)),
            ("sent", size::display(self.sent_bytes)),
            ("received", size::display(self.received_bytes)),
            ("reconnects", self.reconnects.to_string()),
            ("not durable", show::pending(self.pending_ops, self.pending_bytes)),
            ("round trip", show::round_trip(self.rtt_ms)),
            ("rate", rate.unwrap_or_else(|| "not measured".to_owned())),
            ("cached data", size::display(self.cache_bytes)),
            ("cached tree", size::display(self.tree_bytes)),
        ] {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{name:13}  {}", Shown(&value));
        }
        if self.operations.is_empty() {
            return text;
        }
        let _ = writeln!(
            text,
            "{:13}  {:>9} {:>9} {:>10} {:>10}",
            "OPERATION", "COUNT", "WAITED", "P50", "P99"
        );
        for OfKind { kind, count, waited, p50_us, p99_us } in &self.operations {
            let (p50, p99) = (time(*p50_us), time(*p99_us));
            let _ =
                writeln!(text, "{:13}  {count:>9} {waited:>9} {p50:>10} {p99:>10}", shown(kind));
        }
        text
    }
}

/// A time for people.
fn time(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} us"),
        1e3..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

/// Shows the counters of one mount, or of all of this user's.
///
/// # Errors
/// If there is no such mount, or it does not answer.
pub fn run(mountpoint: Option<&Path>, json: bool) -> Result<(), Failure> {
    if let Some(path) = mountpoint {
        let stats = find_call(path)?.stats()?;
        return if json { print_json(&stats) } else { print(&stats.text()) };
    }
    let calls = directory::sockets().into_iter().filter_map(|path| Call::to(&path, path.clone()));
    let (all, failed): (Vec<_>, Vec<_>) = calls.map(Call::stats).partition(Result::is_ok);
    let mut all: Vec<Stats> = all.into_iter().flatten().collect();
    all.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    failed
        .iter()
        .filter_map(|failed| failed.as_ref().err())
        .for_each(|failure| complain(format_args!("xfer: {failure}")));
    let texts: Vec<String> = all.iter().map(Stats::text).collect();
    match json {
        true => print_json(&all)?,
        false if all.is_empty() => print("no xfer mounts\n")?,
        false => print(&texts.join("\n"))?,
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::told(Exit::Other)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Kind;

    #[test]
    fn reads_and_names_are_told_by_whether_the_server_was_asked() {
        let operations = Operations::default();
        for (kind, count, waited) in
            [(Kind::Read, 10, 3), (Kind::Lookup, 5, 1), (Kind::List, 2, 2), (Kind::Write, 7, 4)]
        {
            (0..count).for_each(|_| operations.of(kind).answered(Duration::from_micros(100)));
            (0..waited).for_each(|_| operations.of(kind).waits());
        }
        let stats = Stats::default().with_operations(&operations);
        assert_eq!((stats.data_hits, stats.data_misses), (7, 3));
        assert_eq!((stats.tree_hits, stats.tree_misses), (4, 3));
        let kinds: Vec<_> = stats.operations.iter().map(|of| of.kind.as_str()).collect();
        assert_eq!(kinds, ["lookup", "list", "read", "write"]);
        let text = stats.text();
        assert!(text.contains("data read      7 from memory, 3 from the server\n"), "{text}");
        let find = |start| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        let (heading, row) = (find("OPERATION "), find("read "));
        assert_eq!(heading.len(), row.len(), "{text}");
        let cells: Vec<_> = row.split_whitespace().take(3).collect();
        assert_eq!(cells, ["read", "10", "3"], "{text}");
    }

    #[test]
    fn a_time_has_a_unit_that_fits() {
        assert_eq!([12.4, 1500.0, 2.5e6].map(time), ["12 us", "1.5 ms", "2.5 s"]);
    }
}
