//! Rescues that change what is on the server already: interrupted anywhere, and where others changed
//! something of it meanwhile.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use xfer_tests::programs::program;
use xfer_tests::snapshot::{assert_same, snapshot_without_times};
use xfer_tests::{Mount, PATIENCE, World, shell, wait_until};

/// What is there before: each kind of thing ten times.
const BEFORE: &str = "mkdir d gone && for n in {0..9}; do
    echo old > moved$n; echo old > appended$n; echo h > linked$n; ln linked$n other$n
    echo a > left$n; echo b > right$n; echo old > only-moved$n; echo old > replaced$n
    echo s > set$n; echo x > gone/x$n; done";

/// What is made of it.
const CHANGES: &str = "for n in {0..9}; do
    mv moved$n d/moved$n; echo new > d/moved$n
    mv appended$n d/appended$n; echo more >> d/appended$n
    rm linked$n; ln other$n d/again$n; chmod 444 other$n
    mv left$n between; mv right$n left$n; mv between right$n
    mv only-moved$n d/only-moved$n
    echo new > replaced$n.new; mv replaced$n.new replaced$n
    chmod 600 set$n; setfattr -n user.colour -v blue set$n
    rm gone/x$n; done; rmdir gone";

/// A world with these changes of a tree in a rescue, and the tree as it is to become. They were made
/// without a connection; `others` changes the tree meanwhile.
fn world_with_changes(before: &str, changes: &str, others: &str) -> (World, PathBuf) {
    let mut world = World::new(&["alice"]);
    let reference = world.outside();
    let mount = world.mount("alice");
    shell(&reference, "mkdir -m 700 inbox outbox");
    for directory in [mount.root(), &reference] {
        shell(directory, before);
    }
    mount.sync();
    mount.shell("ls -lR > /dev/null");
    world.server.kill();
    for directory in [mount.root(), &reference] {
        shell(directory, changes);
    }
    let place = mount.root().to_owned();
    mount.xfer("unmount", &["--abandon"]).succeeded();
    wait_until("the mount to go", PATIENCE, || !xfer_tests::mount::is_mounted(&place));
    world.server.restart();
    let elsewhere = world.mount_point("elsewhere");
    let other = world.mounting("alice").at(&elsewhere).start();
    other.shell(others);
    other.unmount();
    (world, reference)
}

/// Begins to apply the rescue, and kills that once it has noted so many of its changes.
fn apply_until(world: &World, name: &str, changes: usize) {
    let kept = world.home().join(".local/state/xfer/rescue").join(name).join("changes.jsonl");
    let count = || fs::read_to_string(&kept).unwrap_or_default().matches("\"begun\"").count();
    let end = count() + changes;
    let mut command = Command::new(program("xfer"));
    command.args(["rescue", "apply", name]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut applying = world.at_home(&mut command).spawn().unwrap();
    wait_until("changes to be made", PATIENCE, || {
        count() >= end || applying.try_wait().unwrap().is_some()
    });
    let _ = applying.kill();
    applying.wait().unwrap();
}

fn read(mount: &Mount, name: &str) -> String {
    fs::read_to_string(mount.path(name)).unwrap()
}

#[track_caller]
fn assert_becomes(mount: &Mount, reference: &Path) {
    assert_same(&snapshot_without_times(reference), &snapshot_without_times(mount.root()));
}

#[test]
fn an_apply_that_is_killed_again_and_again_knows_its_own_changes() {
    let (world, reference) = world_with_changes(BEFORE, CHANGES, "");
    let mount = world.mount("alice");
    let name = world.only_rescue();
    for count in [1, 2, 3, 5, 8, 13, 21] {
        apply_until(&world, &name, count);
    }
    let applied = world.rescue(&["apply", &name]).succeeded();
    assert_eq!(applied.stderr, "", "{applied:?}");
    assert_becomes(&mount, &reference);
    world.rescue(&["drop", &name]).succeeded();
    mount.unmount();
}

#[test]
fn what_others_changed_after_an_apply_was_killed_is_not_taken_for_its_own() {
    let (world, _) = world_with_changes(BEFORE, CHANGES, "");
    let mount = world.mount("alice");
    let name = world.only_rescue();
    apply_until(&world, &name, 15);
    // At once, and wherever its place is by now.
    mount.shell("for f in {,d/}{moved,only-moved}?; do [[ ! -e $f ]] || echo theirs > $f; done");
    for _ in 0..2 {
        world.rescue(&["apply", &name]);
        let found = mount.shell("shopt -s nullglob; cat {,d/}{moved,only-moved}? | sort -u");
        assert_eq!(found, "theirs");
    }
    mount.unmount();
}

#[test]
fn a_name_that_nobody_else_took_is_made_though_another_name_of_the_file_is_taken() {
    let before = "mkdir d; echo old > there";
    let changes = "echo mine > new; ln new d/new; echo mine > there; ln there d/there";
    let (world, _) = world_with_changes(before, changes, "echo theirs > new; echo theirs > there");
    let mount = world.mount("alice");
    let applied = world.rescue(&["apply", &world.only_rescue()]).succeeded();
    for name in ["new", "there"] {
        assert!(applied.stderr.contains(&format!("as {name}.rescued")), "{applied:?}");
        assert_eq!(read(&mount, name), "theirs\n");
        assert_eq!(read(&mount, &format!("d/{name}")), "mine\n");
        mount.shell(&format!("[[ d/{name} -ef {name}.rescued ]]"));
    }
    mount.unmount();
}

#[test]
fn what_others_have_changed_needs_a_decision_and_is_never_tried_again_in_vain() {
    let before = "mkdir emptied; echo old > file; echo old > moved; echo old > set";
    let changes = "rmdir emptied; rm file; mkdir file; echo in > file/in; mkdir d
        mv moved d/moved; chmod 600 set";
    let others = "echo theirs > emptied/theirs; echo theirs > file; echo theirs > moved
        echo theirs > set";
    let (world, _) = world_with_changes(before, changes, others);
    let mount = world.mount("alice");
    for _ in 0..2 {
        let applied = world.rescue(&["apply", &world.only_rescue()]);
        let said = &applied.stderr;
        assert_eq!(applied.code, Some(1), "{applied:?}");
        assert!(!said.contains("failed") && said.contains("left for you to decide: "), "{said}");
        for line in [
            "emptied: it was to be removed, but is not empty",
            "file: something else is there now",
            "file/in: a directory above it is something else now",
            "set: it has changed on the server, so its attributes were left",
        ] {
            assert!(said.contains(line), "{line} is not in:\n{said}");
        }
        // A move changes nothing that others changed.
        assert!(!said.contains("d/moved"), "{said}");
        assert_eq!(read(&mount, "d/moved"), "theirs\n");
        assert_eq!(read(&mount, "file"), "theirs\n");
    }
    mount.unmount();
}

#[test]
fn what_others_change_while_an_apply_runs_is_kept() {
    let before = "for n in z-written z-appended z-set; do echo old > $n; done";
    let changes = "for n in {0..9}; do head -c 2000000 /dev/zero | tr '\\0' $n > a$n; done
        echo mine > z-written; echo mine >> z-appended; chmod 600 z-set";
    let (world, _) = world_with_changes(before, changes, "");
    let mount = world.mount("alice");
    let mut command = Command::new(program("xfer"));
    command.args(["rescue", "apply", &world.only_rescue()]);
    let applying = world.at_home(&mut command).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the first file to be there", PATIENCE, || mount.path("a0").exists());
    let process = Pid::from_child(&applying);
    kill_process(process, Signal::STOP).unwrap();
    mount.shell("for n in z-written z-appended; do echo theirs > $n; done; chmod 604 z-set");
    kill_process(process, Signal::CONT).unwrap();
    let applied = applying.wait_with_output().unwrap();
    let said = String::from_utf8(applied.stderr).unwrap();
    assert_eq!(applied.status.code(), Some(1), "{said}");
    for name in ["z-written", "z-appended", "z-set"] {
        assert!(said.contains(&format!("{name}: it has changed on the server just now")), "{said}");
    }
    for name in ["z-written", "z-appended"] {
        assert_eq!(read(&mount, name), "theirs\n");
    }
    assert_eq!(mount.shell("stat -c %a z-set"), "604");
    mount.unmount();
}

#[test]
fn an_apply_to_a_mount_without_a_server_takes_nothing_for_gone() {
    let (mut world, reference) = world_with_changes(BEFORE, CHANGES, "");
    let mount = world.mounting("alice").arg("-o").arg("wait=1").start();
    let name = world.only_rescue();
    world.server.kill();
    let refused = world.rescue(&["apply", &name]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("connection timed out"), "{refused:?}");
    assert!(refused.stderr.contains("apply it again"), "{refused:?}");
    assert!(!refused.stderr.contains("decision"), "{refused:?}");
    world.server.restart();
    wait_until("the mount to go on", PATIENCE, || mount.is_connected());
    let applied = world.rescue(&["apply", &name]).succeeded();
    assert_eq!(applied.stderr, "", "{applied:?}");
    assert_becomes(&mount, &reference);
    mount.unmount();
}
