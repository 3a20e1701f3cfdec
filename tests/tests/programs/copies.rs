//! Copies within a mount: which of them move no data over the wire, and how the files behave then.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs as sys;
use xfer_tests::files::{Mapped, errno, read_write};
use xfer_tests::space::{check_exact, contents};
use xfer_tests::{Mount, PATIENCE, Random, Relay, World, wait_until};

const BIG: usize = 8 << 20;

/// More than all small messages of a test together, and far less than its data.
const NO_DATA: u64 = 128 << 10;

/// Mounts of alice that all use one relay, which counts bytes.
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

    /// Runs `act` on a mount, and fails the test if it moves data, at once or until everything is
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

/// Commands that copy `big` to `$N` such that both share one content.
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

/// Commands that send `big` such that the record shares its content.
const SENDING: [&str; 4] = [
    "cp big outbox/bob/$N",
    "cat big > outbox/bob/$N",
    "cp big $N && mv $N outbox/bob/",
    "cp big $N && python3 -c \"import shutil; shutil.move('$N', 'outbox/bob/$N')\"",
];

/// Stores `big`, and `directory` with a copy of it; returns their bytes.
fn store_big(counted: &Counted, seed: u64) -> Vec<u8> {
    let mount = counted.mount();
    let data = Random::new(seed).bytes(BIG);
    fs::write(mount.path("big"), &data).unwrap();
    mount.shell("mkdir directory && cp big directory/");
    mount.unmount();
    data
}

#[test]
fn whole_files_are_copied_moved_and_sent_without_moving_or_storing_their_data() {
    let counted = Counted::new();
    let data = store_big(&counted, 1);
    // A new mount has an empty cache, so that reads must fetch.
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
            wait_until(&name, PATIENCE, || arrived.exists());
            assert!(fs::read(mount.path("outbox/bob").join(&name)).unwrap() == data, "{name}");
            assert!(fs::read(arrived).unwrap() == data, "{name}");
        }
    }
    assert!(fs::read(mount.path("moved/big")).unwrap() == data);
    bob.unmount();
    mount.unmount();
}

/// Commands that make `$N` from data read from `big`, without telling the kernel that it is a
/// copy.
const READ_AND_WRITTEN: [&str; 10] = [
    "python3 -c \"import shutil; shutil.copyfile('big', '$N')\"",
    "python3 -c \"import shutil; shutil.copy2('big', '$N')\"",
    "python3 -c \"import shutil; shutil.copytree('directory', 'd$N')\" && mv d$N/big $N",
    "python3 -c \"import shutil; shutil.copy('big', 'outbox/bob/$N')\" && cp outbox/bob/$N $N",
    "cp --sparse=always big $N",
    "cp --reflink=never big $N",
    "dd if=big of=$N bs=100000 status=none",
    "rsync -a --whole-file big $N",
    "python3 -c \"data = open('big', 'rb').read(); open('$N', 'wb').write(data)\"",
    "cp big $N && python3 -c \"import shutil; shutil.copyfile('big', '$N')\"",
];

#[test]
fn programs_that_read_and_write_copy_what_is_cached_without_moving_or_storing_it() {
    let counted = Counted::new();
    let data = store_big(&counted, 9);
    let mount = counted.mount();
    mount.shell("cat big > /dev/null");
    for (index, way) in READ_AND_WRITTEN.iter().enumerate() {
        let name = format!("copy{index}");
        counted.without_data(&mount, way, || mount.shell(&format!("N={name}; {way}")));
        wait_until(&format!("{way}: one content for both"), PATIENCE, || {
            mount.sync();
            counted.contents() == 1
        });
        assert!(fs::read(mount.path(&name)).unwrap() == data, "{way}");
    }
    mount.unmount();
    let mount = counted.mount();
    for index in 0..READ_AND_WRITTEN.len() {
        assert!(fs::read(mount.path(&format!("copy{index}"))).unwrap() == data, "{index}");
    }
    mount.unmount();
}

#[test]
fn sparse_files_are_copied_without_moving_data_and_keep_their_holes() {
    let counted = Counted::new();
    let mount = counted.mount();
    let data = Random::new(10).bytes(1 << 20);
    let file = read_write(&mount.path("sparse"));
    file.set_len(1 << 40).unwrap();
    for at in [3 << 20, 1 << 30, (1 << 40) - data.len() as u64] {
        file.write_all_at(&data, at).unwrap();
    }
    drop(file);
    for way in ["cp sparse $N", "cp --sparse=always sparse $N", "cp --reflink=never sparse $N"] {
        counted.without_data(&mount, way, || mount.shell(&format!("rm -f copy; N=copy; {way}")));
        assert_eq!(mount.shell("stat -c '%s %b' copy"), mount.shell("stat -c '%s %b' sparse"));
    }
    mount.unmount();
    let mount = counted.mount();
    let (file, copy) = (read_write(&mount.path("sparse")), read_write(&mount.path("copy")));
    let mut bytes = [vec![0; 2 << 20], vec![0; 2 << 20]];
    for at in [2 << 20, (1 << 30) - 5000, (1 << 40) - (2 << 20)] {
        file.read_exact_at(&mut bytes[0], at).unwrap();
        copy.read_exact_at(&mut bytes[1], at).unwrap();
        assert!(bytes[0] == bytes[1], "at {at}");
    }
    drop((file, copy));
    mount.unmount();
}

#[test]
fn writes_that_look_like_copies_give_what_was_written_whatever_happens_beside_them() {
    let seed = Random::seed();
    let counted = Counted::new();
    let mount = counted.mount();
    let mut random = Random::new(seed);
    let mut model = [random.bytes(400_000), random.bytes(300_000), Vec::new()];
    let names = ["one", "two", "three"];
    for (name, bytes) in names.iter().zip(&model) {
        fs::write(mount.path(name), bytes).unwrap();
    }
    let files = names.map(|name| read_write(&mount.path(name)));
    let sources = names.map(|name| File::open(mount.path(name)).unwrap());
    for _ in 0..600 {
        let (from, to) = (random.below(3) as usize, random.below(3) as usize);
        let (at, len) = (random.below(400_000) as usize, random.below(150_000) as usize);
        match random.below(8) {
            // Like an ordinary copy: to the same place, in part or to the end, or slightly shifted.
            0..=4 => {
                let at = *random.pick(&[0, at, model[to].len()]);
                let shift = usize::from(random.below(6) == 0);
                let source = model[from].get(at + shift..).unwrap_or_default();
                let data = source[..source.len().min(*random.pick(&[len, usize::MAX]))].to_vec();
                files[to].write_all_at(&data, at as u64).unwrap();
                put(&mut model[to], at, &data);
            }
            5 => {
                let data = random.bytes(len / 10);
                files[to].write_all_at(&data, at as u64).unwrap();
                put(&mut model[to], at, &data);
            }
            6 => {
                let len = *random.pick(&[0, at, at / 4096 * 4096]);
                files[to].set_len(len as u64).unwrap();
                model[to].resize(len, 0);
            }
            _ => {
                let mode = sys::FallocateFlags::PUNCH_HOLE | sys::FallocateFlags::KEEP_SIZE;
                sys::fallocate(&files[to], mode, at as u64, 1 + len as u64).unwrap();
                let end = model[to].len().min(at + 1 + len);
                model[to][at.min(end)..end].fill(0);
            }
        }
    }
    drop((files, sources));
    let check = |mount: &Mount, when: &str| {
        for (name, bytes) in names.iter().zip(&model) {
            assert!(fs::read(mount.path(name)).unwrap() == *bytes, "{name} {when}");
        }
        check_exact(&counted.world, mount, "alice", &[]);
    };
    check(&mount, "as it was written");
    mount.unmount();
    let mount = counted.mount();
    check(&mount, "as the server has it");
    mount.unmount();
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if !data.is_empty() {
        bytes.resize(bytes.len().max(at + data.len()), 0);
        bytes[at..at + data.len()].copy_from_slice(data);
    }
}

/// A program's change to a file, and the same change to its expected bytes.
type Change = fn(&File, &mut Vec<u8>);

/// All ways of changing a file's data.
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
    // The server must have the same.
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

/// Copies a part of one file into another, or into itself; returns the number of bytes copied.
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
            // Before the kernel compares the ranges, it cuts them at the end of the file.
            if from == to && at.abs_diff(into) < source.len() as u64 {
                assert_eq!(errno(done), libc::EINVAL, "{at} {into} {len}");
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
    // At the end of the file, and beyond it.
    assert_eq!(copy(&file, 9_000, &other, 0, 5_000).unwrap(), 1_000);
    assert_eq!(copy(&file, 10_000, &other, 0, 5_000).unwrap(), 0);
    assert_eq!(copy(&file, 1 << 40, &other, 0, 5_000).unwrap(), 0);
    assert!(fs::read(mount.path("other")).unwrap() == data[9_000..]);
    // Beyond the end of the other file, which leaves a hole.
    assert_eq!(copy(&file, 1, &other, 50_001, 2).unwrap(), 2);
    let bytes = fs::read(mount.path("other")).unwrap();
    assert_eq!(bytes.len(), 50_003);
    assert!(bytes[1_000..50_001].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[50_001..], data[1..3]);
    // Within one file, ranges may touch but not overlap.
    assert_eq!(errno(copy(&file, 0, &file, 4_999, 5_000)), libc::EINVAL);
    assert_eq!(errno(copy(&file, 4_999, &file, 0, 5_000)), libc::EINVAL);
    assert_eq!(errno(copy(&file, 3, &file, 3, 1)), libc::EINVAL);
    assert!(fs::read(mount.path("file")).unwrap() == data, "a refused copy changed something");
    assert_eq!(copy(&file, 0, &file, 5_000, 5_000).unwrap(), 5_000);
    let bytes = fs::read(mount.path("file")).unwrap();
    assert!(bytes[..5_000] == bytes[5_000..] && bytes[..5_000] == data[..5_000]);
    // A hole is copied as a hole, even over data.
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

/// The size of a file that the server holds and the client has not read.
const LARGE: u64 = 140 << 20;

fn marked(mount: &Mount, name: &str, marks: &[u64]) {
    let file = File::create(mount.path(name)).unwrap();
    sys::fallocate(&file, sys::FallocateFlags::empty(), 0, LARGE).unwrap();
    for at in marks {
        file.write_all_at(b"here", *at).unwrap();
    }
    file.sync_all().unwrap();
    // Opens the read link.
    File::open(mount.path(name)).unwrap().read_exact_at(&mut [0], LARGE / 2).unwrap();
}

/// Copies a part of a file to the same place in another.
fn copy_there(from: &File, to: &File, start: u64, end: u64) {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let len = (end - read_at) as usize;
        assert!(
            sys::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), len).unwrap()
                > 0
        );
    }
}

/// Runs `change` while no change reaches the server, and reads `file` at `at` meanwhile. The read
/// must return `expected`, however late.
fn check_read_during(
    counted: &Counted,
    file: &File,
    change: impl FnOnce(),
    at: u64,
    expected: &[u8],
) {
    counted.relay.hold_changes();
    change();
    let before = counted.relay.passed();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut bytes = vec![9; expected.len()];
            file.read_exact_at(&mut bytes, at).map(|()| bytes)
        });
        // By now a premature question would have been answered; or none was asked.
        let asked = || counted.relay.passed().down > before.down || read.is_finished();
        let _ = xfer_tests::waiting::holds_for(Duration::from_secs(2), || !asked());
        counted.relay.release();
        assert_eq!(read.join().unwrap().unwrap(), expected);
    });
}

#[test]
fn a_file_is_read_while_a_copy_in_several_calls_continues_it() {
    let counted = Counted::new();
    let mount = counted.mount();
    let (first, second) = (100, 100 << 20);
    marked(&mount, "from", &[first, second]);
    let from = File::open(mount.path("from")).unwrap();
    let to = read_write(&mount.path("to"));
    copy_there(&from, &to, 0, LARGE / 2);
    mount.sync();
    let goes_on = || copy_there(&from, &to, LARGE / 2, LARGE);
    check_read_during(&counted, &to, goes_on, second, b"here");
    mount.sync();
    // The same bytes through another file that shares them, after this one was cut and continued anew.
    let cut = || {
        to.set_len(LARGE / 2).unwrap();
        copy_there(&from, &to, LARGE / 2, LARGE);
    };
    check_read_during(&counted, &to, cut, second + (20 << 20), &[0; 4]);
    mount.sync();
    // Replaced as a whole, after it had other data.
    let replaced = || {
        to.set_len(0).unwrap();
        to.write_all_at(b"other", 0).unwrap();
        copy_there(&from, &to, 0, LARGE);
    };
    check_read_during(&counted, &to, replaced, first, b"here");
    drop((from, to));
    mount.unmount();
}

#[test]
fn a_file_that_grows_is_read_before_the_server_has_heard_of_it() {
    let counted = Counted::new();
    let mount = counted.mount();
    marked(&mount, "other", &[]);
    let file = read_write(&mount.path("file"));
    // Reserved past the end: the client does not remember that these bytes are zeros.
    file.write_all_at(b"start", 0).unwrap();
    let keep = sys::FallocateFlags::KEEP_SIZE;
    sys::fallocate(&file, keep, 0, 8 << 20).unwrap();
    mount.sync();
    let grows = || file.set_len(8 << 20).unwrap();
    check_read_during(&counted, &file, grows, 5 << 20, &[0; 4]);
    drop(file);
    mount.unmount();
}
