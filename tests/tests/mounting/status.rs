//! `xfer status` for scripts, which ask for its exit code alone, and for people who watch.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use xfer_mount::process::exit::Exit;
use xfer_tests::programs::run_by;
use xfer_tests::pty::OnPty;
use xfer_tests::{Mount, PATIENCE, Relay, World, run_within, wait_until};

/// Gives this machine a key, and mounts by it.
fn mount_by_key(world: &World) -> Mount {
    let (target, file) = (format!("alice@{}", world.server.address), world.password_file("alice"));
    let arguments = ["login", &target, "--label", "laptop", "--password-file"];
    let trust = [file.to_str().unwrap(), "--fingerprint", &world.server.fingerprint];
    world.xfer(&[&arguments[..], &trust].concat()).succeeded();
    let mount = world.mounting("alice").by_key().start();
    mount.shell("ls");
    mount
}

fn revoke(world: &World) {
    world.server.command(&["user", "keys", "revoke", "alice", "laptop"]).succeeded();
}

#[track_caller]
fn becomes(mount: &Mount, exit: Option<Exit>) {
    let code = exit.map_or(0, |exit| i32::from(exit.code()));
    wait_until(&format!("the state of code {code}"), PATIENCE, || {
        let done = mount.xfer("status", &["--quiet"]);
        assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{done}");
        done.code == Some(code)
    });
}

#[test]
fn the_exit_code_of_a_quiet_status_says_how_a_mount_is() {
    let mut world = World::new(&["alice"]);
    let mut mount = mount_by_key(&world);
    becomes(&mount, None);
    world.server.kill();
    becomes(&mount, Some(Exit::Unreachable));
    mount.shell("echo change > file");
    revoke(&world);
    world.server.restart();
    becomes(&mount, Some(Exit::Lost));
    mount.unmounted_by_force();
    becomes(&mount, Some(Exit::NotMounted));
    let mut mount = mount_by_key(&world);
    mount.sync();
    revoke(&world);
    becomes(&mount, Some(Exit::Over));
    mount.unmounted_by_force();
    let first = world.mount("alice");
    let place = world.mount_point("second");
    let second = world.mounting("alice").at(&place).arg("--takeover").start();
    becomes(&first, Some(Exit::InUse));
    becomes(&second, None);
    // Without `--quiet`, a status that could be shown is no failure.
    assert!(first.xfer("status", &[]).succeeded().stdout.contains("dormant"));
    second.unmount();
    first.unmount();
}

/// Runs its arguments where only the mounts below `$1` are mounted.
const WITH_OWN_MOUNTS: &str = r#"
    awk -v own="$1/" '$3 == "fuse.xfer" && index($2, own) != 1 { print $2 }' /proc/mounts |
        while read -r place; do umount -l "$(printf "$place")"; done
    shift
    exec "$@""#;

/// The exit code of a quiet status of all mounts of the world. Other tests have mounts of the same user.
fn of_all(world: &World) -> Option<i32> {
    let place = world.mount_point("any");
    let status = world.xfer_command(&["status", "--quiet"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", WITH_OWN_MOUNTS, "sh"]);
    command.arg(place.parent().unwrap());
    run_within(world.at_home(run_by(&mut command, &status)), PATIENCE).code
}

#[test]
fn the_exit_code_of_several_mounts_is_that_of_the_worst() {
    let world = World::new(&["alice", "bob", "carol", "dave", "erin", "frank"]);
    let relays: Vec<_> = (0..2).map(|_| Relay::to(world.server.address)).collect();
    let through = |user: &str, relay: &Relay| world.mounting(user).through(relay.address).start();
    let _well = world.mount("alice");
    let away = through("bob", &relays[0]);
    let dormant = world.mount("carol");
    let mut dead = world.mount("dave");
    let over = world.mount("erin");
    let lost = through("frank", &relays[1]);
    lost.shell("ls");
    let is = |exit: Option<Exit>| {
        let code = exit.map_or(0, |exit| i32::from(exit.code()));
        wait_until(&format!("code {code} of all"), PATIENCE, || of_all(&world) == Some(code));
    };
    let end = |user: &str| world.server.command(&["session", "end", user]).succeeded();
    is(None);
    relays[0].cut();
    is(Some(Exit::Unreachable));
    let elsewhere = world.mount_point("elsewhere");
    let taken = world.mounting("carol").at(&elsewhere).arg("--takeover").start();
    is(Some(Exit::InUse));
    becomes(&dormant, Some(Exit::InUse));
    dead.signal(Signal::KILL);
    dead.ended();
    is(Some(Exit::NotMounted));
    end("erin");
    is(Some(Exit::Over));
    relays[1].cut();
    wait_until("the loss to be noticed", PATIENCE, || !lost.is_connected());
    lost.shell("echo change > file");
    end("frank");
    relays[1].mend();
    is(Some(Exit::Lost));
    // As many states as mounts.
    becomes(&away, Some(Exit::Unreachable));
    becomes(&over, Some(Exit::Over));
    becomes(&taken, None);
    for mut mount in [away, over, lost] {
        mount.unmounted_by_force();
    }
    is(Some(Exit::NotMounted));
    dead.unmounted_by_force();
    is(Some(Exit::InUse));
    [taken, dormant].into_iter().for_each(Mount::unmount);
    is(None);
}

#[test]
fn a_status_that_is_watched_changes_in_its_place_and_leaves_the_terminal_as_it_was() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let place = mount.root().display().to_string();
    let mut watch = OnPty::start(&world.xfer_command(&["status", "--watch", &place]));
    watch.says("connected");
    fs::write(mount.path("file"), vec![1; 5 << 20]).unwrap();
    watch.says("A\r\x1b[J");
    watch.says("used           5 MiB of");
    watch.types("\x03");
    assert_eq!(watch.ended(), None, "{}", watch.said());
    assert!(watch.echoes());
    // The cursor was moved, but no mode of the terminal was set.
    assert!(!watch.said().contains("\x1b[?"), "{}", watch.said());
    let mut gone = OnPty::start(&world.xfer_command(&["status", "--watch", &place]));
    gone.says("connected");
    mount.unmount();
    assert_eq!(gone.ended(), Some(Exit::NotMounted.code().into()), "{}", gone.said());
}

#[test]
fn a_status_that_is_watched_through_a_pipe_is_repeated_until_nobody_reads() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let mut command = world.xfer_command(&["status", "--watch"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    for _ in 0..2 {
        let table = std::iter::from_fn(|| Some(next()).filter(|line| !line.is_empty()));
        let table: Vec<_> = table.collect();
        assert!(table[0].starts_with("MOUNTPOINT"), "{table:?}");
        assert!(table.iter().all(|line| !line.contains('\x1b')), "{table:?}");
    }
    drop(lines);
    assert!(watch.wait().unwrap().success());
    mount.unmount();
}
