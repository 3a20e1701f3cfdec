//! A store that lost or changed data: reads of that file fail, and nothing else is affected.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xfer_tests::files::errno;
use xfer_tests::server::command;
use xfer_tests::{Mount, PATIENCE, Random, World, shell, wait_until};

const EIO: i32 = 5;

/// The content file that `dir/big` and `dir/shared` share, to damage it: the only large one.
fn content_of_big(world: &World) -> PathBuf {
    world.damages_the_store();
    let found = shell(world.server.store(), "find contents -type f -size +200k");
    assert!(!found.is_empty() && !found.contains('\n'), "not one: {found}");
    world.server.store().join(found)
}

/// A world where alice has `dir/big`, `dir/shared` with the same content, and `other`.
fn with_files() -> (World, Mount) {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let data = Random::new(7).bytes(300_000);
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/big"), data).unwrap();
    fs::write(mount.path("other"), "unharmed").unwrap();
    mount.shell("cp dir/big dir/shared");
    mount.unmount();
    let mount = world.mount("alice");
    (world, mount)
}

#[track_caller]
fn check_damaged(world: &World, mount: &Mount, what: &str) {
    let big = OpenOptions::new().read(true).open(mount.path("dir/big")).unwrap();
    assert_eq!(errno(big.read_at(&mut [0; 4096], 250_000).map(drop)), EIO);
    assert_eq!(errno(fs::read(mount.path("dir/big")).map(drop)), EIO);
    assert_eq!(fs::read(mount.path("other")).unwrap(), b"unharmed");
    let line = |said: &str| {
        said.lines().find(|line| line.contains("a file is damaged")).map(str::to_owned)
    };
    wait_until("the server's line", PATIENCE, || line(&world.server.said()).is_some());
    let line = line(&world.server.said()).unwrap();
    for part in ["alice", "dir/", what] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_content_that_became_shorter_fails_to_be_read_and_is_told_with_user_and_path() {
    let (world, mount) = with_files();
    let content = content_of_big(&world);
    OpenOptions::new().write(true).open(content).unwrap().set_len(200_000).unwrap();
    check_damaged(&world, &mount, "ends at byte 200000");
    let big = OpenOptions::new().read(true).open(mount.path("dir/big")).unwrap();
    let mut there = vec![0; 100_000];
    big.read_exact_at(&mut there, 0).unwrap();
    assert_eq!(there, Random::new(7).bytes(300_000)[..100_000]);
    drop(big);
    mount.unmount();
}

#[test]
fn a_content_that_is_gone_fails_to_be_read_and_is_told_with_user_and_path() {
    let (mut world, mount) = with_files();
    mount.unmount();
    assert_eq!(world.server.terminate(), Some(0));
    fs::remove_file(content_of_big(&world)).unwrap();
    world.server.restart();
    let mount = world.mount("alice");
    check_damaged(&world, &mount, "is missing");
    mount.unmount();
}

#[test]
fn an_export_leaves_out_a_damaged_file_and_brings_the_others() {
    let (world, mount) = with_files();
    mount.unmount();
    OpenOptions::new().write(true).open(content_of_big(&world)).unwrap().set_len(5).unwrap();
    let to = world.outside().join("export");
    let finished = world.server.command(&["export", "alice", to.to_str().unwrap()]);
    assert_ne!(finished.code, Some(0), "{finished}");
    assert!(
        finished.stderr.contains("dir/big") && finished.stderr.contains("damaged"),
        "{finished}"
    );
    assert_eq!(fs::read(to.join("other")).unwrap(), b"unharmed");
}

#[test]
fn what_was_set_aside_and_never_written_reads_as_zeros_and_is_no_damage() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("fallocate -l 300000 all && printf x > some && fallocate -n -l 300000 some");
    mount.shell("truncate -s 200000 some && cp all copy && printf y >> copy");
    mount.unmount();
    let mount = world.mount("alice");
    for (name, size) in [("all", 300_000), ("some", 200_000), ("copy", 300_001)] {
        let bytes = fs::read(mount.path(name)).unwrap();
        assert_eq!(bytes.len(), size, "{name}");
        let first = usize::from(name == "some");
        assert!(bytes[first..size.min(300_000)].iter().all(|byte| *byte == 0), "{name}");
    }
    mount.unmount();
}

/// Runs a statement on the store's database behind the server's back.
fn meddle(store: &Path, statement: &str) {
    let script = format!(
        "import sqlite3; db = sqlite3.connect('xfer.db', timeout=60); db.execute(\"{statement}\"); \
         db.commit()"
    );
    shell(store, &format!("python3 -c '{}'", script.replace('\'', "'\\''")));
}

#[test]
fn a_stored_password_that_is_damaged_is_not_called_a_wrong_one() {
    let world = World::new(&["alice"]);
    meddle(world.server.store(), "UPDATE accounts SET password = 'garbled'");
    let line = world.mounting("alice").in_background().refused(12);
    assert!(line.contains("server"), "{line}");
    let said = world.server.said();
    assert!(said.contains("the stored password is damaged") && said.contains("alice"), "{said}");
    let password = world.password_file("alice");
    let set = ["user", "passwd", "alice", "--password-file", password.to_str().unwrap()];
    command(world.server.store(), &set).succeeded();
    world.mount("alice").unmount();
}

#[test]
fn an_account_whose_row_is_damaged_is_not_called_taken_over() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    meddle(world.server.store(), "UPDATE accounts SET epoch = 0");
    fs::write(mount.path("file"), "x").unwrap();
    mount.says("damaged");
    assert!(!mount.said().contains("taken over"), "{}", mount.said());
    assert!(world.server.said().contains("damaged"), "{}", world.server.said());
    assert_eq!(mount.unmounted_by_force(), Some(14), "{}", mount.said());
}

#[test]
fn a_list_of_accounts_that_is_damaged_stops_the_server_from_starting() {
    let mut world = World::new(&["alice"]);
    world.damages_the_store();
    assert_eq!(world.server.terminate(), Some(0));
    let database = world.server.store().join("xfer.db");
    let mut bytes = fs::read(&database).unwrap();
    // The name is stored in the account's row and in an index; change only one of them.
    let at = bytes.windows(5).position(|part| part == b"alice").unwrap();
    bytes[at + 4] = b'f';
    fs::write(&database, bytes).unwrap();
    let line = command(world.server.store(), &["run", "--listen", "127.0.0.1:0"]).refused(3);
    assert!(line.contains("damaged") && line.contains("backup"), "{line}");
}
