//! Telling of what arrives: `xfer inbox --follow`, `--exec` and `--notify`, and notes to what is sent.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use xfer_tests::desktop::Desktop;
use xfer_tests::files::{set_xattr, xattr_text};
use xfer_tests::programs::Running;
use xfer_tests::sending::A_WHILE;
use xfer_tests::waiting::holds_for;
use xfer_tests::{PATIENCE, World, wait_until};

use crate::{at, json, read, world, write, xfer};

/// Sends a file with this name and text from alice to bob.
#[track_caller]
fn send(world: &World, name: &str) {
    write(world, name, name);
    xfer(world, &["send", name, "{}", "--to", "bob"]).succeeded();
}

/// `xfer inbox` of bob with these options, as it runs.
fn inbox(world: &World, options: &[&str]) -> Running {
    let account = at(world, "bob");
    let mut command = world.xfer_command(&[&["inbox", &account][..], options].concat());
    Running::start(command.current_dir(world.outside()))
}

/// Waits until an arrival of this name is printed as JSON, in a line of its own.
fn told(follower: &mut Running, name: &str) -> Value {
    let path = format!("/inbox/alice/{name}");
    follower.line(name, |line| {
        serde_json::from_str(line).ok().filter(|arrival: &Value| arrival["path"] == path)
    })
}

/// How often something was printed for an arrival of this name.
fn times_told(follower: &Running, name: &str) -> usize {
    follower.said().matches(&format!("/inbox/alice/{name}\"")).count()
}

/// What it is noted that it was done for, of all things that are done for arrivals.
fn notes(world: &World) -> String {
    let directory = world.home().join(".local/state/xfer/inbox");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let notes = files.filter(|path| path.extension().is_none());
    notes.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[track_caller]
fn ends_by_a_signal(mut follower: Running) {
    follower.signal(Signal::TERM);
    assert!([None, Some(130)].contains(&follower.ended_within(PATIENCE)), "{}", follower.said());
}

#[test]
fn a_note_goes_along_with_what_is_sent_and_no_further() {
    let world = world(&["alice", "bob", "carol"]);
    write(&world, "file", "text");
    write(&world, "album/one", "1");
    let note = "the numbers\nof May & June";
    let send = ["send", "file", "album", "{}", "--to", "bob", "--to", "carol", "--note", note];
    xfer(&world, &send).succeeded();
    for user in ["bob", "carol"] {
        let arrived = json(&world, &["inbox", &at(&world, user)]);
        let notes: Vec<_> = arrived.as_array().unwrap().iter().map(|one| &one["note"]).collect();
        assert_eq!(notes, [note, note], "{arrived}");
    }
    let listed = xfer(&world, &["inbox", &at(&world, "bob")]).succeeded().stdout;
    assert!(listed.contains("the numbers\\nof May & June"), "{listed}");
    // With a mount, it is an attribute.
    let bob = world.mount("bob");
    let arrived = bob.path("inbox/alice/file");
    assert_eq!(xattr_text(&arrived, "user.xfer.from.note").as_deref(), Some(note));
    bob.shell(
        "mv inbox/alice/file outbox/carol/forwarded; cp -a inbox/alice/album outbox/carol/again",
    );
    let to_carol = || json(&world, &["inbox", &at(&world, "carol")]);
    wait_until("both", PATIENCE, || to_carol().as_array().unwrap().len() == 4);
    for one in to_carol().as_array().unwrap().iter().filter(|one| one["from"] == "bob") {
        assert_eq!((&one["note"], one["sent"].is_string()), (&Value::Null, true), "{one}");
    }
    // Any program can write one, and what is no note is refused.
    let mail = bob.path("outbox/carol/file");
    bob.shell("echo text > outbox/carol/.file.part");
    let part = bob.path("outbox/carol/.file.part");
    for wrong in [&b"\x1b[2J"[..], b"\xff", &[b'x'; 1001]] {
        assert!(set_xattr(&part, "user.xfer.note", wrong).is_err());
    }
    set_xattr(&part, "user.xfer.note", b"by hand").unwrap();
    std::fs::rename(part, &mail).unwrap();
    let carol = world.mount("carol");
    let arrived = carol.path("inbox/bob/file");
    wait_until("it", PATIENCE, || arrived.exists());
    assert_eq!(xattr_text(&arrived, "user.xfer.from.note").as_deref(), Some("by hand"));
    let line = xfer(&world, &["send", "file", "{}", "--to", "bob", "--note", ""]).refused(2);
    assert!(
        line.contains("--note: a note has 1 to 1000 bytes of text, without control characters"),
        "{line}"
    );
    xfer(&world, &["send", "file", "{}", "--to", "bob", "--note", "-- alice"]).succeeded();
}

#[test]
fn what_arrives_at_a_mount_is_told_of_and_the_mount_can_end_and_come_again_meanwhile() {
    let world = world(&["alice", "bob"]);
    send(&world, "before");
    let bob = world.mount("bob");
    let mut follower = inbox(&world, &["--follow", "--json"]);
    let first = told(&mut follower, "before");
    assert_eq!((&first["from"], &first["size"]), (&"alice".into(), &6.into()), "{first}");
    send(&world, "meanwhile");
    told(&mut follower, "meanwhile");
    // What the user puts there is no arrival.
    bob.shell("echo own > inbox/alice/own; mv inbox/alice/before inbox/alice/renamed");
    bob.unmount();
    send(&world, "unmounted");
    let bob = world.mount("bob");
    told(&mut follower, "unmounted");
    send(&world, "last");
    told(&mut follower, "last");
    for name in ["before", "meanwhile", "unmounted", "last"] {
        assert_eq!(times_told(&follower, name), 1, "{}", follower.said());
    }
    let said = follower.said();
    assert!(!said.contains("renamed") && !said.contains("/own"), "{said}");
    assert!(follower.is_running());
    ends_by_a_signal(follower);
    bob.unmount();
}

#[test]
fn a_session_tells_of_what_arrives_and_gives_the_seat_back_at_its_end() {
    let world = world(&["alice", "bob"]);
    let mut follower = inbox(&world, &["--follow"]);
    wait_until("its session", PATIENCE, || {
        world.server.command(&["session", "list"]).stdout.contains("bob")
    });
    send(&world, "file");
    follower.line("it", |line| line.starts_with("alice  file  4 B  2").then_some(()));
    ends_by_a_signal(follower);
    world.mount("bob").unmount();
    // Only through a mount: then none is begun.
    let account = at(&world, "bob");
    let line = world.xfer(&["inbox", "--mounted", &account]).refused(13);
    assert!(line.ends_with(&format!("{account}: it is not mounted on this machine")), "{line}");
    let mut follower = inbox(&world, &["--follow", "--mounted", "--json"]);
    let bob = world.mount("bob");
    told(&mut follower, "file");
    ends_by_a_signal(follower);
    bob.unmount();
}

#[test]
fn a_command_is_run_for_each_arrival_until_it_has_succeeded_once() {
    let world = world(&["alice", "bob"]);
    write(&world, "it's $(odd)", "text");
    let send_odd = ["send", "it's $(odd)", "{}", "--to", "bob", "--note", "for you"];
    xfer(&world, &send_odd).succeeded();
    let print = r#"printf '%s|' "$XFER_FROM" "$XFER_NAME" "$XFER_KIND" "$XFER_SIZE" "$XFER_NOTE" >> log; test -e ready"#;
    let exec = |extra: &[&str]| {
        let account = at(&world, "bob");
        let line = [&["inbox", &account, "--exec", print][..], extra].concat();
        xfer(&world, &line)
    };
    let log = || String::from_utf8(read(&world, "log")).unwrap();
    let first = "alice|it's $(odd)|file|4|for you|";
    let line = exec(&[]).refused(1);
    let why = "the command for '/inbox/alice/it's $(odd)' failed: it ended with code 1";
    assert_eq!(line, format!("xfer: {why}; it is run again with the next arrival"));
    assert_eq!(log(), first);
    write(&world, "ready", "");
    let printed = exec(&[]).succeeded().stdout;
    assert!(printed.starts_with("alice  it's $(odd)  4 B"), "{printed}");
    assert_eq!(log(), first.repeat(2));
    assert_eq!(exec(&[]).succeeded().stdout, "");
    assert_eq!(log(), first.repeat(2));
    // The same by a mount: what was done without one stays done.
    let bob = world.mount("bob");
    send(&world, "second");
    wait_until("it", PATIENCE, || bob.path("inbox/alice/second").exists());
    exec(&[]).succeeded();
    assert_eq!(log(), format!("{}alice|second|file|6||", first.repeat(2)));
    bob.unmount();
    // Another command is another thing to do, for all that is there.
    let account = at(&world, "bob");
    xfer(&world, &["inbox", &account, "--exec", "echo >> others"]).succeeded();
    assert_eq!(read(&world, "others"), b"\n\n");
    // What is not in the inbox any more is forgotten.
    assert_eq!(notes(&world).lines().count(), 4);
    xfer(&world, &["rm", &format!("{account}:inbox/alice/second")]).succeeded();
    assert_eq!(exec(&[]).succeeded().stdout, "");
    assert_eq!(notes(&world).lines().count(), 3);
}

#[test]
fn a_command_that_fails_is_run_again_with_the_next_arrival_and_not_before() {
    let world = world(&["alice", "bob"]);
    for way in ["session", "mount"] {
        let mount = (way == "mount").then(|| world.mount("bob"));
        let command = format!(r#"echo "$XFER_NAME" >> {way}; false"#);
        let follower = inbox(&world, &["--follow", "--exec", &command]);
        let log = || std::fs::read_to_string(world.outside().join(way)).unwrap_or_default();
        let before = log().lines().count();
        send(&world, &format!("one-{way}"));
        wait_until("the first", PATIENCE, || log().contains("one-"));
        assert!(holds_for(A_WHILE, || log().matches("one-").count() == 1), "{}", log());
        send(&world, &format!("two-{way}"));
        wait_until("both", PATIENCE, || log().contains("two-"));
        assert!(
            holds_for(A_WHILE, || log().matches(&format!("one-{way}")).count() == 2),
            "{}",
            log()
        );
        assert!(before == 0, "{before}");
        ends_by_a_signal(follower);
        if let Some(mount) = mount {
            mount.shell("rm -r inbox/alice");
            mount.unmount();
        } else {
            let place = format!("{}:inbox/alice", at(&world, "bob"));
            xfer(&world, &["rm", "-r", &place]).succeeded();
        }
    }
}

#[test]
fn a_command_finds_the_file_and_may_use_the_tree_itself() {
    let world = world(&["alice", "bob"]);
    let program = xfer_tests::programs::program("xfer");
    let take = format!(
        r#"{0} get "$XFER_PLACE" taken && {0} rm "$XFER_PLACE" && mv taken "$XFER_NAME.taken""#,
        program.display()
    );
    // Without a mount, the session is not in the way of the command.
    let mut follower = inbox(&world, &["--follow", "--exec", &take]);
    for name in ["one", "two"] {
        send(&world, name);
        let taken = world.outside().join(format!("{name}.taken"));
        wait_until(name, PATIENCE, || taken.exists());
        assert_eq!(std::fs::read(&taken).unwrap(), name.as_bytes());
    }
    // Another one for the same would do everything twice.
    let account = at(&world, "bob");
    let line = xfer(&world, &["inbox", &account, "--exec", &take]).refused(1);
    assert!(line.contains("another `xfer inbox` does the same"), "{line}");
    follower.signal(Signal::INT);
    assert_eq!(follower.ended_within(PATIENCE), Some(130), "{}", follower.said());
    // With a mount, it has a path of this machine.
    let bob = world.mount("bob");
    let mut follower = inbox(&world, &["-f", "--exec", r#"cp "$XFER_FILE" copied"#]);
    send(&world, "three");
    follower.line("it", |line| line.starts_with("alice  three").then_some(()));
    let copied = world.outside().join("copied");
    wait_until("the copy", PATIENCE, || std::fs::read(&copied).is_ok_and(|text| text == b"three"));
    assert_eq!(bob.shell("ls inbox/alice"), "three");
    ends_by_a_signal(follower);
}

#[test]
fn a_follower_that_is_killed_or_stops_for_a_while_tells_of_nothing_twice_and_forgets_nothing() {
    let world = world(&["alice", "bob"]);
    let bob = world.mount("bob");
    let exec = ["--follow", "--exec", r#"echo "$XFER_NAME" >> log"#];
    let log = || String::from_utf8_lossy(&read(&world, "log")).into_owned();
    write(&world, "log", "");
    let follower = inbox(&world, &exec);
    send(&world, "one");
    wait_until("one", PATIENCE, || log() == "one\n");
    wait_until("a note of it", PATIENCE, || !notes(&world).is_empty());
    follower.signal(Signal::KILL);
    drop(follower);
    send(&world, "two");
    let follower = inbox(&world, &exec);
    wait_until("two", PATIENCE, || log() == "one\ntwo\n");
    follower.signal(Signal::STOP);
    send(&world, "three");
    send(&world, "four");
    wait_until("both", PATIENCE, || bob.path("inbox/alice/four").exists());
    follower.signal(Signal::CONT);
    wait_until("all", PATIENCE, || log() == "one\ntwo\nthree\nfour\n");
    ends_by_a_signal(follower);
    bob.unmount();
}

#[test]
fn the_desktop_shows_a_notice_of_each_arrival_once_and_one_of_many() {
    let world = world(&["alice", "bob"]);
    let account = at(&world, "bob");
    let line = world
        .xfer_command(&["inbox", &account, "--notify"])
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .output()
        .unwrap();
    let line = String::from_utf8_lossy(&line.stderr).into_owned();
    assert!(line.contains("--notify: nothing shows notices in this login"), "{line}");
    assert_eq!(line.trim().lines().count(), 1, "{line}");

    let directory = tempfile::tempdir().unwrap();
    let desktop = Desktop::start(directory.path());
    let bob = world.mount("bob");
    let mut command = world.xfer_command(&["inbox", &account, "--follow", "--notify"]);
    command.env("DBUS_SESSION_BUS_ADDRESS", desktop.address());
    let follower = Running::start(&mut command);
    write(&world, "one", "text");
    xfer(&world, &["send", "one", "{}", "--to", "bob", "--note", "<b>for</b> you"]).succeeded();
    wait_until("the notice", PATIENCE, || desktop.notices().len() == 1);
    let notice = desktop.notices().remove(0);
    assert!(notice.contains("alice sent you one"), "{notice}");
    assert!(notice.contains("&lt;b&gt;for&lt;/b&gt; you"), "{notice}");
    assert!(!notice.contains("<b>"), "{notice}");
    // It is noted once the desktop has it. What is killed in between shows it again.
    let kept = world.home().join(".local/state/xfer/inbox");
    // While it is being written it has another name, with an extension.
    let is_note = |path: &Path| path.extension().is_none() && path.metadata().unwrap().len() > 0;
    wait_until("a note of the notice", PATIENCE, || {
        std::fs::read_dir(&kept).unwrap().flatten().any(|entry| is_note(&entry.path()))
    });
    ends_by_a_signal(follower);
    for name in ["a", "b", "c", "d", "e", "f"] {
        send(&world, name);
    }
    wait_until("all", PATIENCE, || bob.path("inbox/alice/f").exists());
    let mut command = world.xfer_command(&["inbox", &account, "--notify"]);
    command.env("DBUS_SESSION_BUS_ADDRESS", desktop.address());
    xfer_tests::run_within(&mut command, PATIENCE).succeeded();
    let notices = desktop.notices();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[1].contains("6 arrivals from alice"), "{notices:?}");
    assert!(notices[1].contains("and 1 more"), "{notices:?}");
    bob.unmount();
}

#[test]
fn names_of_one_file_in_a_sent_directory_are_names_of_one_file_where_it_arrives() {
    let world = world(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell(
        "mkdir album; head -c 1000000 /dev/urandom > album/one; ln album/one album/two
         mkdir album/sub; ln album/one album/sub/three; echo x > album/alone
         cp -a album outbox/bob/copied; mv album outbox/bob/moved",
    );
    for name in ["copied", "moved"] {
        let arrived = bob.path(&format!("inbox/alice/{name}/alone"));
        wait_until(name, PATIENCE, || arrived.exists());
        let names =
            format!("cd inbox/alice/{name}; stat -c %h one alone; stat -c %i one two sub/three");
        let printed = bob.shell(&names);
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines[..2], ["3", "1"], "{printed}");
        assert!(lines[2] == lines[3] && lines[3] == lines[4], "{printed}");
        bob.shell(&format!("cmp inbox/alice/{name}/one inbox/alice/{name}/sub/three"));
    }
    // The data is there once, and each name sees what is written by another.
    bob.shell("cd inbox/alice/moved; echo changed > two; test \"$(cat sub/three)\" = changed");
    let used: u64 = bob.shell("du -s --block-size=1 inbox/alice/copied | cut -f1").parse().unwrap();
    assert!(used < 1_100_000, "{used}");
    // All names of it were sent, so it is part of the record: a change of it is a new version.
    alice.shell("echo more > outbox/bob/moved/two");
    let arrived = bob.path("inbox/alice/moved (2)/sub/three");
    wait_until("the new version", PATIENCE, || arrived.exists());
    assert_eq!(std::fs::read(arrived).unwrap(), b"more\n");
}
