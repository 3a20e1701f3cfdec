//! Databases restored from a copy, logs that do not belong to them, and contents without a reference: a mistake loses nothing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use xfer_mount::process::exit::Exit::Lost;
use xfer_server::program::exit::Exit;
use xfer_tests::server::command;
use xfer_tests::space::contents;
use xfer_tests::{PATIENCE, Server, World, shell, wait_until};

const RUN: [&str; 3] = ["run", "--listen", "127.0.0.1:0"];

/// Starts a server on a store whose database it must find too old, and refuse.
fn is_refused(store: &Path) {
    is_refused_with(store, "the database is older than its contents");
}

fn is_refused_with(store: &Path, text: &str) {
    let line = command(store, &RUN).refused(Exit::StoreOlder as u8);
    assert!(line.contains(text), "{line}");
    assert!(line.contains("--accept-older-database"), "{line}");
}

/// Writes files with one content each.
fn write(world: &World, names: &str) {
    let mount = world.mount("alice");
    mount.shell(&format!("for name in {names}; do seq 1000 > $name; done"));
    mount.unmount();
}

fn check_all(world: &World, names: &str) {
    let mount = world.mount("alice");
    mount.shell(&format!("for name in {names}; do seq 1000 | cmp - $name; done"));
    mount.unmount();
}

/// The content files that were set aside.
fn set_aside(store: &Path) -> Vec<PathBuf> {
    let lost = store.join("contents/lost");
    let found = shell(store, &format!("find '{}' -type f 2>/dev/null || true", lost.display()));
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn an_older_database_is_refused_and_a_newer_one_in_its_place_has_all_its_files() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -p xfer.db ../older");
    world.server.restart();
    write(&world, "b{1..30}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -p xfer.db ../newer && cp -p ../older xfer.db");
    let before = contents(&world.server);
    is_refused(&store);
    assert_eq!(contents(&world.server), before);
    shell(&store, "cp -p ../newer xfer.db");
    world.server.restart();
    check_all(&world, "a{1..10} b{1..30}");
}

#[test]
fn an_older_database_that_is_accepted_can_be_used_and_the_newer_one_gets_its_contents_back() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -p xfer.db ../older");
    world.server.restart();
    write(&world, "b{1..30}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -p xfer.db ../newer && cp -p ../older xfer.db");
    let accepting = |world: &mut World| {
        let address = world.server.address.to_string();
        world.server = Server::start_with(&store, &address, &["--accept-older-database"]);
    };
    accepting(&mut world);
    wait_until("contents to be set aside", PATIENCE, || set_aside(&store).len() == 30);
    // No number is granted twice, so new files don't collide with old contents.
    write(&world, "c{1..30}");
    check_all(&world, "a{1..10} c{1..30}");
    assert_eq!(world.server.terminate(), Some(0));
    // Restore what the mistake took away.
    shell(&store, "cp -p ../newer xfer.db");
    is_refused(&store);
    accepting(&mut world);
    check_all(&world, "a{1..10} b{1..30}");
}

#[test]
fn a_database_copied_under_a_session_is_older_than_what_the_session_did_next() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    let mount = world.mount("alice");
    mount.shell("seq 1000 > before");
    mount.sync();
    shell(&store, "sqlite3 xfer.db '.backup ../older'");
    mount.shell("seq 1000 > after");
    mount.sync();
    world.server.kill();
    drop(mount);
    shell(&store, "rm -f xfer.db-* && cp ../older xfer.db");
    let before = contents(&world.server);
    is_refused(&store);
    assert_eq!(contents(&world.server), before);
}

#[test]
fn a_backup_that_was_made_while_the_server_ran_can_be_restored() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    // Now the log has what the file has not.
    shell(&store, "mkdir ../backup && sqlite3 xfer.db '.backup ../backup/xfer.db'");
    shell(&store, "cp -a contents tls ../backup");
    write(&world, "b{1..30}");
    world.server.kill();
    // Where nothing is newer, it is as good as the original.
    shell(&store, "cp -a ../backup ../restored");
    let mut restored = Server::start(&store.join("../restored"), "127.0.0.1:0");
    assert_eq!(restored.terminate(), Some(0));
    shell(&store, "rm xfer.db* && cp -a ../backup/. .");
    is_refused(&store);
    let address = world.server.address.to_string();
    world.server = Server::start_with(&store, &address, &["--accept-older-database"]);
    check_all(&world, "a{1..10}");
    wait_until("contents to be set aside", PATIENCE, || set_aside(&store).len() == 30);
    assert_eq!(world.server.terminate(), Some(0));
    world.server.restart();
    check_all(&world, "a{1..10}");
}

/// A store whose server was killed: `../older` is a copy of it from a clean stop, with the files
/// `a1` to `a10`. Since then `b1` to `b30` and many links came, and the write-ahead log, which is still
/// there, has begun anew. Also returns the number of the links.
fn killed_with_a_log_that_began_anew() -> (World, usize) {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -a . ../older");
    world.server.restart();
    let mount = world.mount("alice");
    mount.shell("for name in b{1..30}; do seq 1000 > $name; done; mkdir links");
    mount.sync();
    // Each time that a log begins, its first bytes change.
    let head = || fs::read(store.join("xfer.db-wal")).unwrap()[..32].to_vec();
    let first = head();
    let mut count = 0;
    while head() == first {
        // Each takes up a page of the database.
        let links =
            "to=$(printf 'x%.0s' {1..3500}); for n in {1..200}; do ln -s $to links/ROUND-$n; done";
        mount.shell(&links.replace("ROUND", &count.to_string()));
        mount.sync();
        count += 1;
        assert!(count < 50, "the log never begins anew");
    }
    mount.shell("echo last > last");
    mount.sync();
    world.server.kill();
    drop(mount);
    shell(&store, "test -s xfer.db-wal && cp -p xfer.db ../newest");
    (world, 200 * count)
}

/// All files of a store, with their checksums, but for the control socket.
fn all_of(store: &Path) -> String {
    shell(store, "find . -type f ! -name lock -exec sha256sum {} + | sort -k 2")
}

#[test]
fn an_older_database_beside_the_log_of_the_newest_is_refused_before_anything_is_changed() {
    let (mut world, links) = killed_with_a_log_that_began_anew();
    let store = world.server.store().to_owned();
    let before = all_of(&store);
    let put_backs = [
        "cp ../older/xfer.db .",
        "cp ../older/xfer.db . && rm xfer.db-shm",
        // The whole backup, but over what is there.
        "cp -a ../older/numbers ../older/xfer.db .",
        "cp -a ../older/xfer.db . && rm numbers",
    ];
    for put_back in put_backs {
        shell(&store, &format!("cp -a numbers ../numbers && {put_back}"));
        let mixed = all_of(&store);
        for _ in 0..2 {
            is_refused(&store);
        }
        let directory = store.join("../exported").display().to_string();
        for args in [&["user", "list"][..], &["export", "alice", &directory]] {
            command(&store, args).refused(Exit::StoreOlder as u8);
        }
        // SQLite keeps only locks and an index of the log there.
        let without_index = |text: &str| {
            text.lines()
                .filter(|line| !line.ends_with("-shm"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(without_index(&all_of(&store)), without_index(&mixed), "{put_back}");
        shell(&store, "cp -a ../numbers . && cp ../newest xfer.db");
    }
    assert_eq!(all_of(&store).lines().count(), before.lines().count());
    world.server.restart();
    check_all(&world, "a{1..10} b{1..30}");
    let mount = world.mount("alice");
    let found = mount.shell("cat last; ls links | wc -l; readlink links/0-1 | wc -c");
    assert_eq!(found, format!("last\n{links}\n3501"));
    mount.unmount();
}

#[test]
fn an_older_database_that_is_accepted_beside_the_log_of_the_newest_is_used_without_that() {
    let (mut world, _) = killed_with_a_log_that_began_anew();
    let store = world.server.store().to_owned();
    shell(&store, "cp ../older/xfer.db . && cp -p xfer.db-wal ../log");
    is_refused(&store);
    let address = world.server.address.to_string();
    world.server = Server::start_with(&store, &address, &["--accept-older-database"]);
    wait_until("contents to be set aside", PATIENCE, || set_aside(&store).len() == 31);
    shell(&store, "cmp ../log xfer.db-wal.aside-*");
    write(&world, "c{1..30}");
    check_all(&world, "a{1..10} c{1..30}");
    // From here on the log is the older database's own.
    world.server.kill();
    world.server.restart();
    check_all(&world, "a{1..10} c{1..30}");
    world.server.kill();
    // And not the newest one's.
    shell(&store, "cp -p xfer.db ../accepted && cp ../newest xfer.db");
    is_refused_with(&store, "xfer.db");
    shell(&store, "cp ../accepted xfer.db");
    world.server.restart();
    check_all(&world, "a{1..10} c{1..30}");
    assert_eq!(world.server.terminate(), Some(0));
    assert_eq!(shell(&store, "sqlite3 xfer.db 'PRAGMA integrity_check'"), "ok");
}

#[test]
fn a_database_of_the_state_before_a_whole_backup_was_put_back_is_refused_beside_a_later_log() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -a . ../backup");
    world.server.restart();
    write(&world, "b{1..10}");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -p xfer.db ../given-up && find . -mindepth 1 -delete && cp -a ../backup/. .");
    world.server.restart();
    // Its counter of numbers comes to where that of the other had come, and further.
    for round in 0..3 {
        write(&world, &format!("c{round}-{{1..10}}"));
    }
    world.server.kill();
    shell(&store, "test -s xfer.db-wal && cp -p xfer.db ../newest && cp ../given-up xfer.db");
    is_refused_with(&store, "xfer.db");
    shell(&store, "cp ../newest xfer.db");
    world.server.restart();
    check_all(&world, "a{1..10} c{0..2}-{1..10}");
}

#[test]
fn a_database_that_was_removed_from_beside_its_log_can_be_put_back() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    let mount = world.mount("alice");
    mount.shell("for name in a{1..10}; do seq 1000 > $name; done");
    mount.sync();
    world.server.kill();
    drop(mount);
    shell(&store, "mv xfer.db ../kept");
    for _ in 0..2 {
        is_refused_with(&store, "xfer.db-wal does not belong to xfer.db");
    }
    shell(&store, "mv ../kept xfer.db");
    world.server.restart();
    check_all(&world, "a{1..10}");
}

#[test]
fn a_database_that_was_removed_takes_no_contents_with_it() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    assert_eq!(world.server.terminate(), Some(0));
    let before = contents(&world.server);
    shell(&store, "mv xfer.db ../kept");
    is_refused(&store);
    // Whatever else is missing, the contents themselves reveal it.
    shell(&store, "rm xfer.db* numbers");
    is_refused(&store);
    assert_eq!(contents(&world.server), before);
    // A running server notices when later contents and the rest of the old store are restored.
    shell(&store, "rm xfer.db* numbers && cp -a contents ../contents && rm -r contents/*");
    let mut started = Server::start(&store, "127.0.0.1:0");
    assert_eq!(started.terminate(), Some(0));
    shell(&store, "cp -a ../contents .");
    let mut started = Server::start(&store, "127.0.0.1:0");
    assert_eq!(started.ended(), Some(Exit::StoreOlder as i32), "{}", started.said());
    is_refused(&store);
    assert_eq!(contents(&world.server), before);
    shell(&store, "rm xfer.db* && mv ../kept xfer.db");
    world.server.restart();
    check_all(&world, "a{1..10}");
}

#[test]
fn what_a_crash_left_is_set_aside_without_an_alarm_and_goes_after_days() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    write(&world, "a{1..10}");
    world.server.kill();
    // As after a batch that was not committed: the number was granted, and no row has it.
    shell(&store, "seq 10000 > contents/00/04/00000000000004ff");
    world.server.restart();
    wait_until("it to be set aside", PATIENCE, || set_aside(&store).len() == 1);
    wait_until("that to be said", PATIENCE, || {
        world.server.said().contains("moved contents that no file has to contents/lost")
    });
    check_all(&world, "a{1..10}");
    let days = |count: u32| {
        let lost = store.join("contents/lost");
        shell(&lost, &format!("mv 20* $(date -u -d '{count} days ago' +%F)"));
    };
    assert_eq!(world.server.terminate(), Some(0));
    days(6);
    world.server.restart();
    check_all(&world, "a{1..10}");
    assert_eq!(set_aside(&store).len(), 1, "it went too early");
    assert_eq!(world.server.terminate(), Some(0));
    days(8);
    world.server.restart();
    wait_until("it to go", PATIENCE, || set_aside(&store).is_empty());
    check_all(&world, "a{1..10}");
    assert_eq!(fs::read_dir(store.join("contents/lost")).unwrap().count(), 0);
}

#[test]
fn a_mount_whose_server_was_put_back_to_a_backup_does_not_say_that_everything_is_there() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    let mut mount = world.mount("alice");
    mount.shell("echo old > old; sync .");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -a . ../backup");
    world.server.restart();
    mount.shell("echo newer > newer; sync .");
    world.server.kill();
    shell(&store, "find . -mindepth 1 -delete; cp -a ../backup/. .");
    world.server.restart();
    mount.says(
        "it was put back from a backup; what was changed since then is not on the server any more",
    );
    assert_eq!(mount.unmounted_by_force(), Some(i32::from(Lost.code())), "{}", mount.said());
}

#[test]
fn a_mount_whose_server_was_put_back_to_a_backup_says_so_and_keeps_what_it_has() {
    let mut world = World::new(&["alice"]);
    let store = world.server.store().to_owned();
    let mut mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    mount.shell("echo old > old; sync .");
    assert_eq!(world.server.terminate(), Some(0));
    shell(&store, "cp -a . ../backup");
    world.server.restart();
    mount.shell("echo newer > newer; sync .");
    world.server.kill();
    mount.shell("echo pending > pending");
    shell(&store, "find . -mindepth 1 -delete; cp -a ../backup/. .");
    world.server.restart();
    mount.says("it was put back from a backup");
    mount.says("what is not on the server is kept in");
    assert_eq!(mount.unmounted_by_force(), Some(i32::from(Lost.code())), "{}", mount.said());
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls | tr '\\n' ' '"), "inbox old outbox ");
    world.rescue(&["apply", &world.only_rescue()]).succeeded();
    assert_eq!(fs::read_to_string(mount.path("pending")).unwrap(), "pending\n");
    mount.unmount();
}
