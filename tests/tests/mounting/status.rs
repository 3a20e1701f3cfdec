//! `xfer status` for scripts, which ask for its exit code alone, and for people who watch.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use xfer_mount::process::exit::Exit;
use xfer_tests::pty::OnPty;
use xfer_tests::{Mount, PATIENCE, World, wait_until};

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
