//! What a server's log says, and how urgent the journal takes it to be.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use xfer_server::listener::half_open::PLACES;
use xfer_tests::metrics::Pages;
use xfer_tests::programs::{program, run_within};
use xfer_tests::strangers::{Manner, Origin, Strangers};
use xfer_tests::{PATIENCE, Server, World, wait_until};

/// The address of strangers.
const HERE: Origin = Origin::Here(Ipv4Addr::LOCALHOST);

/// Waits until the log has a line with all of these words.
#[track_caller]
fn logged(world: &World, words: &[&str]) {
    wait_until(&format!("{words:?}"), PATIENCE, || {
        world.server.said().lines().any(|line| words.iter().all(|word| line.contains(word)))
    });
}

#[test]
fn each_end_of_a_session_says_who_ended_it_and_whether_it_can_go_on() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    world.mount("alice").unmount();
    logged(&world, &["INFO", "session ends", "user=alice", "why=\"logged out\""]);
    let bob = world.mount("bob");
    bob.signal(Signal::KILL);
    let closed = "why=\"the client closed the connection\"";
    logged(&world, &["INFO", "session is away", "user=bob", closed]);
    let mut carol = world.mount("carol");
    carol.shell("echo text > file; sync file");
    world.server.command(&["session", "end", "carol"]).succeeded();
    let by_administrator = "why=\"ended by the server's administrator";
    logged(&world, &["INFO", "session ends", "user=carol", by_administrator]);
    carol.unmounted_by_force();
    let first = world.mount("dave");
    first.shell("echo text > file; sync file");
    let elsewhere = world.outside().join("second");
    fs::create_dir(&elsewhere).unwrap();
    let second = world.mounting("dave").at(&elsewhere).arg("--takeover").start();
    let taken_over = "why=\"taken over by a client on ";
    logged(&world, &["INFO", "session gives its seat up", "user=dave", taken_over]);
    // The server's own end is not one of the clients'.
    let said = world.server.said();
    assert_eq!(world.server.terminate(), Some(0));
    logged(&world, &["INFO", "session is away", "user=dave", "why=\"the server is stopping\""]);
    let closed_since = world.server.said().matches(closed).count() - said.matches(closed).count();
    assert_eq!(closed_since, 0, "{}", world.server.said());
    world.server.restart();
    second.unmount();
    first.unmount();
}

/// A program whose standard error is this file, which is the journal as far as the program knows.
fn with_journal(file: &Path) -> Command {
    const RUN: &str = "exec 2>> \"$0\"\n\
        export JOURNAL_STREAM=$(stat -Lc %d:%i \"$0\") XFER_LOG=debug\n\
        exec \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", RUN]).arg(file).arg(program("xfer-server"));
    command
}

#[test]
fn in_the_journal_each_line_has_the_severity_of_its_event_and_elsewhere_none() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, store) = (directory.path().join("journal"), directory.path().join("store"));
    let options = ["--metrics", "127.0.0.1:0"];
    let mut server = Server::start_as(with_journal(&journal), &store, "127.0.0.1:0", &options);
    // A request that is none is a matter for those who look for faults.
    let log = || fs::read_to_string(&journal).unwrap();
    assert_eq!(Pages::named_in(&log()).ask("nonsense\r\n\r\n").unwrap().status, 400);
    wait_until("a line about it", PATIENCE, || log().contains(" DEBUG "));
    let crowd = Strangers::come(server.address, PLACES + 1, Manner::Silent, HERE);
    wait_until("a warning of it", PATIENCE, || log().contains(" WARN "));
    drop(crowd);
    fs::rename(&store, directory.path().join("moved")).unwrap();
    assert_eq!(server.ended(), Some(16));
    let said = log();
    let mut levels = Vec::new();
    for line in said.lines() {
        // The line that says why the program ends is no event of the log.
        let level = match line.contains(" xfer-server: ") || line.starts_with("<3>xfer-server: ") {
            true => "ERROR",
            false => line.split_whitespace().nth(1).unwrap(),
        };
        let severity = match level {
            "ERROR" => "<3>",
            "WARN" => "<4>",
            "INFO" => "<6>",
            "DEBUG" | "TRACE" => "<7>",
            _ => panic!("{line}"),
        };
        assert!(line.starts_with(severity), "{line}");
        levels.push(level);
    }
    for level in ["ERROR", "WARN", "INFO", "DEBUG"] {
        assert!(levels.contains(&level), "no {level}: {said}");
    }
    assert!(said.lines().last().unwrap().starts_with("<3>xfer-server: "), "{said}");
    // A file that is not the journal's gets no marks, whatever the environment says.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(program("xfer-server"));
    command.args(["run", "--listen", &address, "--store"]).arg(&store);
    let line = run_within(command.env("JOURNAL_STREAM", "1:1"), PATIENCE).refused(5);
    assert!(line.starts_with("xfer-server: cannot listen"), "{line}");
}
