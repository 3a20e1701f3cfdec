//! Two mounts with `-o handoff`: the tree follows the user.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xfer_tests::files::errno;
use xfer_tests::sending::arrives;
use xfer_tests::{Mount, PATIENCE, Relay, World, scale, wait_until};

use crate::{output, shows, start};

/// How often two machines take turns. `XFER_TURNS` sets another number.
const TURNS: usize = 8;

/// The longest time until an idle mount has handed the tree over and the other one has read a file, at best:
/// a machine that is not busy takes less than 30 ms.
const MOMENT: Duration = Duration::from_millis(150);

/// Two mounts of alice, of which the second has the tree.
fn two(world: &World, wait: &str) -> [Mount; 2] {
    let options = format!("handoff,wait={wait}");
    let first = world.mounting("alice").arg("-o").arg(&options).start();
    let elsewhere = world.mount_point("elsewhere");
    let second = world.mounting("alice").at(&elsewhere).arg("-o").arg(&options);
    [first, second.arg("--takeover").start()]
}

#[test]
fn the_tree_follows_the_user_and_nothing_is_lost_or_stale() {
    let world = World::new(&["alice"]);
    let mounts = two(&world, "forever");
    mounts[1].shell("mkdir d; : > log; : > d/log; echo 0 > count; echo 0 > saved");
    let turns = scale::count("XFER_TURNS", TURNS);
    for turn in 1..=turns {
        let mount = &mounts[turn % 2];
        // An editor's save, one in place, an appended line, a name that was absent, and a removed one.
        let said = mount.shell(&format!(
            "cat saved count; tail -n 1 log; tail -n 1 d/log; fails ls d/{turn}
             echo {turn} > saved.tmp; mv saved.tmp saved; echo {turn} > count
             echo line {turn} >> log; echo line {turn} >> d/log; echo {turn} > d/{turn}
             rm -f d/{before}; ls d",
            before = turn - 1
        ));
        let before = turn - 1;
        let last =
            if before == 0 { String::new() } else { format!("line {before}\nline {before}\n") };
        assert_eq!(said, format!("{before}\n{before}\n{last}{turn}\nlog"), "turn {turn}");
    }
    let lines: Vec<String> = (1..=turns).map(|turn| format!("line {turn}")).collect();
    for mount in &mounts {
        for name in ["log", "d/log"] {
            let text = fs::read_to_string(mount.path(name)).unwrap();
            assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        }
    }
    mounts.into_iter().for_each(Mount::unmount);
}

#[test]
fn the_status_of_both_mounts_says_which_of_them_has_the_tree() {
    let world = World::new(&["alice"]);
    let [first, second] = two(&world, "forever");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    wait_until("the first to be dormant", PATIENCE, || {
        shows(&first, &format!("with the client on {host}"))
    });
    assert!(shows(&second, "with this mount"));
    fs::write(first.path("file"), "x").unwrap();
    assert!(shows(&first, "with this mount"));
    assert!(shows(&second, &format!("with the client on {host}")));
    assert_eq!(fs::read_to_string(second.path("file")).unwrap(), "x");
    [first, second].into_iter().for_each(Mount::unmount);
}

#[test]
fn a_file_that_is_open_for_writing_keeps_the_tree_where_it_is() {
    let world = World::new(&["alice"]);
    let [first, second] = two(&world, "forever");
    let mut file = File::create(second.path("file")).unwrap();
    file.write_all(b"half ").unwrap();
    let waiting = start(first.root(), "cat file");
    wait_until("the second to be asked", PATIENCE, || shows(&second, "asks for it"));
    // Longer than the server lets the first one wait.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        file.write_all(b".").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    file.write_all(b" whole").unwrap();
    drop(file);
    let text = output(waiting);
    assert!(text.starts_with("half .") && text.ends_with(". whole"), "{text}");
    [first, second].into_iter().for_each(Mount::unmount);
}

#[test]
fn what_rests_in_the_outbox_is_sent_once_though_the_tree_goes_elsewhere() {
    let world = World::new(&["alice", "bob"]);
    let (mounts, bob) = (two(&world, "forever"), world.mount("bob"));
    mounts[1].shell("cp -r /etc/apt outbox/bob/; echo text > outbox/bob/letter");
    // The first mount asks for the tree at once.
    mounts[0].shell("ls outbox/bob");
    arrives(&bob, "inbox/alice/letter");
    arrives(&bob, "inbox/alice/apt");
    mounts[1].shell("echo next > outbox/bob/letter.part");
    mounts[0].shell("ls outbox/bob");
    arrives(&bob, "inbox/alice/letter.part");
    assert_eq!(bob.shell("ls -A inbox/alice"), "apt\nletter\nletter.part");
    mounts.into_iter().for_each(Mount::unmount);
    bob.unmount();
}

#[test]
fn a_lock_keeps_the_tree_where_it_is_though_its_file_is_open_for_reading_only() {
    let world = World::new(&["alice"]);
    let [first, second] = two(&world, "forever");
    second.shell("echo 0 > count; : > lock");
    let began = world.outside().join("began");
    // The program opens the lock's file for reading.
    let raise = format!(
        "flock lock sh -c 'old=$(cat count); : > {}; sleep 4; echo $((old + 1)) > count'",
        began.display()
    );
    let raising = start(second.root(), &raise);
    wait_until("the lock", PATIENCE, || began.exists());
    let other = start(first.root(), "flock lock sh -c 'echo $(($(cat count) + 1)) > count'");
    output(raising);
    output(other);
    assert_eq!(fs::read_to_string(second.path("count")).unwrap(), "2\n");
    [first, second].into_iter().for_each(Mount::unmount);
}

#[test]
fn a_mount_without_handoff_keeps_the_tree() {
    let world = World::new(&["alice"]);
    let first = world.mounting("alice").arg("-o").arg("handoff,wait=2").start();
    fs::write(first.path("file"), "x").unwrap();
    let elsewhere = world.mount_point("elsewhere");
    let second = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    wait_until("the first to be dormant", PATIENCE, || shows(&first, "dormant"));
    assert_eq!(errno(fs::read(first.path("file"))), libc::EBUSY);
    assert!(shows(&second, "with this mount"));
    second.unmount();
    wait_until("the first to have the tree again", PATIENCE, || {
        fs::read(first.path("file")).is_ok_and(|text| text == b"x")
    });
    first.unmount();
}

#[test]
fn an_idle_mount_hands_the_tree_over_in_a_moment() {
    let world = World::new(&["alice"]);
    let mounts = two(&world, "forever");
    mounts[1].shell("for i in $(seq 200); do echo $i > f$i; done; ls -l; cat f*");
    let mut shortest = Duration::MAX;
    for turn in 0..4 {
        let mount = &mounts[turn % 2];
        // Each keeps the tree for two seconds in any case.
        std::thread::sleep(Duration::from_millis(2200));
        let begun = Instant::now();
        assert_eq!(fs::read_to_string(mount.path("f1")).unwrap(), "1\n");
        shortest = shortest.min(begun.elapsed());
        mount.shell("cat f*; ls -l");
    }
    println!("the shortest took {shortest:?}");
    assert!(shortest < MOMENT, "{shortest:?}");
    mounts.into_iter().for_each(Mount::unmount);
}

/// A program that shows the first byte of a file, through a mapping, for each line that it reads.
const MAPPED: &str = "
import mmap, sys
file = open('file', 'rb')
mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(chr(mapped[0]), flush=True)
for line in sys.stdin:
    print(chr(mapped[0]), flush=True)
";

#[test]
fn a_mapping_shows_what_the_other_mount_has_written() {
    let world = World::new(&["alice"]);
    let [first, second] = two(&world, "forever");
    fs::write(first.path("file"), "before").unwrap();
    let mut python = Command::new("python3");
    let python = python.args(["-c", MAPPED]).current_dir(first.root());
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(python.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(shown.next().as_deref(), Some("b"));
    let mut input = python.stdin.take().unwrap();
    for byte in ["x", "y"] {
        let file = File::options().write(true).open(second.path("file")).unwrap();
        file.write_all_at(byte.as_bytes(), 0).unwrap();
        drop(file);
        input.write_all(b"\n").unwrap();
        assert_eq!(shown.next().as_deref(), Some(byte));
    }
    drop(input);
    assert!(python.wait().unwrap().success());
    [first, second].into_iter().for_each(Mount::unmount);
}

#[test]
fn what_the_other_mount_has_not_changed_is_not_fetched_again() {
    const BYTES: usize = 4 << 20;
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let options = "handoff,wait=forever";
    let first = world.mounting("alice").through(relay.address).arg("-o").arg(options).start();
    first.shell(&format!("head -c {BYTES} /dev/urandom > same; cp same changed; md5sum same"));
    let before = first.shell("md5sum same; sync .");
    let elsewhere = world.mount_point("elsewhere");
    let second = world.mounting("alice").at(&elsewhere).arg("-o").arg(options);
    let second = second.arg("--takeover").start();
    for turn in 0..3 {
        second.shell(&format!("echo {turn} > changed; sync ."));
        let passed = relay.passed();
        assert_eq!(first.shell("md5sum same"), before);
        assert_eq!(first.shell("cat changed"), turn.to_string());
        let fetched = relay.passed().down - passed.down;
        assert!(fetched < BYTES as u64 / 10, "{fetched} bytes in turn {turn}");
    }
    [first, second].into_iter().for_each(Mount::unmount);
}

#[test]
fn a_mount_that_has_just_got_the_tree_keeps_it_for_two_seconds() {
    const TURNS: usize = 4;
    let world = World::new(&["alice"]);
    let mounts = two(&world, "forever");
    let begin = Instant::now();
    for turn in 0..TURNS {
        mounts[turn % 2].shell(&format!("echo {turn} > file"));
        // The other one gets the tree, and has it for the next turn.
        assert_eq!(mounts[(turn + 1) % 2].shell("cat file"), turn.to_string());
    }
    let least = Duration::from_secs(2) * TURNS as u32;
    assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
    mounts.into_iter().for_each(Mount::unmount);
}
