//! What a server's log says.
#![allow(clippy::unwrap_used)]

use std::fs;

use rustix::process::Signal;
use xfer_tests::{PATIENCE, World, wait_until};

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
    let taken_over = "why=\"taken over by a mount on ";
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
