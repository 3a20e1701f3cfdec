//! Each setting has its effect, given by a word of `-o`, by the user's file or by a variable.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use rustix::io::Errno;
use xfer_mount::control::Stats;
use xfer_mount::process::exit::Exit;
use xfer_tests::authority::Authority;
use xfer_tests::files::{errno, write_synced};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, Mounting, PATIENCE, Relay, Server, World, run_within, shell, wait_until};

use crate::settings::{command, write};

/// How settings are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Word,
    File,
    Variable,
}

const WAYS: [Way; 3] = [Way::Word, Way::File, Way::Variable];

/// A setting and its value; of a switch, `true`.
type Setting<'a> = (&'a str, &'a str);

impl Way {
    /// Gives these settings, and no others in a file.
    fn give<'w>(self, world: &World, to: Mounting<'w>, settings: &[Setting]) -> Mounting<'w> {
        write(world, "");
        let is_on = |value: &str| value == "true";
        match self {
            Way::Word => {
                let words = settings.iter().map(|(key, value)| match is_on(value) {
                    true => (*key).to_owned(),
                    false => format!("{key}={value}"),
                });
                to.arg("-o").arg(&words.collect::<Vec<_>>().join(","))
            }
            Way::File => {
                let lines = settings.iter().map(|(key, value)| match is_on(value) {
                    true => format!("{key} = true\n"),
                    false => format!("{key} = \"{value}\"\n"),
                });
                write(world, &lines.collect::<String>());
                to
            }
            Way::Variable => settings.iter().fold(to, |to, (key, value)| {
                to.env(&format!("XFER_{}", key.to_uppercase()), value)
            }),
        }
    }
}

/// The settings of which a test here sees the effect.
const SEEN: [&[&str]; 5] = [
    &["uid", "gid", "fmask", "dmask", "noexec", "suid", "dev", "fsname", "ro"],
    &["ids", "umask", "allow_other"],
    &["password_file", "fingerprint", "known_hosts", "ca", "accept_new"],
    &["wait", "retry", "silence", "offline", "handoff", "takeover", "sync"],
    &["cache_size", "tree_size", "log_size"],
];

#[test]
fn there_are_no_settings_but_those_whose_effect_is_seen() {
    let world = World::new(&[]);
    write(&world, "none = 1");
    let line = run_within(&mut command(&world, "alice@host", &[]), PATIENCE).refused(2);
    let listed: BTreeSet<_> = line.rsplit_once("there are: ").unwrap().1.split(", ").collect();
    assert_eq!(listed, SEEN.concat().into_iter().collect(), "{line}");
    for (seen, looks) in SEEN.iter().zip(LOOKS) {
        let looked: BTreeSet<_> = looks.iter().map(|look| look.setting.0).collect();
        assert_eq!(looked, seen.iter().copied().collect());
    }
}

/// A setting that shows in files, or in the kernel's table of mounts: how to look, and what is seen without
/// and with it.
struct Look {
    setting: Setting<'static>,
    script: &'static str,
    without: &'static str,
    with: &'static str,
}

const fn look(
    setting: Setting<'static>,
    script: &'static str,
    without: &'static str,
    with: &'static str,
) -> Look {
    Look { setting, script, without, with }
}

/// The first and the second group of [`SEEN`].
const LOOKS: [&[Look]; 2] = [
    &[
        look(("uid", "77"), "stat -c %u file", "0", "77"),
        look(("gid", "88"), "stat -c %g file", "0", "88"),
        look(("fmask", "077"), "stat -c %a file", "666", "600"),
        look(("dmask", "027"), "stat -c %a d", "777", "750"),
        look(("noexec", "true"), "./program 2>/dev/null || echo refused", "ran", "refused"),
        look(("suid", "true"), "findmnt -n -o OPTIONS . | grep -o nosuid || true", "nosuid", ""),
        look(("dev", "true"), "findmnt -n -o OPTIONS . | grep -o nodev || true", "nodev", ""),
        look(("fsname", "mine"), "findmnt -n -o SOURCE . | sed s/^alice@.*/its/", "its", "mine"),
        look(("ro", "true"), "touch new 2>/dev/null || echo refused", "", "refused"),
    ],
    &[
        look(("ids", "mounter"), "chown 5 d 2>/dev/null || echo refused", "", "refused"),
        look(("umask", "022"), "stat -c %a file", "666", "644"),
        look(
            ("allow_other", "true"),
            "setpriv --reuid 20002 --regid 20002 --clear-groups -- cat file 2>/dev/null || echo refused",
            "refused",
            "text",
        ),
    ],
];

#[test]
fn what_shows_in_files_and_in_the_table_of_mounts_is_as_each_way_says() {
    let world = World::new(&["alice"]);
    world.let_others_in();
    let mount = world.mount("alice");
    mount.shell(
        "echo text > file; mkdir d; chmod 666 file; chmod 777 d
         printf '#!/bin/sh\\necho ran\\n' > program; chmod 755 program",
    );
    mount.unmount();
    for looks in LOOKS {
        let mount = world.mount("alice");
        looks.iter().for_each(|look| {
            assert_eq!(mount.shell(look.script), look.without, "without {:?}", look.setting);
        });
        mount.shell("chown 0 d");
        mount.unmount();
        for way in WAYS {
            let settings: Vec<_> = looks.iter().map(|look| look.setting).collect();
            let mount = way.give(&world, world.mounting("alice"), &settings).start();
            looks.iter().for_each(|look| {
                assert_eq!(mount.shell(look.script), look.with, "{way:?}: {:?}", look.setting);
            });
            mount.unmount();
        }
        write(&world, "");
    }
}

#[test]
fn a_server_is_trusted_and_the_password_found_as_each_way_says() {
    let authority = Authority::make();
    let world = World::with_server(&["alice"], |store| authority.server(store));
    let (address, fingerprint) = (world.server.address, world.server.fingerprint.clone());
    let known = world.outside().join("known");
    fs::write(&known, format!("{address} {fingerprint}\n")).unwrap();
    let own_known = world.home().join(".local/state/xfer/known_hosts");
    let (password, ca) = (world.password_file("alice"), authority.certificate());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let password = text(&password);
    for way in WAYS {
        let give = |settings: &[Setting]| {
            way.give(&world, world.mounting("alice").by_settings(), settings)
        };
        let with_password = ("password_file", password.as_str());
        give(&[with_password]).in_background().refused(Exit::Key.code());
        give(&[("fingerprint", &fingerprint)]).in_background().refused(Exit::Usage.code());
        for trust in [
            ("fingerprint", fingerprint.as_str()),
            ("known_hosts", &text(&known)),
            ("ca", &text(&ca)),
            ("accept_new", "true"),
        ] {
            let mount = give(&[with_password, trust]).start();
            mount.shell("echo text > file");
            mount.unmount();
            // This alone makes the server known for the next time.
            assert_eq!(own_known.exists(), trust.0 == "accept_new", "{way:?}: {trust:?}");
            if way == Way::File {
                let listed = world.xfer(&["ls", &format!("alice@{address}:file")]).succeeded();
                assert_eq!(listed.stdout, "/file\n");
            }
        }
        fs::remove_file(&own_known).unwrap();
    }
}

#[test]
fn a_mount_waits_for_its_server_as_each_way_says() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir -p d/e/f");
    mount.unmount();
    let relay = Relay::to(world.server.address);
    let through = || world.mounting("alice").through(relay.address);
    let listed = |mount: &Mount| fs::read_dir(mount.path("d/e/f")).map(Iterator::count);
    let lose = |mount: &Mount| {
        relay.cut();
        wait_until("the connection to be lost", PATIENCE, || !mount.is_connected());
    };
    let mount = through().start();
    lose(&mount);
    std::thread::scope(|scope| {
        let listing = scope.spawn(|| listed(&mount));
        assert!(holds_for(std::time::Duration::from_secs(2), || !listing.is_finished()));
        relay.mend();
        assert_eq!(listing.join().unwrap().unwrap(), 0);
    });
    mount.unmount();
    for way in WAYS {
        let mount = way.give(&world, through(), &[("wait", "0")]).start();
        lose(&mount);
        assert_eq!(errno(listed(&mount)), Errno::TIMEDOUT.raw_os_error(), "{way:?}");
        relay.mend();
        wait_until("the connection", PATIENCE, || mount.is_connected());
        mount.unmount();
        // At the start there is nobody who waits unless told.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = || world.mounting("alice").through(free);
        let tried = way.give(&world, nowhere(), &[("retry", "1")]).in_background();
        assert_eq!(tried.code, Some(Exit::Unreachable.code().into()), "{tried}");
        assert!(tried.stderr.contains("; trying again for 1 s\n"), "{way:?}: {tried}");
        write(&world, "");
        nowhere().in_background().refused(Exit::Unreachable.code());
    }
}

#[test]
fn changes_are_kept_here_or_waited_for_as_each_way_says() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    for (settings, is_kept) in [(&[][..], false), (&[("offline", "true")], true)] {
        for way in WAYS {
            let through = world.mounting("alice").through(relay.address);
            let all = [settings, &[("wait", "0")]].concat();
            let mount = way.give(&world, through, &all).start();
            mount.shell("ls");
            relay.cut();
            wait_until("the connection to be lost", PATIENCE, || !mount.is_connected());
            let synced = write_synced(&mount.path("file"), b"text");
            match is_kept {
                true => synced.unwrap(),
                false => assert_eq!(errno(synced), Errno::TIMEDOUT.raw_os_error(), "{way:?}"),
            }
            relay.mend();
            wait_until("the change to be there", PATIENCE, || {
                mount.xfer("sync", &[]).code == Some(0)
            });
            mount.unmount();
        }
    }
    for (settings, is_waited_for) in [(&[][..], false), (&[("sync", "true")], true)] {
        for way in WAYS {
            let through = world.mounting("alice").through(relay.address);
            let mount = way.give(&world, through, settings).start();
            mount.shell("ls");
            let path = mount.path("other");
            let make = move || fs::write(path, "text").unwrap();
            match is_waited_for {
                true => relay.answers_are_waited_for("a change", make),
                false => {
                    relay.hold_answers();
                    make();
                    relay.release();
                }
            }
            mount.shell("rm other");
            mount.unmount();
        }
    }
}

#[test]
fn a_tree_is_taken_over_handed_on_and_watched_as_each_way_says() {
    let world = World::with_server(&["alice"], |store| {
        Server::start_with(store, "127.0.0.1:0", &["--silence=10"])
    });
    let elsewhere = world.mount_point("elsewhere");
    let second = || world.mounting("alice").at(&elsewhere);
    let wants_more = "the server wants a dead connection to be noticed after 10 s, not 3 s";
    let change = |mount: &Mount| fs::write(mount.path("file"), "text");
    for way in WAYS {
        let first = way.give(&world, world.mounting("alice"), &[("wait", "0")]).start();
        assert!(!first.said().contains(wants_more), "{}", first.said());
        second().in_background().refused(Exit::InUse.code());
        let taken = way.give(&world, second(), &[("takeover", "true")]).start();
        wait_until("the first to be without the tree", PATIENCE, || !first.is_connected());
        assert_eq!(errno(change(&first)), Errno::BUSY.raw_os_error(), "{way:?}");
        taken.unmount();
        first.unmount();
        let shared = [("handoff", "true"), ("silence", "3"), ("wait", "forever")];
        let mut first = way.give(&world, world.mounting("alice"), &shared).start();
        first.says(wants_more);
        let taken = way.give(&world, second().arg("--takeover"), &shared).start();
        for mount in [&first, &taken, &first] {
            change(mount).unwrap();
        }
        taken.unmount();
        first.unmount();
        write(&world, "");
    }
}

const MIB: u64 = 1 << 20;

/// What a mount may take beyond a size before it makes room.
const SLACK: u64 = 2 * MIB;

fn stats(mount: &Mount) -> Stats {
    let printed = mount.xfer("stats", &["--json"]).succeeded().stdout;
    serde_json::from_str(&printed).unwrap()
}

/// Reads and writes more than the smallest sizes, and returns how much memory that took at most: of data, of names
/// and attributes, and of changes that are not sent.
fn taken_up(mount: &Mount, relay: &Relay, may: Option<u64>) -> [u64; 3] {
    mount.shell("cat large > /dev/null; getfattr -d many/* > /dev/null");
    let read = stats(mount);
    relay.cut();
    let place = mount.root().to_owned();
    let writing = std::thread::spawn(move || shell(&place, "head -c 50331648 /dev/zero > new"));
    let pending = || stats(mount).pending_bytes;
    let most = match may {
        None => {
            wait_until("everything to wait", PATIENCE, || pending() >= 48 * MIB);
            pending()
        }
        Some(size) => {
            wait_until("the log to be full", PATIENCE, || pending() >= size - SLACK);
            let within = || pending() <= size + SLACK && !writing.is_finished();
            assert!(holds_for(std::time::Duration::from_secs(1), within), "{}", pending());
            pending()
        }
    };
    relay.mend();
    writing.join().unwrap();
    mount.shell("rm new");
    [read.cache_bytes, read.tree_bytes, most]
}

#[test]
fn memory_is_taken_up_as_far_as_each_way_says() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mount("alice");
    mount.shell(
        "head -c 50331648 /dev/urandom > large; mkdir many; value=$(head -c 45000 /dev/urandom | base64 -w 0)
         for i in $(seq 500); do : > many/$i; setfattr -n user.a -v $value many/$i; done",
    );
    mount.unmount();
    let mounting = || world.mounting("alice").through(relay.address).arg("-owait=forever");
    let mount = mounting().start();
    let taken = taken_up(&mount, &relay, None);
    assert!(taken[0] >= 48 * MIB && taken[1] >= 20 * MIB, "{taken:?}");
    mount.unmount();
    let size = 16 * MIB;
    let settings = [("cache_size", "16MiB"), ("tree_size", "16MiB"), ("log_size", "16MiB")];
    for way in WAYS {
        let mount = way.give(&world, mounting(), &settings).start();
        let taken = taken_up(&mount, &relay, Some(size));
        assert!(taken.iter().all(|bytes| *bytes <= size + SLACK), "{way:?}: {taken:?}");
        mount.unmount();
    }
}
