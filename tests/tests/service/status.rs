//! `xfer-server status`: how a running server is, for people and for programs.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use xfer_tests::metrics::world;
use xfer_tests::programs::{program, run_within};
use xfer_tests::pty::OnPty;
use xfer_tests::{PATIENCE, Server, World, wait_until};

const NOT_RUNNING: u8 = 11;

/// What begins and ends the second screen of a terminal.
const OPEN: &str = "\x1b[?1049h";
const CLOSE: &str = "\x1b[?1049l";

fn command(server: &Server, options: &[&str]) -> Command {
    let mut command = Command::new(program("xfer-server"));
    command.arg("status").args(options).arg("--store").arg(server.store());
    command
}

fn json(server: &Server) -> Value {
    let said = run_within(&mut command(server, &["--json"]), PATIENCE).succeeded().stdout;
    serde_json::from_str(&said).unwrap()
}

#[test]
fn people_see_what_the_server_does_and_who_is_there() {
    let directory = tempfile::Builder::new().prefix("xfer-\x1b[2J").tempdir().unwrap();
    let world = World::with_store_within(directory.path(), &["alice", "bob"]);
    let mount = world.mount("alice");
    mount.shell("head -c 2M /dev/urandom > file; sync file");
    let wrong = world.outside().join("wrong");
    xfer_tests::world::write_secret(&wrong, "wrong");
    for _ in 0..5 {
        let mut login = world.mounting("bob").password_file(&wrong).command();
        run_within(login.arg("-f"), PATIENCE).refused(9);
    }
    let mut said = String::new();
    wait_until("the contents to be counted", PATIENCE, || {
        said = run_within(&mut command(&world.server, &[]), PATIENCE).succeeded().stdout;
        said.contains(" in 1 contents, database ")
    });
    let line = |heading: &str| {
        let found = said.lines().find(|line| line.starts_with(heading));
        found.unwrap_or_else(|| panic!("no {heading}: {said}")).to_owned()
    };
    assert!(
        line("server ").contains(&format!("xfer-server {}, since ", env!("CARGO_PKG_VERSION")))
    );
    let Server { address, fingerprint, .. } = &world.server;
    assert!(line("address ").ends_with(&format!("{address}, fingerprint {fingerprint}")));
    // Whatever is in a name, it does not move the cursor.
    assert!(line("store ").contains("xfer-\\u{1b}[2J") && !said.contains('\x1b'), "{said}");
    assert!(line("disk ").contains(" free of "), "{said}");
    assert!(line("accounts ").ends_with("2; deliveries that wait: 0 (0 B)"), "{said}");
    assert!(line("sessions ").contains("1 connected, 0 away; links: 1 log, "), "{said}");
    assert!(line("commits ").contains(" ms (p50), ") && line("commits ").ends_with(" ms (p99)"));
    assert!(
        line("queued ").contains("0 batches, 0 messages, 0 passwords; not durable: 0 changes"),
        "{said}"
    );
    let row = line("alice ");
    assert!(row.contains(" 127.0.0.1 ") && row.contains("  -  "), "{said}");
    assert!(line("bob ").contains("127.0.0.1  5"), "{said}");
    mount.unmount();
}

#[test]
fn programs_get_all_that_is_measured_and_who_is_there() {
    const BYTES: u64 = 2 << 20;
    let (world, pages) = world(&["alice", "bob"]);
    let mount = world.mount("alice");
    mount.shell(&format!("mkdir d; head -c {BYTES} /dev/urandom > d/file; sync d/file"));
    mount.sync();
    pages.wait_for("xfer_ops_not_durable", 0.0);
    let (status, metrics) = (json(&world.server), pages.read());
    assert_eq!(status["address"], world.server.address.to_string());
    assert_eq!(status["fingerprint"], world.server.fingerprint);
    let figures = &status["figures"];
    let of = |path: &str| figures.pointer(path).and_then(Value::as_f64).unwrap();
    for (path, series) in [
        ("/sessions/attached", "xfer_sessions{state=\"attached\"}"),
        ("/sessions/log_links", "xfer_links{kind=\"log\"}"),
        ("/sessions/begun", "xfer_sessions_begun_total{by=\"login\"}"),
        ("/counts/bytes_in", "xfer_received_bytes_total"),
        ("/counts/ops", "xfer_ops_applied_total"),
        ("/commits/batch/count", "xfer_commit_seconds_count"),
        ("/commits/transaction/count", "xfer_transaction_seconds_count"),
        ("/queued/ops_not_durable", "xfer_ops_not_durable"),
        ("/store/accounts", "xfer_accounts"),
        ("/process/started_secs", "process_start_time_seconds"),
    ] {
        assert!((of(path) - metrics.of(series)).abs() < 0.001, "{path}");
    }
    let login = &figures["logins"][0];
    assert_eq!(
        (&login["by"], &login["outcome"], &login["count"]),
        (&"password".into(), &"accepted".into(), &1.into())
    );
    assert!(of("/commits/batch/p50_secs") > 0.0 && of("/commits/batch/p99_secs") > 0.0);
    let session = &status["sessions"][0];
    assert_eq!(session["user"], "alice");
    assert_eq!(session["counts"]["bytes_in"], BYTES);
    assert_eq!(status["lockouts"], Value::Array(Vec::new()));
    mount.unmount();
}

#[test]
fn without_a_server_there_is_no_status() {
    let mut world = World::new(&[]);
    assert_eq!(world.server.terminate(), Some(0));
    for options in [&[][..], &["--json"], &["--watch"], &["--json", "--watch"]] {
        let line = run_within(&mut command(&world.server, options), PATIENCE).refused(NOT_RUNNING);
        assert!(line.contains("no server runs on this store"), "{line}");
    }
}

#[test]
fn without_a_terminal_the_status_is_printed_again_and_again_until_its_reader_has_enough() {
    let world = World::new(&[]);
    for (options, wanted) in [(&["--watch"][..], "server "), (&["--watch", "--json"], "{")] {
        let mut watch = command(&world.server, options).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut found = lines.filter(|line| line.starts_with(wanted));
        for line in found.by_ref().take(2) {
            assert!(!line.contains('\x1b'), "{line}");
            if wanted == "{" {
                serde_json::from_str::<Value>(&line).unwrap();
            }
        }
        drop(found);
        assert!(watch.wait().unwrap().success());
    }
}

#[test]
fn on_a_terminal_the_status_has_a_screen_of_its_own_which_goes_however_it_ends() {
    let mut world = World::new(&["alice"]);
    let watch = |world: &World| {
        let mut watch = OnPty::start(&command(&world.server, &["--watch"]));
        watch.says(OPEN);
        watch.says("0 connected, 0 away");
        watch
    };
    // It is drawn anew in place.
    let mut stopped = watch(&world);
    let mount = world.mount("alice");
    stopped.says("1 connected, 0 away");
    stopped.says("alice ");
    // Ctrl-Z shows the first screen until the program goes on.
    stopped.signal(Signal::TSTP);
    stopped.says(CLOSE);
    stopped.says(OPEN);
    stopped.says("1 connected");
    mount.unmount();
    stopped.says("0 connected");
    stopped.types("\x03");
    stopped.says(CLOSE);
    assert_eq!(stopped.ended(), Some(0));
    let mut terminated = watch(&world);
    terminated.signal(Signal::TERM);
    terminated.says(CLOSE);
    assert_eq!(terminated.ended(), Some(0));
    // If the server ends, the line that says so is on the first screen.
    let mut left = watch(&world);
    assert_eq!(world.server.terminate(), Some(0));
    left.says(CLOSE);
    left.says("no server runs on this store");
    assert_eq!(left.ended(), Some(i32::from(NOT_RUNNING)));
}
