//! Compares xfer with other filesystems over a chosen network, and prints tables in Markdown.
//!
//! `tests/benches/run.sh` builds everything needed and runs it; CONTRIBUTING.md explains the tables.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use clap::Parser;
use options::Options;
use xfer_tests::bench::cell::Cell;
use xfer_tests::bench::filesystem::{self, Filesystem};
use xfer_tests::bench::fixtures::{Fixtures, Sizes};
use xfer_tests::bench::memory;
use xfer_tests::bench::proof::Proof;
use xfer_tests::bench::rows::{ROWS, Row};
use xfer_tests::bench::sample::{Purpose, Sample, Stage};
use xfer_tests::bench::table::{Results, seconds, size};
use xfer_tests::bench::timed::{Stop, is_interrupted, stop_on_signals};
use xfer_tests::network::Network;

mod machine;

mod options;

fn main() -> ExitCode {
    let options = Options::parse();
    stop_on_signals();
    if let Some(directory) = &options.profile {
        std::fs::create_dir_all(directory).unwrap();
    }
    let directory =
        tempfile::Builder::new().prefix("xfer-bench-").tempdir_in(&options.dir).unwrap();
    eprintln!("making what is to be stored, in {}", directory.path().display());
    let fixtures = Fixtures::make(&directory.path().join("fixtures"), Sizes::FULL);
    let filesystems = chosen(&options);
    println!("{}", machine::description(&options.dir));
    println!("{}", legend(&options, &filesystems));
    let mut whole = true;
    for cable in options.cables() {
        let network = Network::new(cable);
        let stage = Stage {
            network: &network,
            fixtures: &fixtures,
            directory: directory.path(),
            limit: options.limit(),
        };
        println!(
            "### {cable}\n\nThe shortest round trip is {:.2} ms, as measured.\n",
            ms(&network)
        );
        if is_interrupted() {
            return ExitCode::FAILURE;
        }
        whole &= compare(&options, &stage, &filesystems);
        if options.memory_gib > 0 && !is_interrupted() {
            whole &= measure_memory(&stage, options.memory_gib);
        }
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ms(network: &Network) -> f64 {
    network.shortest_round_trip().as_secs_f64() * 1000.0
}

fn chosen(options: &Options) -> Vec<Box<dyn Filesystem>> {
    let all = filesystem::all().into_iter();
    all.filter(|filesystem| options.filesystems.matches(filesystem.name())).collect()
}

fn legend(options: &Options, filesystems: &[Box<dyn Filesystem>]) -> String {
    let mut text = format!(
        "Medians of {}. Seconds until durable, and bytes on the cable in both directions.\n",
        match options.runs() {
            1 => "one run".to_owned(),
            runs => format!("{runs} runs"),
        }
    );
    for filesystem in filesystems {
        text += &format!("- **{}**: {}.\n", filesystem.name(), filesystem.remark());
    }
    text
}

/// Fills and prints the tables for one cable; returns whether nothing failed.
fn compare(options: &Options, stage: &Stage<'_>, filesystems: &[Box<dyn Filesystem>]) -> bool {
    let rows = ROWS.iter().filter(|row| options.rows.matches(row.name));
    let results = Results {
        filesystems: filesystems.iter().map(|filesystem| filesystem.name()).collect(),
        rows: rows.map(|row| (row, fill(options, stage, filesystems, row))).collect(),
        fixtures: stage.fixtures,
    };
    println!("{}", results.times());
    println!("Round trips, at most (half of the longest chain of messages in which each was sent");
    println!("after the one before had arrived):\n\n{}", results.round_trips());
    println!("CPU seconds a GiB, of client + server:\n\n{}", results.cpu());
    println!("Memory at most, in runs that ended well:\n\n{}", results.memory());
    for filesystem in filesystems {
        let name = filesystem.name();
        if filesystem.counts_messages() {
            println!("Messages of {name}:\n\n{}", results.messages(name));
        }
        if filesystem.counts_requests() {
            println!("FUSE requests of {name}:\n\n{}", results.requests(name));
        }
    }
    let failures = results.failures();
    failures.iter().for_each(|failure| println!("- FAILED: {failure}"));
    failures.is_empty()
}

/// One row. The filesystems take turns run by run, so that a disturbance does not hit one alone.
fn fill(
    options: &Options,
    stage: &Stage<'_>,
    filesystems: &[Box<dyn Filesystem>],
    row: &Row,
) -> Vec<Cell> {
    let mut cells = vec![Cell::default(); filesystems.len()];
    for number in 0..=options.runs() {
        for (filesystem, cell) in filesystems.iter().zip(&mut cells) {
            let possible = filesystem.sends() || !matches!(row.proof, Proof::Sent(_));
            if !possible || cell.is_decided() {
                continue;
            }
            if is_interrupted() {
                // The median of fewer runs than requested would mislead.
                cell.add(Err(Stop::interrupted()));
            } else if number > 0 {
                let measured = stage.measure(&**filesystem, row, Purpose::Time);
                report(row, filesystem.name(), "", &measured);
                cell.add(measured);
            } else if filesystem.counts_requests() {
                let measured = stage.measure(&**filesystem, row, Purpose::Requests);
                report(row, filesystem.name(), " (counted)", &measured);
                cell.add_counted(measured);
            }
        }
    }
    if let Some(directory) = &options.profile {
        for (filesystem, cell) in filesystems.iter().zip(&mut cells) {
            if filesystem.counts_messages() && !cell.is_decided() {
                let measured = stage.measure(&**filesystem, row, Purpose::Profile(directory));
                report(row, filesystem.name(), " (profiled)", &measured);
                cell.add_unmeasured(measured);
            }
        }
    }
    cells
}

/// Reports the result of a run on standard error.
fn report(row: &Row, filesystem: &str, remark: &str, measured: &Result<Sample, Stop>) {
    let what = match measured {
        Ok(sample) => format!(
            "{}, up {}, down {}, {} round trips, {} packets dropped",
            seconds(sample.took),
            size(sample.traffic.bytes_up),
            size(sample.traffic.bytes_down),
            sample.traffic.round_trips(),
            sample.traffic.dropped,
        ),
        Err(Stop::Over(limit)) => format!("more than {limit:?}"),
        Err(Stop::Failed(why)) => format!("FAILED: {why}"),
    };
    eprintln!("{} | {filesystem}{remark} | {what}", row.name);
}

/// Measures and prints xfer's memory; returns whether it stays within its bounds.
fn measure_memory(stage: &Stage<'_>, gib: usize) -> bool {
    let memory = match memory::measure(stage, gib) {
        Ok(memory) => memory,
        Err(stop) => {
            println!("- FAILED: memory of xfer: {stop:?}");
            return false;
        }
    };
    let peaks = [memory.used.client.peak, memory.used.server.peak];
    let bounds = [memory::CLIENT_MAX, memory::SERVER_MAX];
    let [wrote, read] = [memory.wrote, memory.read].map(seconds);
    println!("Memory of xfer while {gib} GiB are written ({wrote}) and read ({read}):\n");
    println!("| | at most | bound | |\n|---|---|---|---|");
    for ((name, peak), bound) in ["xfer-mount", "xfer-server"].iter().zip(peaks).zip(bounds) {
        let verdict = if peak < bound { "kept" } else { "BROKEN" };
        println!("| {name} | {} | {} | {verdict} |", size(peak), size(bound));
    }
    println!();
    peaks.iter().zip(bounds).all(|(peak, bound)| *peak < bound)
}
