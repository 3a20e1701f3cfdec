//! Sending to other users: `send`, `inbox` and `outbox`.
#![allow(clippy::unwrap_used)]

use xfer_tests::programs::{Running, shell};
use xfer_tests::{PATIENCE, Relay, World, run_within, wait_until};

use crate::{at, bytes, json, log_in_at, world, write, xfer};

fn inbox(world: &World, user: &str) -> Vec<(String, String)> {
    let printed = world.xfer(&["inbox", &at(world, user), "--json"]).succeeded().stdout;
    let listed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(|one| (text(&one["from"]), text(&one["path"]))).collect()
}

#[test]
fn files_and_directories_of_this_machine_are_sent_to_several_users() {
    let world = world(&["alice", "bob", "carol"]);
    write(&world, "report", "text");
    write(&world, "album/one", "1");
    write(&world, "album/sub/two", "2");
    let (alice, to) = (at(&world, "alice"), ["--to", "bob", "--to", "carol"]);
    xfer(&world, &[&["send", "report", "album", &alice][..], &to].concat()).succeeded();
    for user in ["bob", "carol"] {
        let expected = ["/inbox/alice/album", "/inbox/alice/report"];
        let expected = expected.map(|path| ("alice".to_owned(), path.to_owned()));
        assert_eq!(inbox(&world, user), expected);
        let place = format!("{}:inbox/alice/album/sub/two", at(&world, user));
        assert_eq!(world.xfer(&["cat", &place]).succeeded().stdout, "2");
    }
    let sent = json(&world, &["outbox", &alice]);
    assert_eq!(sent.as_array().unwrap().len(), 4);
    for one in sent.as_array().unwrap() {
        assert_eq!(one["state"], "received", "{one}");
        assert!(one["time"].is_string() && one["reason"].is_null(), "{one}");
    }
    assert_eq!((&sent[0]["to"], &sent[0]["path"]), (&"bob".into(), &"/outbox/bob/album".into()));
    let printed = xfer(&world, &["outbox", &alice]).succeeded().stdout;
    assert!(printed.starts_with("bob  album/  -  received 2"), "{printed}");
    // The same file, sent again, arrives again.
    xfer(&world, &["send", "report", &alice, "--to", "bob"]).succeeded();
    assert_eq!(inbox(&world, "bob").len(), 3);
    let printed = world.xfer(&["inbox", &at(&world, "bob")]).succeeded().stdout;
    assert!(printed.contains("alice  report (2)  4 B  2"), "{printed}");
    // Nothing else is left in the tree.
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "inbox\noutbox\n");
}

#[test]
fn each_recipient_gets_what_is_sent_once_with_the_senders_times() {
    const OLD: &str = "2001-02-03T04:05:06.123456789Z";
    let world = world(&["alice", "bob", "carol"]);
    write(&world, "report", "text");
    write(&world, "album/one", "1");
    let touch = "touch -h -d 2001-02-03T04:05:06.123456789Z";
    shell(&world.outside(), &format!("ln -s one album/link; {touch} report album/one album"));
    let to = ["{}", "--to", "bob", "--to", "carol", "--to", "bob"];
    xfer(&world, &[&["send", "report", "album"][..], &to].concat()).succeeded();
    xfer(&world, &["put", "report", "{}:figures"]).succeeded();
    xfer(&world, &["put", "-r", "album", "{}:photos"]).succeeded();
    xfer(&world, &[&["send", "{}:figures", "{}:photos"][..], &to].concat()).succeeded();
    for user in ["bob", "carol"] {
        assert_eq!(inbox(&world, user).len(), 4, "{user}");
        for path in ["report", "album", "album/one", "figures", "photos", "photos/one"] {
            let place = format!("{}:inbox/alice/{path}", at(&world, user));
            assert_eq!(json(&world, &["stat", &place])[0]["mtime"], OLD, "{user}: {path}");
        }
    }
}

#[test]
fn a_root_is_not_sent_and_nothing_else_is_for_it() {
    let world = world(&["alice", "bob", "carol"]);
    write(&world, "album/one", "1");
    xfer(&world, &["send", "album", "{}", "--to", "carol"]).succeeded();
    let check = || {
        for root in ["{}:", "/"] {
            let line = xfer(&world, &["send", root, "{}", "--to", "bob"]).refused(1);
            assert!(
                line.contains("cannot send '/': the root has no name to arrive under"),
                "{line}"
            );
        }
    };
    check();
    let alice = world.mount("alice");
    check();
    alice.unmount();
    assert_eq!(inbox(&world, "bob"), []);
    assert_eq!(inbox(&world, "carol").len(), 1);
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "inbox\noutbox\n");
}

#[test]
fn of_two_with_one_name_only_the_first_is_sent() {
    let world = world(&["alice", "bob"]);
    write(&world, "a/f", "one");
    write(&world, "b/f", "two");
    xfer(&world, &["put", "b/f", "{}:f"]).succeeded();
    let refused = xfer(&world, &["send", "a/f", "b/f", "{}:f", "{}", "--to", "bob"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    let why = "another file of this command goes to the same place";
    assert_eq!(
        refused.stderr,
        format!("xfer: cannot send 'b/f': {why}\nxfer: cannot send '/f': {why}\n")
    );
    assert_eq!(inbox(&world, "bob").len(), 1);
    let place = format!("{}:inbox/alice/f", at(&world, "bob"));
    assert_eq!(world.xfer(&["cat", &place]).succeeded().stdout, "one");
}

#[test]
fn what_is_in_the_tree_is_sent_too() {
    let world = world(&["alice", "bob"]);
    write(&world, "d/f", "text");
    xfer(&world, &["put", "-r", "d", "{}:"]).succeeded();
    xfer(&world, &["send", "{}:d", "{}:d/f", "{}", "--to", "bob"]).succeeded();
    let paths: Vec<_> = inbox(&world, "bob").into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["/inbox/alice/d", "/inbox/alice/f"]);
    assert_eq!(xfer(&world, &["cat", "{}:d/f"]).succeeded().stdout, "text");
    // cp and put into a mailbox send as well.
    xfer(&world, &["cp", "{}:d/f", ":outbox/bob/copy"]).succeeded();
    xfer(&world, &["put", "-r", "d", "{}:outbox/bob/put"]).succeeded();
    xfer(&world, &["mv", "{}:d", ":outbox/bob/moved"]).succeeded();
    let names = ["copy", "d", "f", "moved", "put"].map(|name| format!("/inbox/alice/{name}"));
    let paths: Vec<_> = inbox(&world, "bob").into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, names);
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "inbox\noutbox\n");
}

#[test]
fn a_directory_of_the_same_name_is_sent_as_a_new_version() {
    let world = world(&["alice", "bob"]);
    for (way, text) in [("send", "one"), ("send", "two"), ("put", "three"), ("cp", "four")] {
        write(&world, "album/file", text);
        match way {
            "send" => xfer(&world, &["send", "album", "{}", "--to", "bob"]),
            "put" => xfer(&world, &["put", "-r", "album", "{}:outbox/bob/"]),
            _ => {
                xfer(&world, &["put", "-r", "album", "{}:"]).succeeded();
                xfer(&world, &["cp", "-r", "{}:album", ":outbox/bob/"])
            }
        }
        .succeeded();
    }
    let bob = at(&world, "bob");
    let texts = ["album", "album (2)", "album (3)", "album (4)"].map(|name| {
        let place = format!("{bob}:inbox/alice/{name}/file");
        world.xfer(&["cat", &place]).succeeded().stdout
    });
    assert_eq!(texts, ["one", "two", "three", "four"]);
    assert_eq!(json(&world, &["outbox", "{}"]).as_array().unwrap().len(), 1);
    // One that waits has not been sent yet, so it is not replaced.
    let mount = world.mount("alice");
    mount.shell("mkdir -p outbox/bob/held; echo 1 > outbox/bob/held/file");
    xfer(&world, &["outbox", "cancel", "{}:outbox/bob/held"]).succeeded();
    write(&world, "held/file", "2");
    let line = xfer(&world, &["send", "held", "{}", "--to", "bob"]).refused(1);
    assert!(line.ends_with("a directory of that name waits to be sent; remove that"), "{line}");
}

#[test]
fn what_can_t_be_sent_is_said_and_nothing_of_it_is_left() {
    let world = world(&["alice", "bob"]);
    world.server.command(&["user", "quota", "bob", "--inbox", "1MiB"]).succeeded();
    write(&world, "big", bytes(3 << 20));
    write(&world, "d/big", bytes(3 << 20));
    let refused = |arguments: &[&str]| xfer(&world, arguments).refused(1);
    let line = refused(&["send", "big", "{}", "--to", "bob"]);
    assert_eq!(line, "xfer: cannot send 'big': the inbox of bob is full");
    let line = refused(&["send", "d", "{}", "--to", "bob"]);
    assert_eq!(line, "xfer: cannot send 'd': the inbox of bob is full");
    let line = refused(&["send", "big", "{}", "--to", "nobody"]);
    assert_eq!(line, "xfer: there is no user nobody to send to");
    xfer(&world, &["put", "big", "{}:"]).succeeded();
    let line = refused(&["send", "{}:big", "{}", "--to", "bob"]);
    assert_eq!(line, "xfer: cannot send '/big': the inbox of bob is full");
    let line = refused(&["cp", "{}:big", ":outbox/bob/"]);
    assert_eq!(line, "xfer: cannot send '/big': the inbox of bob is full");
    assert_eq!(json(&world, &["outbox", "{}"]).as_array().unwrap().len(), 0);
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "big\ninbox\noutbox\n");
    let line = xfer(&world, &["send", "big", "{}", "--to", "Bob"]).refused(2);
    assert!(line.contains("cannot be a user name"), "{line}");
    let line = xfer(&world, &["send", "big", "{}", "--to", "bob", "--to", "alice"]).refused(2);
    assert!(line.ends_with("--to alice: that is the account that sends; name others"), "{line}");
    xfer(&world, &["mkdir", "{}:d"]).succeeded();
    let line = refused(&["cp", "{}:big", ":outbox/alice/big"]);
    assert!(line.ends_with("there is no other user alice to send to"), "{line}");
}

#[test]
fn what_one_user_has_no_room_for_is_sent_to_the_others_all_the_same() {
    let world = world(&["alice", "bob", "carol"]);
    world.server.command(&["user", "quota", "bob", "--inbox", "64KiB"]).succeeded();
    write(&world, "report", "old");
    write(&world, "album/photo", "old");
    let send = ["send", "report", "album", "{}", "--to", "bob", "--to", "carol"];
    xfer(&world, &send).succeeded();
    write(&world, "report", bytes(100_000));
    write(&world, "album/photo", bytes(100_000));
    write(&world, "note", "small");
    let send = ["send", "album", "report", "note", "{}", "--to", "bob", "--to", "carol"];
    let done = xfer(&world, &send);
    assert_eq!(done.code, Some(1), "{done}");
    let mut lines: Vec<&str> = done.stderr.lines().collect();
    lines.sort();
    let expected = ["album", "report"]
        .map(|name| format!("xfer: cannot send '{name}': the inbox of bob is full"));
    assert_eq!(lines, expected);
    let names = |user: &str| {
        inbox(&world, user).into_iter().map(|(_, path)| path.replace("/inbox/alice/", ""))
    };
    assert!(names("bob").eq(["album", "note", "report"]), "{:?}", inbox(&world, "bob"));
    assert!(names("carol").eq(["album", "album (2)", "note", "report", "report (2)"]));
    for name in ["album (2)/photo", "report (2)"] {
        let place = format!("{}:inbox/alice/{name}", at(&world, "carol"));
        let back = world.outside().join("back");
        world.xfer(&["get", &place, back.to_str().unwrap()]).succeeded();
        assert!(std::fs::read(&back).unwrap() == bytes(100_000), "{name}");
    }
    // One that can't be stored keeps back nothing else.
    write(&world, "other/file", "text");
    std::os::unix::net::UnixListener::bind(world.outside().join("album/socket")).unwrap();
    let done = xfer(&world, &["send", "nothing", "album", "other", "{}", "--to", "carol"]);
    let lines: Vec<&str> = done.stderr.lines().collect();
    let expected = [
        "xfer: cannot read 'nothing': no such file or directory",
        "xfer: cannot read 'album/socket': it is not a regular file",
        "xfer: cannot send 'album': not all of it could be stored",
    ];
    assert_eq!(lines, expected);
    assert!(names("carol").any(|name| name == "other"));
    assert!(!names("carol").any(|name| name == "album (3)"));
}

#[test]
fn a_recipient_who_is_away_is_waited_for_and_the_outbox_says_so() {
    let world = world(&["alice", "bob"]);
    write(&world, "f", "text");
    xfer(&world, &["send", "f", "{}", "--to", "bob"]).succeeded();
    let state = || json(&world, &["outbox", "{}"])[0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "sent");
    let mount = world.mount("bob");
    wait_until("the arrival", PATIENCE, || mount.path("inbox/alice/f").exists());
    mount.unmount();
    assert_eq!(state(), "received");
}

#[test]
fn orders_for_what_is_in_the_outbox_are_obeyed_with_a_mount_and_without() {
    let world = world(&["alice", "bob"]);
    world.server.command(&["user", "quota", "bob", "--inbox", "64KiB"]).succeeded();
    let account = at(&world, "alice");
    let state = |name: &str| {
        let listed = json(&world, &["outbox", &account]);
        let all = listed.as_array().unwrap();
        let one = all.iter().find(|one| one["path"] == format!("/outbox/bob/{name}")).unwrap();
        one["state"].as_str().unwrap().to_owned()
    };
    // With a mount.
    let mount = world.mount("alice");
    mount.shell("echo one > outbox/bob/one.part; echo two > outbox/bob/two.part");
    xfer(&world, &["outbox", "cancel", "{}:outbox/bob/one.part", ":outbox/bob/two.part"])
        .succeeded();
    assert_eq!((state("one.part"), state("two.part")), ("held".to_owned(), "held".to_owned()));
    xfer(&world, &["outbox", "send", "{}:outbox/bob/o*"]).succeeded();
    let again = xfer(&world, &["outbox", "send", "{}:outbox/bob/one.part"]).refused(1);
    assert!(again.contains("it was sent already; to send it again: xfer send"), "{again}");
    mount.shell("head -c 90000 /dev/zero > outbox/bob/large || true");
    wait_until("it to wait", PATIENCE, || state("large") == "waiting");
    mount.unmount();
    // Without.
    assert_eq!(state("two.part"), "held");
    xfer(&world, &["outbox", "send", "{}:outbox/bob/two.part"]).succeeded();
    let refused = xfer(&world, &["outbox", "retry", &account]).refused(1);
    assert!(refused.contains("the inbox is full; it is sent when there is room"), "{refused}");
    world.server.command(&["user", "quota", "bob", "--inbox", "1MiB"]).succeeded();
    xfer(&world, &["outbox", "retry", &account]).succeeded();
    // By a path in the mount, relative or absolute.
    let mount = world.mount("alice");
    mount.shell("echo one > outbox/bob/1:a.part; echo two > 'outbox/bob/[b].part'");
    let by_path = |order: &str, path: &str| {
        let mut command = world.xfer_command(&["outbox", order, path]);
        run_within(command.current_dir(mount.path("outbox/bob")), PATIENCE)
    };
    let absolute = mount.path("outbox/bob/[b].part");
    by_path("cancel", "1:a.part").succeeded();
    by_path("cancel", absolute.to_str().unwrap()).succeeded();
    assert_eq!((state("1:a.part"), state("[b].part")), ("held".to_owned(), "held".to_owned()));
    by_path("cancel", "nothing").refused(1);
    by_path("send", "./1:a.part").succeeded();
    mount.unmount();
    let elsewhere = xfer(&world, &["outbox", "send", "mine"]).refused(2);
    assert!(elsewhere.contains("mine' is not in a tree; write USER@HOST"), "{elsewhere}");
    let elsewhere = xfer(&world, &["outbox", "send", "{}:inbox"]).refused(1);
    assert!(elsewhere.contains("it is not in the outbox"), "{elsewhere}");
    let arrived: Vec<String> = inbox(&world, "bob").into_iter().map(|(_, path)| path).collect();
    let expected =
        ["1:a.part", "large", "one.part", "two.part"].map(|name| format!("/inbox/alice/{name}"));
    assert_eq!(arrived, expected);
}

#[test]
fn a_server_that_went_away_is_said_once_and_waited_for_once() {
    let mut world = world(&["alice", "bob"]);
    write(&world, "f", "text");
    let mount = world.mounting("alice").arg("-o").arg("wait=2").start();
    mount.shell("ls -R > /dev/null");
    world.server.kill();
    let line = xfer(&world, &["send", "f", "{}", "--to", "bob"]).refused(1);
    assert_eq!(line, "xfer: cannot send 'f': the server does not answer");
    world.server.restart();
    wait_until("the mount to be connected", PATIENCE, || mount.is_connected());
    assert_eq!(mount.shell("ls -A outbox/bob"), "");
    xfer(&world, &["send", "f", "{}", "--to", "bob"]).succeeded();
    mount.unmount();
    // A session of the command waits for half a minute, and then it is over.
    let relay = Relay::to(world.server.address);
    let account = format!("alice@{}", relay.address);
    log_in_at(&world, &account, "alice");
    write(&world, "big", bytes(96 << 20));
    let begun = relay.passed().up;
    let mut command = world.xfer_command(&["send", "big", &account, "--to", "bob"]);
    let mut send = Running::start(command.current_dir(world.outside()));
    wait_until("a part", PATIENCE, || relay.passed().up - begun > 8 << 20);
    relay.cut();
    assert_eq!(send.ended_within(PATIENCE), Some(1), "{}", send.said());
    let line = "xfer: cannot write '/outbox/bob/big': the server does not answer";
    assert_eq!(send.said(), line);
    relay.mend();
    assert_eq!(inbox(&world, "bob"), [("alice".to_owned(), "/inbox/alice/f".to_owned())]);
}
