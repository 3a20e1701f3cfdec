//! The list of accounts: for people and for programs, with a server and without one.
#![allow(clippy::unwrap_used)]

use rustix::process::Signal;
use serde_json::{Value, json};
use xfer_tests::{PATIENCE, World, run_within, wait_until, world};

use crate::user;

/// The account of this name in the list for programs.
#[track_caller]
fn listed(world: &World, name: &str) -> Value {
    let list = user(world, &["list", "--json"]).succeeded().stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    let users = list["users"].as_array().unwrap();
    users.iter().find(|user| user["name"] == name).unwrap().clone()
}

/// The last column of an account's row in the list for people.
#[track_caller]
fn mounted_from(world: &World, name: &str) -> String {
    let list = user(world, &["list"]).succeeded().stdout;
    let row = list.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    row.rsplit("  ").next().unwrap().to_owned()
}

#[test]
fn the_list_says_where_each_account_is_mounted_and_which_mounts_are_away() {
    let mut world = World::new(&["alice", "bob"]);
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let away = format!("{host} (away)");
    let alice = world.mounting("alice").arg("-o").arg("wait=forever").start();
    assert_eq!(mounted_from(&world, "alice"), host);
    assert_eq!(mounted_from(&world, "bob"), "-");
    let session = listed(&world, "alice")["session"].clone();
    assert_eq!((&session["host"], &session["away"]), (&json!(host), &json!(false)));
    assert!(session["since_secs"].is_number() && session["away_secs"].is_null(), "{session}");
    assert_eq!(session["address"], "127.0.0.1");
    assert_eq!(listed(&world, "bob")["session"], Value::Null);
    // A store that a stopped server left has the sessions that may go on.
    world.server.kill();
    assert_eq!(mounted_from(&world, "alice"), away);
    let session = listed(&world, "alice")["session"].clone();
    assert_eq!((&session["away"], &session["away_secs"]), (&json!(true), &Value::Null));
    assert_eq!(mounted_from(&world, "bob"), "-");
    world.server.restart();
    wait_until("the mount to come back", PATIENCE, || mounted_from(&world, "alice") == host);
    alice.signal(Signal::KILL);
    wait_until("the mount to be away", PATIENCE, || mounted_from(&world, "alice") == away);
    assert!(listed(&world, "alice")["session"]["away_secs"].is_number());
    world.server.command(&["session", "end", "alice"]).succeeded();
    assert_eq!(mounted_from(&world, "alice"), "-");
}

#[test]
fn the_list_for_programs_has_what_the_one_for_people_has() {
    let world = World::new(&["alice --quota none", "bob --quota 1MiB"]);
    let alice = listed(&world, "alice");
    assert_eq!((&alice["quota_bytes"], &alice["quota_nodes"]), (&Value::Null, &Value::Null));
    assert_eq!((&alice["takes_passwords"], &alice["disabled"]), (&json!(true), &json!(false)));
    let bob = listed(&world, "bob");
    let quota = [&bob["used_bytes"], &bob["quota_bytes"], &bob["used_nodes"], &bob["quota_nodes"]];
    assert_eq!(quota, [&json!(0), &json!(1 << 20), &json!(3), &json!(10_000_000)]);
    let inbox = [&bob["inbox_used_bytes"], &bob["inbox_quota_bytes"]];
    assert_eq!(inbox, [&json!(0), &json!(1 << 30)]);
    let items = [&bob["inbox_used_items"], &bob["inbox_quota_items"]];
    assert_eq!(items, [&json!(0), &json!(10_000)]);
    user(&world, &["passwords", "bob", "off"]).succeeded();
    user(&world, &["expire", "bob", "--within", "30"]).succeeded();
    user(&world, &["disable", "alice"]).succeeded();
    let bob = listed(&world, "bob");
    assert_eq!((&bob["takes_passwords"], &bob["disabled"]), (&json!(false), &json!(false)));
    assert!(bob["disabled_from_secs"].is_number(), "{bob}");
    assert_eq!(listed(&world, "alice")["disabled"], json!(true));
}

#[test]
fn the_list_for_programs_says_who_is_blocked_after_wrong_passwords() {
    let world = World::new(&["alice"]);
    let wrong = world.outside().join("wrong");
    world::write_secret(&wrong, "wrong");
    let counted = || {
        let list = user(&world, &["list", "--json"]).succeeded().stdout;
        let list: Value = serde_json::from_str(&list).unwrap();
        list["wrong_passwords"].as_array().unwrap().clone()
    };
    assert_eq!(counted(), Vec::<Value>::new());
    for count in 1..=5 {
        run_within(world.mounting("alice").password_file(&wrong).command().arg("-f"), PATIENCE)
            .refused(9);
        let of_alice = counted().into_iter().find(|one| one["user"] == "alice").unwrap();
        let seen = (&of_alice["address"], &of_alice["count"]);
        assert_eq!(seen, (&json!("127.0.0.1"), &json!(count)));
        assert_eq!(of_alice["blocked_until_secs"].is_number(), count == 5, "{of_alice}");
    }
    // The other count is that of the address, whoever was asked for.
    assert_eq!(counted()[1]["user"], Value::Null);
}
