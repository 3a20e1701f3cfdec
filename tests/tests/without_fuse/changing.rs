//! Changing a tree: `cp`, `mv`, `rm` and `mkdir`.
#![allow(clippy::unwrap_used)]

use xfer_tests::{Relay, World};

use crate::{at, bytes, json, log_in, log_in_at, world, write, xfer};

fn tree(world: &World, place: &str) -> String {
    xfer(world, &["find", place]).succeeded().stdout.replace('\n', " ")
}

fn outside(world: &World, name: &str) -> String {
    world.outside().join(name).display().to_string()
}

fn with_directory() -> World {
    let world = world(&["alice", "bob"]);
    write(&world, "d/sub/f", "text");
    write(&world, "d/g", "more");
    xfer(&world, &["put", "-r", "d", "{}:"]).succeeded();
    world
}

#[test]
fn files_and_directories_are_copied_and_the_data_is_shared() {
    let world = world(&["alice"]);
    write(&world, "big", bytes(16 << 20));
    xfer(&world, &["put", "big", "{}:"]).succeeded();
    let relay = Relay::to(world.server.address);
    let account = format!("alice@{}", relay.address);
    log_in_at(&world, &account, "alice");
    let before = relay.passed();
    world.xfer(&["cp", &format!("{account}:big"), ":copy"]).succeeded();
    let passed = relay.passed();
    let moved = passed.up + passed.down - before.up - before.down;
    assert!(moved < 1 << 20, "{moved} of 16 MiB");
    xfer(&world, &["get", "{}:copy", "copy"]).succeeded();
    assert!(crate::read(&world, "copy") == bytes(16 << 20));
}

#[test]
fn a_directory_is_copied_with_everything_in_it_and_never_into_itself() {
    let world = with_directory();
    let line = xfer(&world, &["cp", "{}:d", ":e"]).refused(1);
    assert!(line.contains("it is a directory; give -r"), "{line}");
    xfer(&world, &["cp", "-r", "{}:d", ":e"]).succeeded();
    assert_eq!(tree(&world, "{}:e"), "/e /e/g /e/sub /e/sub/f ");
    // Into one that is there.
    xfer(&world, &["cp", "-r", "{}:d", ":e"]).succeeded();
    assert_eq!(tree(&world, "{}:e/d"), "/e/d /e/d/g /e/d/sub /e/d/sub/f ");
    for to in [":d/sub", ":d/sub/new"] {
        let line = xfer(&world, &["cp", "-r", "{}:d", to]).refused(1);
        assert!(line.contains("into itself"), "{line}");
        let line = xfer(&world, &["mv", "{}:d", to]).refused(1);
        assert!(line.contains("into itself"), "{line}");
    }
    xfer(&world, &["cp", "{}:d/g", "{}:d/sub/f", ":e"]).succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:e/f", ":e/g"]).succeeded().stdout, "textmore");
    // Over a file that is there.
    xfer(&world, &["cp", "{}:e/f", ":e/g"]).succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:e/g"]).succeeded().stdout, "text");
    assert_eq!(tree(&world, "{}:d"), "/d /d/g /d/sub /d/sub/f ");
}

#[test]
fn files_and_directories_are_moved_and_renamed() {
    let world = with_directory();
    xfer(&world, &["mv", "{}:d", ":e"]).succeeded();
    xfer(&world, &["mv", "{}:e/g", ":e/sub/f"]).succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:e/sub/f"]).succeeded().stdout, "more");
    xfer(&world, &["mkdir", "{}:to"]).succeeded();
    xfer(&world, &["mv", "{}:e/*", ":to/"]).succeeded();
    assert_eq!(tree(&world, "{}:e"), "/e ");
    assert_eq!(tree(&world, "{}:to"), "/to /to/sub /to/sub/f ");
    let line = xfer(&world, &["mv", "{}:e", "{}:to", ":nothing"]).refused(1);
    assert!(line.contains("cannot write to '/nothing': no such file"), "{line}");
    let line = xfer(&world, &["mv", "{}:e", &format!("{}:x", at(&world, "bob"))]).refused(2);
    assert!(line.contains("are two accounts"), "{line}");
}

#[test]
fn of_two_with_one_name_the_second_is_neither_copied_nor_moved_over_the_first() {
    let world = world(&["alice"]);
    write(&world, "tree/a/f", "one");
    write(&world, "tree/b/f", "two");
    xfer(&world, &["put", "-r", "tree", "{}:"]).succeeded();
    for command in ["cp", "mv"] {
        let to = format!("{{}}:{command}");
        xfer(&world, &["mkdir", &to]).succeeded();
        let words = [command, "{}:tree/a/f", "{}:tree/b/f", &to];
        let line = xfer(&world, &words).refused(1);
        assert!(line.contains("'/tree/b/f': another file of this command goes to the same place"));
        assert_eq!(xfer(&world, &["cat", &format!("{to}/f")]).succeeded().stdout, "one");
        assert_eq!(xfer(&world, &["cat", "{}:tree/b/f"]).succeeded().stdout, "two");
    }
}

#[test]
fn a_directory_is_not_copied_over_a_link_which_stays_as_it_is() {
    let world = world(&["alice"]);
    write(&world, "tree/d/f", "text");
    std::os::unix::fs::symlink("d", world.outside().join("tree/link")).unwrap();
    xfer(&world, &["put", "-r", "tree", "{}:"]).succeeded();
    xfer(&world, &["mkdir", "{}:link"]).succeeded();
    let before = xfer(&world, &["ls", "-lR", "{}:tree"]).succeeded().stdout;
    let line = xfer(&world, &["cp", "-r", "{}:link", ":tree"]).refused(1);
    assert_eq!(line, "xfer: cannot copy '/link': it exists already");
    assert_eq!(xfer(&world, &["ls", "-lR", "{}:tree"]).succeeded().stdout, before);
}

#[test]
fn directories_are_removed_only_if_the_user_says_so() {
    let world = with_directory();
    let done = xfer(&world, &["rm", "{}:d", ":d/g", ":nothing"]);
    assert_eq!(done.code, Some(1));
    assert_eq!(done.stderr.lines().count(), 2, "{done}");
    assert_eq!(tree(&world, "{}:d"), "/d /d/sub /d/sub/f ");
    xfer(&world, &["rm", "-f", "{}:nothing", ":no*", ":d/f/f"]).succeeded();
    xfer(&world, &["rm", "-r", "{}:d"]).succeeded();
    assert_eq!(tree(&world, "{}:"), "/ /inbox /outbox /outbox/bob ");
    let line = xfer(&world, &["rm", "-rf", "{}:"]).refused(1);
    assert!(line.contains("it is the root of the tree"), "{line}");
}

#[test]
fn what_every_tree_has_is_neither_removed_nor_moved_nor_emptied() {
    let world = with_directory();
    log_in(&world, "bob");
    let to_bob = ["send", "d/g", "{}", "--to", "bob"];
    xfer(&world, &to_bob).succeeded();
    world.xfer(&["send", &outside(&world, "d/g"), &at(&world, "bob"), "--to", "alice"]).succeeded();
    let before = "/ /d /d/g /d/sub /d/sub/f /inbox /inbox/bob /inbox/bob/g /outbox /outbox/bob \
                  /outbox/bob/g ";
    assert_eq!(tree(&world, "{}:"), before);
    for (path, why) in [
        ("inbox", "every tree has it; give what is in it: inbox/*"),
        ("outbox", "every tree has it; give what is in it: outbox/*/*"),
        ("outbox/bob", "it is the mailbox of bob; give what is in it: outbox/bob/*"),
        ("", "it is the root of the tree"),
    ] {
        let place = format!("{{}}:{path}");
        let line = xfer(&world, &["rm", "-r", &place]).refused(1);
        assert_eq!(line, format!("xfer: cannot remove '/{path}': {why}"));
        let line = xfer(&world, &["mv", &place, ":elsewhere"]).refused(1);
        assert_eq!(line, format!("xfer: cannot move '/{path}': {why}"));
    }
    assert_eq!(tree(&world, "{}:"), before);
    xfer(&world, &["rm", "-r", "{}:outbox/*/*", ":inbox/*"]).succeeded();
    assert_eq!(tree(&world, "{}:"), "/ /d /d/g /d/sub /d/sub/f /inbox /outbox /outbox/bob ");
}

#[test]
fn a_copy_from_or_to_this_machine_is_refused_with_the_command_for_it() {
    let world = with_directory();
    for (command, arguments, named) in [
        ("cp", ["d/g", "{}:x"], "xfer cp copies within one tree; xfer put stores files"),
        ("cp", ["{}:d/g", "here"], "xfer cp copies within one tree; xfer get fetches files"),
        ("mv", ["d/g", "{}:x"], "xfer mv moves within one tree; xfer put stores files"),
        ("mv", ["{}:d/g", "."], "xfer mv moves within one tree; xfer get fetches files"),
        ("cp", ["{}:d/g", "{}"], "are two accounts; one command works on one; a port is followed"),
        (
            "cp",
            ["{}:d/g", "alice@host"],
            "'alice@host' has no path; write alice@host: for the root",
        ),
        ("cp", ["d/g", "here"], "'d/g' is not in a tree; write USER@HOST"),
    ] {
        let line = xfer(&world, &[command, arguments[0], arguments[1]]).refused(2);
        assert!(line.contains(named), "{line}");
    }
    // A colon alone is the same tree.
    xfer(&world, &["cp", "{}:d/g", ":here"]).succeeded();
}

#[test]
fn directories_are_made_with_those_above_them_if_the_user_says_so() {
    let world = world(&["alice"]);
    let line = xfer(&world, &["mkdir", "{}:a/b"]).refused(1);
    assert!(line.contains("cannot make '/a/b': no such file or directory"), "{line}");
    xfer(&world, &["mkdir", "-p", "{}:a/b/c", ":a/b", ":"]).succeeded();
    assert_eq!(tree(&world, "{}:a"), "/a /a/b /a/b/c ");
    let line = xfer(&world, &["mkdir", "{}:a"]).refused(1);
    assert!(line.contains("it exists already"), "{line}");
    write(&world, "f", "");
    xfer(&world, &["put", "f", "{}:"]).succeeded();
    let line = xfer(&world, &["mkdir", "-p", "{}:f/g"]).refused(1);
    assert!(line.contains("it exists already") || line.contains("not a directory"), "{line}");
}

#[test]
fn what_a_command_has_changed_is_on_the_servers_disk_when_it_is_done() {
    let mut world = with_directory();
    xfer(&world, &["mv", "{}:d", ":e"]).succeeded();
    world.server.kill();
    world.server.restart();
    let listed = json(&world, &["ls", "-R", "{}:e"]);
    let paths: Vec<_> = listed.as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert_eq!(paths, ["/e/g", "/e/sub", "/e/sub/f"]);
    assert_eq!(xfer(&world, &["cat", "{}:e/g"]).succeeded().stdout, "more");
}
