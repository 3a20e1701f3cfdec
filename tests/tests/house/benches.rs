//! The comparison with other filesystems is itself honest: the cable delays and counts, and a row
//! whose work failed has no figure.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use xfer_tests::bench::cell::Cell;
use xfer_tests::bench::filesystem::{Filesystem, Local, Mounted, Sides, Xfer};
use xfer_tests::bench::fixtures::{Fixtures, Sizes};
use xfer_tests::bench::proof::Proof;
use xfer_tests::bench::rows::{ROWS, Row};
use xfer_tests::bench::sample::{Purpose, Sample, Stage};
use xfer_tests::bench::table::Results;
use xfer_tests::bench::timed::{Deadline, Stop};
use xfer_tests::network::{Cable, Network, SERVER, Traffic};
use xfer_tests::{PATIENCE, Random, shell};

const SMALL: Sizes = Sizes { big_bytes: 3 << 20, huge_bytes: 5 << 20, tree_files: 60 };

const QUICK: Cable =
    Cable { round_trip: Duration::from_millis(2), bits_per_s: Some(1_000_000_000) };

/// A network and stored data, in a directory that goes when it is dropped.
struct Bench {
    network: Network,
    fixtures: Fixtures,
    directory: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::Builder::new().prefix("xfer-").tempdir_in("/tmp").unwrap();
        let fixtures = Fixtures::make(&directory.path().join("fixtures"), SMALL);
        Bench { network: Network::new(QUICK), fixtures, directory }
    }

    fn measure(&self, filesystem: &dyn Filesystem, row: &Row) -> Result<Sample, Stop> {
        self.measure_within(filesystem, row, PATIENCE)
    }

    fn measure_within(
        &self,
        filesystem: &dyn Filesystem,
        row: &Row,
        limit: Duration,
    ) -> Result<Sample, Stop> {
        let (network, fixtures) = (&self.network, &self.fixtures);
        let stage = Stage { network, fixtures, directory: self.directory.path(), limit };
        stage.measure(filesystem, row, Purpose::Time)
    }

    /// The table's text for one run.
    fn shown(&self, measured: Result<Sample, Stop>) -> String {
        let mut cell = Cell::default();
        cell.add(measured);
        let rows = vec![(row("untar"), vec![cell])];
        let results = Results { filesystems: vec!["it"], rows, fixtures: &self.fixtures };
        let table = results.times();
        table.lines().last().unwrap().rsplit('|').nth(1).unwrap().trim().to_owned()
    }
}

/// The first row whose name contains this.
fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name.contains(name)).unwrap()
}

#[track_caller]
fn failed(measured: Result<Sample, Stop>, why: &str) {
    match measured {
        Err(Stop::Failed(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    }
}

/// Sends bytes up and back; returns the bytes, the traffic and the time.
fn echo(network: &Network, bytes: &[u8]) -> (Vec<u8>, Traffic, Duration) {
    let listener = network.server.run(|| TcpListener::bind((SERVER, 7000))).unwrap();
    let before = network.traffic();
    let server = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        std::io::copy(&mut socket.try_clone().unwrap(), &mut socket).unwrap();
    });
    let begin = Instant::now();
    let mut socket = network.client.run(|| TcpStream::connect((SERVER, 7000))).unwrap();
    let connected = begin.elapsed();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        let mut sender = socket.try_clone().unwrap();
        scope.spawn(move || {
            sender.write_all(bytes).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        socket.read_to_end(&mut back).unwrap();
    });
    server.join().unwrap();
    (back, network.traffic() - before, connected)
}

#[test]
fn a_cable_carries_all_bytes_unharmed_and_counts_them() {
    let network = Network::new(Cable { round_trip: Duration::from_micros(200), bits_per_s: None });
    let bytes = Random::new(5).bytes(20 << 20);
    let (back, traffic, _) = echo(&network, &bytes);
    assert!(back == bytes, "other bytes came back");
    let len = bytes.len() as u64;
    // Headers add some fifty bytes to each 1,448 of data; acknowledgements come for every few packets.
    for (bytes, packets) in
        [(traffic.bytes_up, traffic.packets_up), (traffic.bytes_down, traffic.packets_down)]
    {
        assert!((len * 102 / 100..len * 120 / 100).contains(&bytes), "{bytes} of {len}");
        assert!(packets >= len / 1460, "{packets}");
    }
}

#[test]
fn a_cable_takes_at_least_the_time_that_was_asked_for() {
    let round_trip = Duration::from_millis(30);
    let network = Network::new(Cable { round_trip, bits_per_s: Some(80_000_000) });
    assert!(network.shortest_round_trip() >= round_trip);
    let begin = Instant::now();
    let (_, traffic, connected) = echo(&network, &Random::new(6).bytes(2 << 20));
    assert!(connected >= round_trip, "connected after {connected:?}");
    // Ten million bytes per second.
    let line = Duration::from_secs_f64(traffic.bytes_up as f64 / 1e7);
    assert!(begin.elapsed() >= line, "{:?} for {line:?}", begin.elapsed());
}

#[test]
fn questions_one_after_another_are_counted_as_round_trips() {
    let network = Network::new(QUICK);
    let listener = network.server.run(|| TcpListener::bind((SERVER, 7001))).unwrap();
    let server = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        let mut byte = [0];
        while socket.read(&mut byte).unwrap() > 0 {
            socket.write_all(&byte).unwrap();
        }
    });
    let mut socket = network.client.run(|| TcpStream::connect((SERVER, 7001))).unwrap();
    let before = network.traffic();
    for _ in 0..25 {
        socket.write_all(b"?").unwrap();
        socket.read_exact(&mut [0]).unwrap();
    }
    let traffic = network.traffic() - before;
    assert_eq!(traffic.round_trips(), 25);
    drop(socket);
    server.join().unwrap();
}

#[test]
fn rows_are_measured_and_proved_on_the_local_disk_and_on_xfer() {
    let bench = Bench::new();
    let written = bench.measure(&Xfer, row("write")).unwrap();
    assert!(written.traffic.bytes_up > SMALL.big_bytes, "{written:?}");
    assert!(written.traffic.round_trips() >= 1 && written.took >= QUICK.round_trip);
    assert!(written.counts["bytes_in"] == SMALL.big_bytes && written.counts["commits"] >= 1);
    assert!(written.used.client.peak > 0 && written.used.server.peak > 0);
    for name in ["find", "mv to outbox"] {
        bench.measure(&Xfer, row(name)).unwrap();
    }
    for row in ROWS.iter().filter(|row| !matches!(row.proof, Proof::Sent(_))) {
        let sample = bench.measure(&Local, row).unwrap();
        assert_eq!(sample.traffic.bytes(), 0, "{}", row.name);
    }
}

#[test]
fn a_program_that_fails_is_shown_as_failed_and_one_that_is_slow_as_slow() {
    let bench = Bench::new();
    let fails = Row { program: |_| words("cp no-such-file written"), ..*row("write") };
    assert_eq!(bench.shown(bench.measure(&Local, &fails)), "failed");
    failed(bench.measure(&Local, &fails), "No such file");
    let sleeps = Row { program: |_| words("sleep 1000"), ..*row("write") };
    let short = Duration::from_secs(1);
    assert_eq!(bench.shown(bench.measure_within(&Local, &sleeps, short)), "> 1 s");
    let cannot_send = bench.measure(&Local, row("cp to outbox"));
    assert_eq!(bench.shown(cannot_send), "failed");
}

#[test]
fn a_program_that_says_it_succeeded_but_did_other_work_is_shown_as_failed() {
    let bench = Bench::new();
    // Each works in the directory where it is told to, not in the one that is measured.
    let idle = Row {
        program: |all| {
            let copy = format!("cp '{}' written", all.big().display());
            script(&format!("case $PWD in */backing) ;; *) {copy} ;; esac"))
        },
        ..*row("write")
    };
    failed(bench.measure(&Local, &idle), "not durable");
    let empty = Row {
        program: |_| script("case $PWD in */backing) echo tree ;; *) find tree -ls ;; esac"),
        ..*row("find")
    };
    failed(bench.measure(&Local, &empty), "it printed something else");
}

/// A local disk whose files are damaged: before they are used, or before the store is read.
#[derive(Clone, Copy)]
enum Faulty {
    Before(&'static str),
    After(&'static str),
}

struct Loses(Box<dyn Mounted>, Faulty);

impl Filesystem for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn remark(&self) -> &'static str {
        "loses things"
    }

    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        let mounted = Local.mount(network, place, fixture);
        if let Faulty::Before(script) = self {
            shell(mounted.root(), script);
        }
        Box::new(Loses(mounted, *self))
    }
}

impl Mounted for Loses {
    fn root(&self) -> &Path {
        self.0.root()
    }

    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop> {
        self.0.settle(deadline)
    }

    fn usage(&self) -> Sides {
        self.0.usage()
    }

    fn stored(&mut self) -> PathBuf {
        if let Faulty::After(script) = self.1 {
            shell(self.0.root(), script);
        }
        self.0.stored()
    }
}

#[test]
fn a_store_that_lost_something_is_shown_as_failed() {
    let bench = Bench::new();
    let lost = [
        ("untar", "rm $(find tree -type f | head -n 1)"),
        ("untar", "truncate -s 0 $(find tree -type f -size +1 | head -n 1)"),
        ("write", "rm written"),
        ("write", "printf x | dd of=written bs=1 seek=2000000 conv=notrunc status=none"),
        ("rm -rf", "mkdir -p tree && touch tree/again"),
    ];
    for (name, script) in lost {
        failed(bench.measure(&Faulty::After(script), row(name)), "not durable");
    }
    let garbled = Faulty::Before("printf x | dd of=big bs=1 seek=2000000 conv=notrunc status=none");
    failed(bench.measure(&garbled, row("read 256 MiB (cold)")), "other bytes");
    // Replaces one byte that is not text by another.
    let one_byte = r#"perl -e 'open(F, "+<:raw", "big"); read(F, $b, 4096);
        $b =~ s/([\x80-\xff])/$1 eq "\xff" ? "\xfe" : "\xff"/e; seek(F, 0, 0); print F $b'"#;
    failed(bench.measure(&Faulty::Before(one_byte), row("head")), "it printed something else");
}

/// An xfer whose server is stopped, and whose changes are not synced.
struct Hasty;

struct Unsettled(Box<dyn Mounted>);

impl Filesystem for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }

    fn remark(&self) -> &'static str {
        "does not sync"
    }

    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        let mounted = Xfer.mount(network, place, fixture);
        // Look the entries up before the server stops, so that the program does not ask for them.
        std::fs::read_dir(mounted.root()).unwrap().for_each(drop);
        let server = Pid::from_raw(mounted.pids().unwrap().server as i32).unwrap();
        kill_process(server, Signal::STOP).unwrap();
        Box::new(Unsettled(mounted))
    }
}

impl Mounted for Unsettled {
    fn root(&self) -> &Path {
        self.0.root()
    }

    fn settle(&mut self, _: Deadline) -> Result<(), Stop> {
        Ok(())
    }

    fn usage(&self) -> Sides {
        self.0.usage()
    }

    fn stored(&mut self) -> PathBuf {
        self.0.stored()
    }
}

#[test]
fn what_xfer_had_only_in_memory_is_shown_as_failed() {
    let bench = Bench::new();
    failed(bench.measure(&Hasty, row("write")), "not durable");
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn script(text: &str) -> Vec<String> {
    ["bash", "-c", text].map(str::to_owned).into()
}
