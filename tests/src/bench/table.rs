//! Tables in Markdown with the results for one cable.

use std::fmt::Write;
use std::time::Duration;

use super::cell::Cell;
use super::fixtures::Fixtures;
use super::rows::Row;
use super::sample::Sample;
use super::usage::Usage;

/// All cells for one cable: a line for each row, a column for each filesystem.
pub struct Results<'a> {
    /// The names of the filesystems.
    pub filesystems: Vec<&'static str>,
    /// The rows, each with its cells.
    pub rows: Vec<(&'a Row, Vec<Cell>)>,
    /// The data that the rows worked on.
    pub fixtures: &'a Fixtures,
}

impl Results<'_> {
    /// The times, with the bytes that passed over the cable.
    pub fn times(&self) -> String {
        self.by_filesystem(|_, cell| match cell.time() {
            Err(instead) => instead,
            Ok(time) => match cell.median(|sample| sample.traffic.bytes()) {
                Ok(bytes) if bytes > 0 => format!("{}, {}", seconds(time), size(bytes)),
                Ok(_) | Err(_) => seconds(time),
            },
        })
    }

    /// The number of round trips, as an upper bound.
    pub fn round_trips(&self) -> String {
        self.by_filesystem(|_, cell| shown(cell.median(|sample| sample.traffic.round_trips())))
    }

    /// The CPU seconds of client and server for each GiB.
    pub fn cpu(&self) -> String {
        self.by_filesystem(|row, cell| {
            let Some(bytes) = (row.bytes)(self.fixtures) else { return "-".to_owned() };
            let gib = bytes as f64 / f64::from(1 << 30);
            let each = |of: fn(&Sample) -> Usage| {
                let cpu = cell.median(|sample| of(sample).cpu)?;
                // Without a process there is no peak either.
                let is_there = cell.most(|sample| of(sample).peak) > Some(0);
                Ok(is_there.then(|| format!("{:.2}", cpu.as_secs_f64() / gib)))
            };
            match (each(|sample| sample.used.client), each(|sample| sample.used.server)) {
                (Ok(Some(client)), Ok(Some(server))) => format!("{client} + {server}"),
                (Ok(Some(client)), Ok(None)) => client,
                (Ok(None), Ok(_)) => "-".to_owned(),
                (Err(instead), _) | (_, Err(instead)) => instead,
            }
        })
    }

    /// The peak memory of client and server, in any successful run of any row.
    pub fn memory(&self) -> String {
        let mut table = heading(&["", "client", "server"]);
        for (at, name) in self.filesystems.iter().enumerate() {
            let most = |what: fn(&Sample) -> u64| {
                self.rows.iter().filter_map(|(_, cells)| cells[at].most(what)).max()
            };
            let [client, server] =
                [most(|sample| sample.used.client.peak), most(|sample| sample.used.server.peak)]
                    .map(|peak| peak.filter(|peak| *peak > 0).map_or_else(|| "-".to_owned(), size));
            let _ = writeln!(table, "| {name} | {client} | {server} |");
        }
        table
    }

    /// The counters of a filesystem's server, and packets on the cable.
    pub fn messages(&self, filesystem: &str) -> String {
        const COUNTS: [&str; 7] =
            ["frames", "ops", "barriers", "commits", "looks", "listings", "fetches"];
        let mut names = vec![filesystem, "packets up", "packets down"];
        names.extend(COUNTS);
        let mut table = heading(&names);
        for (row, cell) in self.column(filesystem) {
            let packets = |what: fn(&Sample) -> u64| shown(cell.median(what));
            let _ = write!(table, "| {} | {} ", row.name, packets(|s| s.traffic.packets_up));
            let _ = write!(table, "| {} ", packets(|s| s.traffic.packets_down));
            for name in COUNTS {
                let count = cell.median(|sample| sample.counts.get(name).copied().unwrap_or(0));
                let _ = write!(table, "| {} ", shown(count));
            }
            table.push_str("|\n");
        }
        table
    }

    /// The kernel's requests to a filesystem.
    pub fn requests(&self, filesystem: &str) -> String {
        let mut table = heading(&[filesystem, "requests", "of which"]);
        for (row, cell) in self.column(filesystem) {
            let requests = match cell.requests() {
                Ok(requests) => requests,
                Err(instead) => {
                    let _ = writeln!(table, "| {} | {instead} | |", row.name);
                    continue;
                }
            };
            let mut kinds: Vec<_> = requests.iter().collect();
            kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let kinds: Vec<_> =
                kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            let total: u64 = requests.values().sum();
            let _ = writeln!(table, "| {} | {total} | {} |", row.name, kinds.join(", "));
        }
        table
    }

    /// Each failure with its reason.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (row, cells) in &self.rows {
            for (name, cell) in self.filesystems.iter().zip(cells) {
                if let Some(why) = cell.failure() {
                    failures.push(format!("{name}, {}: {why}", row.name));
                }
            }
        }
        failures
    }

    fn column(&self, filesystem: &str) -> Vec<(&Row, &Cell)> {
        let at = self.filesystems.iter().position(|name| *name == filesystem);
        let rows = self.rows.iter();
        rows.filter_map(|(row, cells)| Some((*row, cells.get(at?)?))).collect()
    }

    fn by_filesystem(&self, show: impl Fn(&Row, &Cell) -> String) -> String {
        let mut names = vec![""];
        names.extend(&self.filesystems);
        let mut table = heading(&names);
        for (row, cells) in &self.rows {
            let shown: Vec<String> = cells.iter().map(|cell| show(row, cell)).collect();
            if shown.iter().any(|cell| cell != "-") {
                let _ = writeln!(table, "| {} | {} |", row.name, shown.join(" | "));
            }
        }
        table
    }
}

fn heading(names: &[&str]) -> String {
    format!("| {} |\n|{}\n", names.join(" | "), "---|".repeat(names.len()))
}

fn shown(count: Result<u64, String>) -> String {
    count.map_or_else(|instead| instead, |count| count.to_string())
}

/// Seconds, with the significant digits only.
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let digits = match seconds {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{seconds:.digits$} s")
}

/// Bytes, in a suitable unit.
pub fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    let (mib, kib) = (f64::from(1 << 20), 1024.0);
    match bytes {
        _ if bytes >= 10.0 * mib => format!("{:.0} MiB", bytes / mib),
        _ if bytes >= mib => format!("{:.1} MiB", bytes / mib),
        _ if bytes >= 10.0 * kib => format!("{:.0} KiB", bytes / kib),
        _ => format!("{:.1} KiB", bytes / kib),
    }
}
