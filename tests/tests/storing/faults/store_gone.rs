//! A store that disappears while its server runs: nothing is acknowledged as durable any more, and
//! both sides say why in one line.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use xfer_mount::process::exit::Exit;
use xfer_server::program::exit::Exit as ServerExit;
use xfer_tests::files::write_synced;
use xfer_tests::{World, shell};

/// Removes the store by a script, run in the directory of `store`, while alice has it mounted.
fn check(script: &str) {
    println!("{script}");
    let mut world = World::new(&["alice"]);
    world.damages_the_store();
    let mut mount = world.mount("alice");
    mount.shell("mkdir d && seq 1000 > d/before");
    mount.sync();
    let _uncovered = Uncovered(world.server.store().to_owned());
    shell(world.server.store().parent().unwrap(), script);
    let synced = write_synced(&mount.path("d/after"), &[1; 10_000]);
    assert!(synced.is_err(), "what was written to a store that is gone was called durable");
    assert_eq!(world.server.ended(), Some(ServerExit::StoreGone as i32), "{}", world.server.said());
    assert!(world.server.said().contains("removed or replaced"), "{}", world.server.said());
    mount.says("the store was removed or replaced");
    let code = mount.unmounted_by_force().unwrap();
    // The server may have noticed before anything was written: then nothing is lost.
    assert!([0, i32::from(Exit::Lost.code())].contains(&code), "{}", mount.said());
}

/// Unmounts anything that was mounted over the store.
struct Uncovered(PathBuf);

impl Drop for Uncovered {
    fn drop(&mut self) {
        if xfer_tests::mount::is_mounted(&self.0) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
}

#[test]
fn nothing_is_durable_in_a_store_that_was_removed_and_the_server_ends() {
    check("rm -rf store");
    check("rm -rf store && mkdir -m 700 store");
}

#[test]
fn nothing_is_durable_in_a_store_that_was_moved_or_covered_and_the_server_ends() {
    check("mv store moved");
    check("mv store moved && cp -a moved store");
    check("mount -t tmpfs -o size=1m tmpfs store");
}

#[test]
fn nothing_is_durable_in_a_store_that_lost_a_part_and_the_server_ends() {
    check("cp -p store/xfer.db new && mv new store/xfer.db");
    check("rm store/xfer.db");
    check("rm store/xfer.db-wal");
    check("rm store/xfer.db-shm");
    check("rm -r store/contents");
    check("mv store/contents moved && mkdir -m 700 store/contents");
}

#[test]
fn a_server_whose_lock_was_removed_ends_before_another_can_take_the_store_for_long() {
    let mut world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    mount.shell("seq 1000 > before");
    mount.sync();
    fs::remove_file(world.server.store().join("lock")).unwrap();
    assert_eq!(world.server.ended(), Some(ServerExit::StoreGone as i32), "{}", world.server.said());
    mount.says("(lock is gone)");
    mount.unmounted_by_force();
    // The rest of the store is intact.
    world.server.restart();
    let mount = world.mount("alice");
    mount.shell("seq 1000 | cmp - before");
    mount.unmount();
}

#[test]
fn who_changes_nothing_is_told_too_and_no_login_succeeds() {
    let mut world = World::new(&["alice", "bob"]);
    let mut mount = world.mount("alice");
    mount.shell("seq 1000 > before");
    mount.sync();
    fs::remove_dir_all(world.server.store()).unwrap();
    let login = world.mounting("bob").in_background();
    assert!(login.code != Some(0), "{login}");
    mount.says("the store was removed or replaced");
    assert_eq!(world.server.ended(), Some(ServerExit::StoreGone as i32));
    // All its changes were durable, so nothing is lost.
    assert_eq!(mount.unmounted_by_force(), Some(0), "{}", mount.said());
}

#[test]
fn a_part_of_the_contents_that_is_gone_fails_those_who_change_it() {
    let world = World::new(&["alice", "bob"]);
    world.damages_the_store();
    let mut alice = world.mount("alice");
    let bob = world.mount("bob");
    alice.shell("seq 1000 > file");
    alice.sync();
    shell(world.server.store(), "rm -r contents/*/");
    let changed = alice.path("file");
    let mut file = fs::OpenOptions::new().append(true).open(&changed).unwrap();
    assert!(file.write_all(b"more").and_then(|()| file.sync_all()).is_err());
    alice.says("the server's storage failed");
    drop(file);
    alice.unmounted_by_force();
    // Other sessions go on: their files are still in place.
    write_synced(&bob.path("file"), &[1; 10_000]).unwrap();
    assert_eq!(fs::read(bob.path("file")).unwrap(), [1; 10_000]);
    bob.unmount();
}
