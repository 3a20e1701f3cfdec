//! Everything in a mailbox has a state that its sender can see, whatever it is and whoever may read it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;

use xfer_tests::files::errno;
use xfer_tests::machine::AS_USER;
use xfer_tests::programs::Finished;
use xfer_tests::sending::{arrives, die_while_writing, state};
use xfer_tests::{PATIENCE, World, run_within, wait_until};

/// The state of what was not complete when its mount ended.
const LEFT: &str = "held: the mount ended before it was sent";

/// `xfer outbox` for alice, with these words before her account.
fn outbox(world: &World, words: &[&str]) -> Finished {
    let account = format!("alice@{}", world.server.address);
    let password = world.password_file("alice");
    let options = ["--password-file", password.to_str().unwrap(), "--accept-new"];
    let words: Vec<String> = words.iter().map(|word| word.replace("{}", &account)).collect();
    let mut command = world.xfer_command(&["outbox"]);
    run_within(command.args(words).args(options), PATIENCE)
}

/// The states of all that is in alice's mailboxes, by name.
fn states(world: &World) -> BTreeMap<String, String> {
    let printed = outbox(world, &["{}", "--json"]).succeeded().stdout;
    let listed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let of = |one: &serde_json::Value| {
        let name = one["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let state = one["state"].as_str().unwrap().to_owned();
        (name, one["reason"].as_str().map_or(state.clone(), |why| format!("{state}: {why}")))
    };
    listed.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn everything_in_a_mailbox_has_a_state_at_any_time() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell(
        "cd outbox/bob; : > empty; mkdir nothing; echo x > secret; chmod 0 secret; echo y > film.part; \
         mkdir album; ln -s ../secret album/link; mkfifo album/pipe; echo z > album/photo; \
         python3 -c \"import os, stat; os.mknod('made', 0o600 | stat.S_IFREG)\"",
    );
    let mut open = File::create(alice.path("outbox/bob/open")).unwrap();
    let names = ["album", "empty", "film.part", "made", "nothing", "open", "secret"];
    let made = "held: nothing was written to it yet";
    let all = || {
        let states = states(&world);
        assert_eq!(states.keys().collect::<Vec<_>>(), names);
        assert!(states.values().all(|state| !state.is_empty()), "{states:?}");
        assert_eq!(states["made"], made);
        states
    };
    assert_eq!(all()["open"], "writing");
    open.write_all(b"text").unwrap();
    drop(open);
    wait_until("all that rests to be sent", PATIENCE, || {
        let states = all();
        names.iter().all(|name| *name == "made" || states[*name] == "received")
    });
    let sent = "album album/link album/photo empty film.part nothing open secret";
    assert_eq!(bob.shell("cd inbox/alice; find * | sort").replace('\n', " "), sent);
    assert_eq!(bob.shell("readlink inbox/alice/album/link"), "../secret");
    bob.unmount();
    alice.unmount();
    // Without a mount. What was made has no mark, since nothing was known of it.
    let states = states(&world);
    assert_eq!(states["made"], LEFT);
    assert!(names.iter().all(|name| *name == "made" || states[*name] == "received"), "{states:?}");
}

#[test]
fn only_files_and_directories_come_into_a_mailbox_and_others_are_refused_at_the_call() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let make = "ln -s /etc/passwd link; mkfifo pipe; \
        python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"";
    alice.shell(make);
    let refused = "cd outbox/bob; fails ln -s /etc/passwd link; fails mkfifo pipe; \
        fails python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"; fails cp -a ../../link .";
    alice.shell(&format!("({refused}) 2> /dev/null"));
    let account = format!("alice@{}", world.server.address);
    for name in ["link", "pipe", "socket"] {
        let (from, to) = (alice.path(name), alice.path("outbox/bob").join(format!("my {name}")));
        assert_eq!(errno(fs::rename(&from, &to)), libc::EPERM, "{name}");
        let place = format!("{account}:{name}");
        let refused = world.xfer(&["mv", &place, ":outbox/bob/"]).refused(1);
        let why = "only files and directories are sent";
        assert_eq!(refused, format!("xfer: cannot move '/{name}': {why}"));
        let why = if name == "link" { why } else { "it is not a regular file" };
        for arguments in
            [&["cp", &place, ":outbox/bob/new"][..], &["send", &place, &account, "--to", "bob"]]
        {
            let refused = world.xfer(arguments).refused(1);
            assert_eq!(refused, format!("xfer: cannot send '/{name}': {why}"));
        }
    }
    assert_eq!(alice.shell("ls -A . outbox/bob | tr '\\n' ' '"), {
        ".: inbox link outbox pipe socket  outbox/bob: "
    });
    assert_eq!(bob.shell("ls inbox"), "");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_link_on_the_command_line_means_what_it_leads_to() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let outside = world.outside();
    fs::create_dir(outside.join("album")).unwrap();
    fs::write(outside.join("album/photo"), "photo").unwrap();
    symlink("album/photo", outside.join("newest")).unwrap();
    symlink("album", outside.join("photos")).unwrap();
    symlink("nowhere", outside.join("dangling")).unwrap();
    let send = |name: &str| {
        let account = format!("alice@{}", world.server.address);
        let mut command = world.xfer_command(&["send", name, &account, "--to", "bob"]);
        run_within(command.current_dir(&outside), PATIENCE)
    };
    send("newest").succeeded();
    send("photos").succeeded();
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/newest")).unwrap(), "photo");
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/photos/photo")).unwrap(), "photo");
    assert_eq!(bob.shell("find inbox/alice -type l"), "");
    let line = send("dangling").refused(1);
    assert_eq!(line, "xfer: cannot read 'dangling': no such file or directory");
    run_within(Command::new("mkfifo").arg(outside.join("pipe")), PATIENCE).succeeded();
    let line = send("pipe").refused(1);
    assert_eq!(line, "xfer: cannot read 'pipe': it is not a regular file");
    assert_eq!(alice.shell("ls -A outbox/bob . | grep -v '^newest$\\|^photos$'"), {
        ".:\ninbox\noutbox\n\noutbox/bob:"
    });
    bob.unmount();
    alice.unmount();
}

#[test]
fn an_ordinary_user_sees_the_state_of_what_they_may_not_read_and_gives_orders_for_it() {
    let world = World::new(&["alice", "bob"]);
    let account = format!("alice@{}", world.server.address);
    let script = format!(
        "chown 20001 $PLACE
         as() {{ {AS_USER} env HOME='{home}' \"$@\"; }}
         as xfer login --fingerprint {fingerprint} --password-stdin {account} < '{password}' > /dev/null
         echo x > '{outside}/closed'; chmod 0 '{outside}/closed'
         xfer send --fingerprint {fingerprint} --password-file '{bobs}' '{outside}/closed' bob@{server} --to alice
         as xfer-mount --fingerprint {fingerprint} {account} $PLACE
         as sh -c \"cd $PLACE/outbox/bob; echo x > secret.part; chmod 0 secret.part; echo y > fixed.part; \
            chmod 444 fixed.part; mkdir closed; chmod 0 closed\"
         fails as getfattr --only-values -n user.xfer.state $PLACE/outbox/bob/secret.part
         as xfer outbox cancel {account}:outbox/bob/closed
         as xfer outbox {account} | cut -d: -f1
         as xfer outbox send {account}:outbox/bob/secret.part :outbox/bob/fixed.part
         as xfer outbox send $PLACE/outbox/bob/closed
         as xfer outbox {account} | awk '{{ print $2, $(NF - 1) }}'
         as xfer outbox {account} --json | grep -c '\"mode\"'
         echo z > '{outside}/note'; chmod 444 '{outside}/note'
         as xfer send --note 'read only' '{outside}/note' {account} --to bob
         as stat -c %a $PLACE/outbox/bob/note
         until as test -e $PLACE/inbox/bob/closed; do sleep 0.1; done
         as xfer inbox {account} | awk '{{ print $1, $2, $3 }}'
         as xfer unmount $PLACE",
        home = world.home_of_user().display(),
        fingerprint = world.server.fingerprint,
        password = world.password_file("alice").display(),
        outside = world.outside().display(),
        bobs = world.password_file("bob").display(),
        server = world.server.address,
    );
    let finished = world.machine().run(&script).succeeded();
    let waiting = "waiting";
    let before = format!(
        "bob  closed/  -  held\nbob  fixed.part  2 B  {waiting}\n\
         bob  secret.part  2 B  {waiting}\n"
    );
    let after = "closed/ sent\nfixed.part sent\nsecret.part sent\n";
    assert_eq!(finished.stdout, format!("{before}{after}3\n444\nbob closed 2\n"), "{finished}");
}

#[test]
fn the_states_of_what_a_dead_mount_has_left_are_known_at_once_without_a_mount() {
    let world = World::new(&["alice", "bob"]);
    let mut alice = world.mount("alice");
    die_while_writing(&mut alice, "mkdir outbox/bob/album; echo x > outbox/bob/album/x");
    let expected = ["album", "half"].map(|name| (name.to_owned(), LEFT.to_owned()));
    assert_eq!(states(&world), BTreeMap::from(expected));
    let alice = world.mount("alice");
    assert_eq!(state(&alice.path("outbox/bob/half")), LEFT);
    assert_eq!(state(&alice.path("outbox/bob/album")), LEFT);
    alice.unmount();
}
