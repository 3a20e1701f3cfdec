//! `xfer stats`: each figure moves by what was done, and by no more.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;

use rustix::fs::{Advice, fadvise};
use xfer_mount::control::{OfKind, Stats};
use xfer_tests::{Mount, PATIENCE, Random, Relay, World, shell, wait_until};

const MIB: u64 = 1 << 20;

/// More than any number of small messages of these tests.
const SMALL: u64 = 256 << 10;

fn stats(mount: &Mount) -> Stats {
    let printed = mount.xfer("stats", &["--json"]).succeeded().stdout;
    serde_json::from_str(&printed).unwrap()
}

fn of_kind(stats: &Stats, kind: &str) -> OfKind {
    stats.operations.iter().find(|of| of.kind == kind).cloned().unwrap_or_default()
}

#[test]
fn each_kind_of_operation_is_counted_with_its_times() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("ls");
    let before = stats(&mount);
    fs::create_dir(mount.path("d")).unwrap();
    for index in 0..10 {
        fs::write(mount.path(&format!("d/f{index}")), "text").unwrap();
    }
    fs::rename(mount.path("d/f0"), mount.path("d/g")).unwrap();
    fs::remove_file(mount.path("d/f1")).unwrap();
    File::open(mount.path("d/g")).unwrap().sync_all().unwrap();
    fs::hard_link(mount.path("d/g"), mount.path("d/h")).unwrap();
    let after = stats(&mount);
    for (kind, count) in
        [("make", 2), ("create", 10), ("write", 10), ("rename", 1), ("remove", 1), ("sync", 1)]
    {
        let (before, after) = (of_kind(&before, kind), of_kind(&after, kind));
        assert_eq!(after.count - before.count, count, "{kind}");
        assert!(after.p50_us > 0.0 && after.p50_us <= after.p99_us, "{after:?}");
        assert!(after.waited <= after.count, "{after:?}");
    }
    // A sync takes a round trip and the server's disk, a write neither.
    assert!(of_kind(&after, "sync").p50_us > of_kind(&after, "write").p50_us, "{after:?}");
    let shown = mount.xfer("stats", &[]).succeeded().stdout;
    let row = shown.lines().find(|line| line.starts_with("create ")).unwrap();
    assert_eq!(row.split_whitespace().nth(1), Some("10"), "{shown}");
    mount.unmount();
}

#[test]
fn reads_and_names_are_told_by_whether_the_server_was_asked() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir d && head -c 100000 /dev/urandom > d/file");
    mount.unmount();
    let mount = world.mount("alice");
    let before = stats(&mount);
    let mut file = File::open(mount.path("d/file")).unwrap();
    let mut read = || {
        let mut data = Vec::new();
        // The kernel forgets what it has, so that it asks the mount.
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), 100_000);
        stats(&mount)
    };
    let (first, second) = (read(), read());
    let reads = |stats: &Stats| of_kind(stats, "read").count;
    let data = |stats: &Stats| (stats.data_hits, stats.data_misses);
    assert!(first.data_misses > before.data_misses, "{:?} {:?}", data(&before), data(&first));
    assert!(first.tree_misses > before.tree_misses);
    assert_eq!(second.data_misses, first.data_misses);
    assert_eq!(second.tree_misses, first.tree_misses);
    assert!(second.data_hits > first.data_hits, "{:?} {:?}", data(&first), data(&second));
    for stats in [&before, &first, &second] {
        assert_eq!(stats.data_hits + stats.data_misses, reads(stats));
    }
    drop(file);
    mount.unmount();
}

#[test]
fn bytes_that_go_over_the_link_and_memory_that_they_take_are_counted() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    mount.sync();
    let data = Random::new(7).bytes(16 << 20);
    let (before, passed_before) = (stats(&mount), relay.passed());
    assert_eq!((before.pending_ops, before.rate_bytes_per_s), (0, None));
    fs::write(mount.path("big"), &data).unwrap();
    mount.sync();
    let (after, passed) = (stats(&mount), relay.passed());
    let sent = after.sent_bytes - before.sent_bytes;
    assert!((16 * MIB..16 * MIB + SMALL).contains(&sent), "{sent}");
    // TLS adds a little.
    let encrypted = passed.up - passed_before.up;
    assert!((sent..sent + 2 * SMALL).contains(&encrypted), "{sent} {encrypted}");
    assert!(after.received_bytes - before.received_bytes < SMALL);
    let cached = after.cache_bytes - before.cache_bytes;
    assert!((16 * MIB..17 * MIB).contains(&cached), "{cached}");
    assert!(after.rate_bytes_per_s.unwrap() > 0.0);
    shell(mount.root(), "mkdir many && cd many && seq 2000 | xargs touch");
    let grown = stats(&mount).tree_bytes - after.tree_bytes;
    assert!((2000 * 100..2000 * 10_000).contains(&grown), "{grown}");
    mount.unmount();
    let mount = world.mounting("alice").through(relay.address).start();
    let before = stats(&mount);
    assert!(fs::read(mount.path("big")).unwrap() == data);
    let after = stats(&mount);
    let received = after.received_bytes - before.received_bytes;
    assert!((16 * MIB..16 * MIB + SMALL).contains(&received), "{received}");
    assert!(after.sent_bytes - before.sent_bytes < SMALL);
    mount.unmount();
}

#[test]
fn what_waits_and_what_became_of_the_connection_is_told() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    mount.shell("ls");
    mount.sync();
    wait_until("the round trip to be measured", PATIENCE, || stats(&mount).rtt_ms.is_some());
    relay.hold_answers();
    fs::write(mount.path("file"), vec![1; 100_000]).unwrap();
    let waits = stats(&mount);
    assert!(waits.pending_ops > 0 && waits.pending_bytes >= 100_000, "{waits:?}");
    assert_eq!(waits.reconnects, 0);
    relay.release();
    mount.sync();
    assert_eq!(stats(&mount).pending_ops, 0);
    for times in 1..=2 {
        relay.break_connections();
        wait_until("the connection to be back", PATIENCE, || stats(&mount).reconnects == times);
        mount.sync();
    }
    mount.unmount();
    assert_eq!(world.xfer(&["stats", world.home().to_str().unwrap()]).code, Some(13));
}
