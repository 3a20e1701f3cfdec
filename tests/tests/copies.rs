//! Copies within a mount: what moves no data over the wire, and what becomes of the two files then.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs as sys;
use xfer_tests::files::{Mapped, errno, read_write};
use xfer_tests::space::contents;
use xfer_tests::{Mount, Random, Relay, World, wait_until};

const SOON: Duration = Duration::from_secs(30);

const BIG: usize = 8 << 20;

/// More than all small messages of a test together, and far less than the data in it.
const NO_DATA: u64 = 128 << 10;

/// Mounts of alice, which all go over one wire that counts.
struct Counted {
    relay: Relay,
    world: World,
}

impl Counted {
    fn new() -> Counted {
        let world = World::new(&["alice", "bob"]);
        Counted { relay: Relay::to(world.server.address), world }
    }

    fn mount(&self) -> Mount {
        self.world.mounting("alice").through(self.relay.address).start()
    }

    /// Does something on a mount, and fails the test if that moves data, at once or until all is
    /// on the server's disk.
    fn without_data<T>(&self, mount: &Mount, what: &str, act: impl FnOnce() -> T) -> T {
        mount.sync();
        let before = self.relay.passed();
        let done = act();
        mount.sync();
        let after = self.relay.passed();
        let (up, down) = (after.up - before.up, after.down - before.down);
        println!("{what}: {up} bytes up, {down} bytes down");
        assert!(up < NO_DATA && down < NO_DATA, "{what}: {up} bytes up, {down} bytes down");
        done
    }

    fn contents(&self) -> usize {
        contents(&self.world.server).len()
    }
}

/// Ways in which `big` becomes `$N` and stays, with one content for both.
const SHARING: [&str; 8] = [
    "cp big $N",
    "cp -a big $N",
    "cp --sparse=never big $N",
    "cp --reflink=auto big $N",
    "cat big > $N",
    "install -m 600 big $N",
    "cp -r directory d$N && mv d$N/big $N",
    "ln big l$N && cp l$N $N",
];

/// Ways in which `big` becomes a record, with one content for all.
const SENDING: [&str; 4] = [
    "cp big outbox/bob/$N",
    "cat big > outbox/bob/$N",
    "cp big $N && mv $N outbox/bob/",
    "cp big $N && python3 -c \"import shutil; shutil.move('$N', 'outbox/bob/$N')\"",
];

#[test]
fn whole_files_are_copied_moved_and_sent_without_moving_or_storing_their_data() {
    let counted = Counted::new();
    let mount = counted.mount();
    let data = Random::new(1).bytes(BIG);
    fs::write(mount.path("big"), &data).unwrap();
    mount.shell("mkdir directory && cp big directory/");
    mount.unmount();
    // Nothing is cached, so that what is read has to come.
    let mount = counted.mount();
    let mut names = Vec::new();
    for way in SHARING.iter().chain(&SENDING) {
        let name = format!("copy{}", names.len());
        counted.without_data(&mount, way, || mount.shell(&format!("N={name}; {way}")));
        assert_eq!(counted.contents(), 1, "{way}");
        names.push(name);
    }
    counted.without_data(&mount, "python's shutil.move", || {
        mount.shell("python3 -c \"import shutil; shutil.move('directory', 'moved')\"");
    });
    assert_eq!(counted.contents(), 1);
    mount.unmount();
    let (mount, bob) = (counted.mount(), counted.world.mount("bob"));
    for (index, name) in names.into_iter().enumerate() {
        if index < SHARING.len() {
            assert!(fs::read(mount.path(&name)).unwrap() == data, "{name}");
        } else {
            let arrived = bob.path("inbox/alice").join(&name);
            wait_until(&name, SOON, || arrived.exists());
            assert!(fs::read(mount.path("outbox/bob").join(&name)).unwrap() == data, "{name}");
            assert!(fs::read(arrived).unwrap() == data, "{name}");
        }
    }
    assert!(fs::read(mount.path("moved/big")).unwrap() == data);
    bob.unmount();
    mount.unmount();
}

/// A change to a file, as a program makes it, and to the bytes that it should then hold.
type Change = fn(&File, &mut Vec<u8>);

/// All ways to change a file's data.
const CHANGES: [(&str, Change); 7] = [
    ("a byte", |file, bytes| {
        file.write_all_at(b"!", 70_001).unwrap();
        bytes[70_001] = b'!';
    }),
    ("some blocks", |file, bytes| {
        let data = Random::new(2).bytes(3 * 4096);
        file.write_all_at(&data, 4096).unwrap();
        bytes[4096..4 * 4096].copy_from_slice(&data);
    }),
    ("more at the end", |file, bytes| {
        file.write_all_at(b"more", bytes.len() as u64).unwrap();
        bytes.extend_from_slice(b"more");
    }),
    ("cut off and grown again", |file, bytes| {
        let len = bytes.len();
        file.set_len(50_001).unwrap();
        file.set_len(len as u64).unwrap();
        bytes[50_001..].fill(0);
    }),
    ("a hole", |file, bytes| {
        let mode = sys::FallocateFlags::PUNCH_HOLE | sys::FallocateFlags::KEEP_SIZE;
        sys::fallocate(file, mode, 10_000, 30_000).unwrap();
        bytes[10_000..40_000].fill(0);
    }),
    ("through memory", |file, bytes| {
        let mut mapped = Mapped::new(file, bytes.len());
        mapped.write(99_999, b"mapped");
        mapped.sync();
        bytes[99_999..100_005].copy_from_slice(b"mapped");
    }),
    ("a part of itself", |file, bytes| {
        sys::copy_file_range(file, Some(&mut 5), file, Some(&mut 90_000), 20_000).unwrap();
        bytes.copy_within(5..20_005, 90_000);
    }),
];

#[test]
fn either_of_two_that_share_can_be_changed_and_the_other_stays_byte_for_byte() {
    let counted = Counted::new();
    let mount = counted.mount();
    let data = Random::new(3).bytes(200_003);
    let mut expected = Vec::new();
    for (index, (what, change)) in CHANGES.iter().enumerate() {
        for side in ["from", "to"] {
            let name = |end: &str| format!("{index} {side} {end}");
            fs::write(mount.path(&name("from")), &data).unwrap();
            let shared =
                format!("cp '{0}' '{1}' && cp '{0}' 'outbox/bob/{0}'", name("from"), name("to"));
            counted.without_data(&mount, what, || mount.shell(&shared));
            let mut changed = data.clone();
            change(&read_write(&mount.path(&name(side))), &mut changed);
            for end in ["from", "to"] {
                let bytes = if end == side { &changed } else { &data };
                assert!(
                    fs::read(mount.path(&name(end))).unwrap() == *bytes,
                    "{what}: {}",
                    name(end)
                );
                expected.push((name(end), bytes.clone()));
            }
            expected.push((format!("outbox/bob/{}", name("from")), data.clone()));
        }
    }
    mount.unmount();
    // And so it is on the server.
    let mount = counted.mount();
    for (path, bytes) in &expected {
        assert!(fs::read(mount.path(path)).unwrap() == *bytes, "{path}");
    }
    mount.unmount();
}

#[test]
fn to_change_a_shared_file_moves_the_change_and_nothing_else() {
    let counted = Counted::new();
    let mount = counted.mount();
    let mut data = Random::new(4).bytes(BIG);
    fs::write(mount.path("big"), &data).unwrap();
    mount.shell("cp big copy");
    mount.unmount();
    let mount = counted.mount();
    counted.without_data(&mount, "a byte of a shared file", || {
        read_write(&mount.path("copy")).write_all_at(b"!", 5 << 20).unwrap();
    });
    assert_eq!(counted.contents(), 2);
    assert!(fs::read(mount.path("big")).unwrap() == data);
    data[5 << 20] = b'!';
    assert!(fs::read(mount.path("copy")).unwrap() == data);
    mount.unmount();
}

/// Copies a part of one file into another, or itself; gives how many bytes that were.
fn copy(from: &File, mut at: u64, to: &File, mut into: u64, len: usize) -> std::io::Result<usize> {
    Ok(sys::copy_file_range(from, Some(&mut at), to, Some(&mut into), len)?)
}

#[test]
fn parts_of_files_are_copied_on_the_server_wherever_they_begin_and_end() {
    let seed = Random::seed();
    let counted = Counted::new();
    let mount = counted.mount();
    let mut random = Random::new(seed);
    let mut expected = [random.bytes(BIG), random.bytes(BIG), Vec::new()];
    let names = ["one", "two", "three"];
    for (name, bytes) in names.iter().zip(&expected) {
        fs::write(mount.path(name), bytes).unwrap();
    }
    mount.unmount();
    let mount = counted.mount();
    let files = names.map(|name| read_write(&mount.path(name)));
    counted.without_data(&mount, "parts", || {
        for _ in 0..60 {
            let (from, to) = (random.below(3) as usize, random.below(3) as usize);
            let unit = *random.pick(&[1, 4096]);
            let mut place = |below: u64| random.below(below) / unit * unit;
            let (at, into, len) = (place(9 << 20), place(9 << 20), place(2 << 20) as usize);
            let source = expected[from].get(at as usize..).unwrap_or_default();
            let source = source[..len.min(source.len())].to_vec();
            let done = copy(&files[from], at, &files[to], into, len);
            let meet = from == to && at.abs_diff(into) < len as u64 && len > 0;
            if meet && !source.is_empty() {
                // What the kernel compares is cut at the end of the file.
                let cut = at.abs_diff(into) >= source.len() as u64;
                assert!(cut || errno(done) == libc::EINVAL, "{at} {into} {len}");
                continue;
            }
            assert_eq!(done.unwrap(), source.len(), "{at} {into} {len}");
            if !source.is_empty() {
                let end = into as usize + source.len();
                let bytes = &mut expected[to];
                bytes.resize(bytes.len().max(end), 0);
                bytes[into as usize..end].copy_from_slice(&source);
            }
        }
    });
    drop(files);
    mount.unmount();
    let mount = counted.mount();
    for (name, bytes) in names.iter().zip(&expected) {
        assert!(fs::read(mount.path(name)).unwrap() == *bytes, "{name}");
    }
    mount.unmount();
}

#[test]
fn the_ends_of_a_copied_range_are_those_of_the_manual() {
    let counted = Counted::new();
    let mount = counted.mount();
    let data = Random::new(6).bytes(10_000);
    fs::write(mount.path("file"), &data).unwrap();
    let (file, other) = (read_write(&mount.path("file")), read_write(&mount.path("other")));
    // At the end of the file, and past it.
    assert_eq!(copy(&file, 9_000, &other, 0, 5_000).unwrap(), 1_000);
    assert_eq!(copy(&file, 10_000, &other, 0, 5_000).unwrap(), 0);
    assert_eq!(copy(&file, 1 << 40, &other, 0, 5_000).unwrap(), 0);
    assert!(fs::read(mount.path("other")).unwrap() == data[9_000..]);
    // Past the end of the other, which leaves a hole.
    assert_eq!(copy(&file, 1, &other, 50_001, 2).unwrap(), 2);
    let bytes = fs::read(mount.path("other")).unwrap();
    assert_eq!(bytes.len(), 50_003);
    assert!(bytes[1_000..50_001].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[50_001..], data[1..3]);
    // Within one file: ranges may touch, and not overlap.
    assert_eq!(errno(copy(&file, 0, &file, 4_999, 5_000)), libc::EINVAL);
    assert_eq!(errno(copy(&file, 4_999, &file, 0, 5_000)), libc::EINVAL);
    assert_eq!(errno(copy(&file, 3, &file, 3, 1)), libc::EINVAL);
    assert!(fs::read(mount.path("file")).unwrap() == data, "a refused copy changed something");
    assert_eq!(copy(&file, 0, &file, 5_000, 5_000).unwrap(), 5_000);
    let bytes = fs::read(mount.path("file")).unwrap();
    assert!(bytes[..5_000] == bytes[5_000..] && bytes[..5_000] == data[..5_000]);
    // A hole is copied as one, over data too.
    let sparse = read_write(&mount.path("sparse"));
    sparse.set_len(1 << 30).unwrap();
    assert_eq!(copy(&sparse, 0, &other, 0, 40_960).unwrap(), 40_960);
    assert_eq!(mount.shell("stat -c %b other"), "8");
    drop((file, other, sparse));
    mount.unmount();
    let mount = counted.mount();
    let bytes = fs::read(mount.path("other")).unwrap();
    assert!(bytes[..50_001].iter().all(|byte| *byte == 0) && bytes[50_001..] == data[1..3]);
    mount.unmount();
}

#[test]
fn a_copy_of_what_is_still_on_its_way_moves_the_data_once() {
    let counted = Counted::new();
    let mount = counted.mount();
    let data = Random::new(7).bytes(BIG);
    mount.sync();
    let before = counted.relay.passed();
    fs::write(mount.path("big"), &data).unwrap();
    mount.shell("cp big one && cp one two && cp two outbox/bob/three");
    mount.sync();
    let after = counted.relay.passed();
    assert!(after.up - before.up < BIG as u64 + NO_DATA, "{before:?} {after:?}");
    assert!(after.down - before.down < NO_DATA, "{before:?} {after:?}");
    assert_eq!(counted.contents(), 1);
    mount.unmount();
    let mount = counted.mount();
    for name in ["big", "one", "two", "outbox/bob/three"] {
        assert!(fs::read(mount.path(name)).unwrap() == data, "{name}");
    }
    mount.unmount();
}
