//! The messages on the wire, and operations that must not wait for them: counted and ordered, not timed.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::Path;

use xfer_tests::files::{set_xattr, xattr, xattrs};
use xfer_tests::memory::Allowed;
use xfer_tests::{PATIENCE, Random, Relay, World, shell, wait_until};

/// More than any number of small messages, and far less than the data in these tests.
const NO_DATA: u64 = 256 << 10;

const BIG: usize = 8 << 20;

#[test]
fn a_copy_of_a_thousand_small_files_does_not_wait_for_the_network_even_once() {
    let world = World::new(&["alice"]);
    let source = world.outside().join("source");
    fs::create_dir(&source).unwrap();
    for index in 0..1000 {
        fs::write(source.join(format!("file {index}")), format!("content {index}")).unwrap();
    }
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    mount.shell("ls");
    mount.sync();
    // From here on the client receives nothing, and still the whole copy succeeds.
    relay.hold_answers();
    let before = relay.passed();
    shell(&source, &format!("cp -r . '{}'", mount.path("copy").display()));
    assert_eq!(mount.shell("ls copy | wc -l"), "1000");
    assert_eq!(mount.shell("cat 'copy/file 999'"), "content 999");
    assert_eq!(relay.passed().down, before.down, "an answer arrived");
    // It must have been streamed meanwhile, not saved up.
    wait_until("the log to reach the server", PATIENCE, || relay.passed().up > before.up + 10_000);
    relay.release();
    mount.sync();
    mount.unmount();
}

#[test]
fn fsync_waits_for_the_servers_word() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    mount.sync();
    let path = mount.path("file");
    let synced = relay.answers_are_waited_for("fsync", move || {
        let mut file = File::create(path)?;
        std::io::Write::write_all(&mut file, b"x")?;
        file.sync_all()
    });
    synced.unwrap();
    mount.unmount();
}

/// Syncs something unchanged while another file's change is in flight.
fn check_barrier(what: &str, sync: impl FnOnce(&Path) + Send + 'static) {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    fs::write(mount.path("unchanged"), "x".repeat(4096)).unwrap();
    mount.sync();
    let root = mount.root().to_owned();
    relay.answers_are_waited_for(what, move || {
        fs::write(root.join("changed"), "x").unwrap();
        sync(&root);
    });
    mount.unmount();
}

#[test]
fn every_kind_of_sync_waits_for_all_changes_of_the_tree_and_not_only_the_files_own() {
    check_barrier("fsync", |root| File::open(root.join("unchanged")).unwrap().sync_all().unwrap());
    check_barrier("fdatasync", |root| {
        File::open(root.join("unchanged")).unwrap().sync_data().unwrap();
    });
    check_barrier("fsync of a directory", |root| File::open(root).unwrap().sync_all().unwrap());
    check_barrier("msync", |root| {
        let map = "import mmap; f = open('unchanged', 'r+b'); mmap.mmap(f.fileno(), 0).flush()";
        shell(root, &format!("python3 -c \"{map}\""));
    });
    check_barrier("sync FILE", |root| drop(shell(root, "sync unchanged")));
}

#[test]
fn copies_inside_the_mount_and_into_the_outbox_move_no_data() {
    let world = World::new(&["alice", "bob"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    let data = Random::new(8).bytes(BIG);
    fs::write(mount.path("big"), &data).unwrap();
    mount.sync();
    assert!(relay.passed().up > BIG as u64);
    let before = relay.passed();
    mount.shell("cp big copy && mv big moved && cp moved outbox/bob/sent && mv moved outbox/bob/");
    mount.sync();
    let after = relay.passed();
    assert!(after.up - before.up < NO_DATA, "{before:?} {after:?}");
    assert!(after.down - before.down < NO_DATA, "{before:?} {after:?}");
    mount.unmount();
    let mount = world.mount("alice");
    assert!(fs::read(mount.path("copy")).unwrap() == data);
    assert!(fs::read(mount.path("outbox/bob/sent")).unwrap() == data);
    mount.unmount();
    let bob = world.mount("bob");
    wait_until("both", PATIENCE, || bob.path("inbox/alice/moved").exists());
    assert!(fs::read(bob.path("inbox/alice/sent")).unwrap() == data);
    assert!(fs::read(bob.path("inbox/alice/moved")).unwrap() == data);
    bob.unmount();
}

#[test]
fn a_file_just_written_is_read_without_the_network() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    mount.shell("ls");
    mount.sync();
    let data = Random::new(9).bytes(3 << 20);
    relay.hold_answers();
    fs::write(mount.path("file"), &data).unwrap();
    assert!(fs::read(mount.path("file")).unwrap() == data);
    relay.release();
    mount.unmount();
}

#[test]
fn what_was_looked_at_once_is_never_asked_for_again() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("for i in $(seq 200); do echo $i > f$i; done");
    mount.unmount();
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    let look = || mount.shell("ls -l && cat f* && test ! -e missing");
    let first = look();
    relay.hold_answers();
    assert_eq!(look(), first);
    relay.release();
    mount.unmount();
}

#[test]
fn a_look_at_the_beginning_of_a_file_fetches_little() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    fs::write(mount.path("huge"), vec![7; 64 << 20]).unwrap();
    mount.unmount();
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    let before = relay.passed().down;
    assert_eq!(mount.shell("head -c 1000 huge | wc -c"), "1000");
    let fetched = relay.passed().down - before;
    assert!(fetched < 4 << 20, "{fetched} bytes for the first thousand");
    mount.unmount();
}

#[test]
fn a_listing_of_files_with_large_attributes_costs_what_any_listing_does() {
    const FILES: usize = 1000;
    let world = World::new(&["alice"]);
    let value = |index: usize, attribute: usize| vec![(index + attribute) as u8; 60_000];
    let mount = world.mount("alice");
    for index in 0..FILES {
        let file = mount.path(&format!("file {index}"));
        fs::write(&file, "text").unwrap();
        for attribute in 0..2 {
            let name = format!("user.{attribute}");
            set_xattr(&file, &name, &value(index, attribute)).unwrap();
        }
    }
    mount.unmount();
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    let before = relay.passed();
    assert_eq!(mount.shell("find . -name 'file *' -printf '%s\\n' | sort | uniq -c"), "   1000 4");
    let down = relay.passed().down - before.down;
    assert!(down < 1 << 20, "{down} bytes came for a listing");
    let counts = world.server.command(&["session", "list", "--json"]).succeeded().stdout;
    let counts: serde_json::Value = serde_json::from_str(&counts).unwrap();
    let asked = ["looks", "listings"].map(|what| counts[0]["counts"][what].as_u64().unwrap());
    assert!(asked.iter().sum::<u64>() < 50, "{asked:?} questions: {counts}");
    // The attributes that were left out can be read and changed.
    let file = |index: usize| mount.path(&format!("file {index}"));
    assert_eq!(xattr(&file(7), "user.1").unwrap(), value(7, 1));
    assert!(relay.passed().down - before.down > 100_000);
    set_xattr(&file(8), "user.1", b"changed").unwrap();
    mount.shell("setfattr -x user.0 'file 9' && rm 'file 10'");
    mount.unmount();
    let mount = world.mount("alice");
    let file = |index: usize| mount.path(&format!("file {index}"));
    let all = |index: usize| xattrs(&file(index)).into_values();
    assert_eq!(all(7).collect::<Vec<_>>(), [value(7, 0), value(7, 1)]);
    assert_eq!(all(8).collect::<Vec<_>>(), [value(8, 0), b"changed".to_vec()]);
    assert_eq!(all(9).collect::<Vec<_>>(), [value(9, 1)]);
    assert_eq!(mount.shell("ls | grep -c file"), "999");
    Allowed::BY_DEFAULT.check(&world, &mount);
    mount.unmount();
}
