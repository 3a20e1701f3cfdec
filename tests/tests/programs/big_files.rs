//! Files that are large, sparse, or many at once.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs as sys;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use xfer_protocol::limits::EXTENT_RUNS_MAX;
use xfer_tests::files::read_write;
use xfer_tests::memory::Allowed;
use xfer_tests::{Mount, PATIENCE, Random, World, scale, shell, wait_until};

const GIB: u64 = 1 << 30;

const BLOCK: u64 = 4096;

/// The most bytes that a tree may take up once everything big in it is gone.
const SMALL: u64 = 1 << 20;

/// The number of entries in the root of a new account: `inbox` and `outbox`.
const FIXTURES: u64 = 2;

/// The expected state of a sparse file: its size, and every block with data.
struct Reference {
    size: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Reference {
    fn new(size: u64) -> Reference {
        Reference { size, blocks: BTreeMap::new() }
    }

    fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let start = (at % BLOCK) as usize;
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK as usize - start));
            let block = self.blocks.entry(at / BLOCK);
            let block = block.or_insert_with(|| vec![0; BLOCK as usize].into());
            block[start..start + part.len()].copy_from_slice(part);
            at += part.len() as u64;
            bytes = rest;
        }
        self.size = self.size.max(at);
    }

    fn punch(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let touched: Vec<u64> = self
            .blocks
            .range(offset / BLOCK..end.div_ceil(BLOCK))
            .map(|(block, _)| *block)
            .collect();
        for block in touched {
            let start = block * BLOCK;
            if offset <= start && start + BLOCK <= end {
                self.blocks.remove(&block);
            } else if let Some(bytes) = self.blocks.get_mut(&block) {
                let part = offset.max(start) - start..end.min(start + BLOCK) - start;
                bytes[part.start as usize..part.end as usize].fill(0);
            }
        }
    }

    fn truncate(&mut self, size: u64) {
        self.blocks.split_off(&size.div_ceil(BLOCK));
        if let Some(bytes) = self.blocks.get_mut(&(size / BLOCK)) {
            bytes[(size % BLOCK) as usize..].fill(0);
        }
        self.size = size;
    }

    /// The runs of data, as `SEEK_DATA` and `SEEK_HOLE` must report them.
    fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for block in self.blocks.keys() {
            let (start, end) = (block * BLOCK, ((block + 1) * BLOCK).min(self.size));
            match runs.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                Some(_) | None => runs.push((start, end)),
            }
        }
        runs
    }

    /// Fails the test unless a file has this state: its size, its space, the places of data, every
    /// byte of the data, and zeros at some places in holes.
    #[track_caller]
    fn check(&self, path: &Path, random: &mut Random) {
        let file = File::open(path).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.len(), meta.blocks()), (self.size, self.blocks.len() as u64 * 8));
        assert!(runs_of(&file) == self.runs(), "data and holes are not where they were made");
        for (block, expected) in &self.blocks {
            let mut bytes = [1; BLOCK as usize];
            let len = (self.size - block * BLOCK).min(BLOCK) as usize;
            file.read_exact_at(&mut bytes[..len], block * BLOCK).unwrap();
            assert!(bytes[..len] == expected[..len], "block {block} has other bytes");
        }
        for _ in 0..500 {
            let block = random.below(self.size / BLOCK);
            let mut bytes = [1; BLOCK as usize];
            file.read_exact_at(&mut bytes, block * BLOCK).unwrap();
            let zeros = [0; BLOCK as usize];
            let expected = self.blocks.get(&block).map_or(&zeros[..], |block| block);
            assert!(bytes == *expected, "block {block} has other bytes");
        }
    }
}

/// All runs of data of a file.
fn runs_of(file: &File) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut at = 0;
    loop {
        match sys::seek(file, sys::SeekFrom::Data(at)) {
            Ok(start) => {
                at = sys::seek(file, sys::SeekFrom::Hole(start)).unwrap();
                runs.push((start, at));
            }
            Err(Errno::NXIO) => return runs,
            Err(error) => panic!("SEEK_DATA from {at}: {error}"),
        }
    }
}

/// The bytes that a mount's tree takes up.
fn used(mount: &Mount) -> u64 {
    let stat = sys::statvfs(mount.root()).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// The bytes that contents take up on the server's disk.
fn stored(world: &World) -> u64 {
    let contents = world.server.store().join("contents");
    shell(&contents, "du -s -B1 . | cut -f1").parse().unwrap()
}

/// A length for a write or a punch, with each power of two up to 128 KiB equally likely.
fn some_len(random: &mut Random) -> u64 {
    let most = 1 << random.below(18);
    1 + random.below(most)
}

#[test]
fn a_sparse_file_of_a_hundred_gibibytes_holds_what_thousands_of_random_writes_put_there() {
    let writes = scale::count("XFER_SPARSE_WRITES", 4_000);
    let mut random = Random::new(Random::seed());
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let empty = used(&mount);
    let path = mount.path("sparse");
    let file = read_write(&path);
    file.set_len(100 * GIB).unwrap();
    let mut reference = Reference::new(100 * GIB);
    let mut places = Vec::new();
    for _ in 0..writes {
        let offset = match places.last() {
            // Near the previous one, so that some runs overlap and touch.
            Some(place) if random.below(4) == 0 => place + random.below(1 << 16),
            Some(_) | None => random.below(100 * GIB - (1 << 20)),
        };
        let len = some_len(&mut random) as usize;
        let bytes = random.bytes(len);
        file.write_all_at(&bytes, offset).unwrap();
        reference.write(offset, &bytes);
        places.push(offset);
    }
    reference.check(&path, &mut random);
    drop(file);
    Allowed::BY_DEFAULT.check(&world, &mount);
    mount.unmount();

    let mount = world.mount("alice");
    reference.check(&path, &mut random);
    let file = read_write(&path);
    for place in &places[..writes / 2] {
        let (offset, len) = (place.saturating_sub(random.below(BLOCK)), some_len(&mut random));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        sys::fallocate(&file, flags, offset, len).unwrap();
        reference.punch(offset, len);
    }
    let cut = 60 * GIB + random.below(GIB);
    file.set_len(cut).unwrap();
    reference.truncate(cut);
    file.set_len(100 * GIB).unwrap();
    reference.truncate(100 * GIB);
    reference.check(&path, &mut random);
    drop(file);
    Allowed::BY_DEFAULT.check(&world, &mount);
    mount.unmount();

    let mount = world.mount("alice");
    reference.check(&path, &mut random);
    assert!(used(&mount) >= empty + reference.blocks.len() as u64 * BLOCK);
    fs::remove_file(&path).unwrap();
    wait_until("the space to come back", PATIENCE, || used(&mount) <= empty + BLOCK);
    wait_until("the server's space to come back", PATIENCE, || stored(&world) <= SMALL);
    mount.unmount();
}

#[test]
fn a_file_takes_more_holes_than_its_map_may_have() {
    let mut random = Random::new(Random::seed());
    // A disk may take a minute to free space in this many pieces.
    let world = World::with_store_in_memory(&["alice"]);
    let mount = world.mount("alice");
    let path = mount.path("holes");
    let file = read_write(&path);
    let full = EXTENT_RUNS_MAX as u64;
    // Write every other block; the first few are written, and copied to the other places.
    let mut count = full / 64;
    for index in 0..count {
        file.write_all_at(&index.to_le_bytes(), 2 * index * BLOCK).unwrap();
    }
    file.set_len(2 * count * BLOCK).unwrap();
    while count < full {
        let (mut from, mut to, len) = (0, 2 * count * BLOCK, 2 * count * BLOCK);
        let copied =
            sys::copy_file_range(&file, Some(&mut from), &file, Some(&mut to), len as usize);
        assert_eq!(copied, Ok(len as usize));
        count *= 2;
    }
    assert_eq!(runs_of(&file).len() as u64, full);
    assert_eq!(file.metadata().unwrap().blocks() / 8, full);
    let more: Vec<u64> = (0..1_000).map(|_| count + random.below(4_000)).collect();
    for index in &more {
        file.write_all_at(b"one more", 2 * index * BLOCK).unwrap();
    }
    drop(file);
    mount.unmount();

    let mount = world.mount("alice");
    let file = File::open(&path).unwrap();
    assert!(runs_of(&file).len() as u64 <= full);
    // Holes that did not fit in the map became data, so there are more blocks than were written.
    let blocks = file.metadata().unwrap().blocks() / 8;
    assert!(blocks > full + more.len() as u64, "{blocks} blocks");
    let len = file.metadata().unwrap().len();
    let mut bytes = vec![0; 1 << 20];
    for start in (0..len).step_by(bytes.len()) {
        // All blocks that were written singly, and some of those before.
        if start < (2 * full - 4_000) * BLOCK && random.below(8) != 0 {
            continue;
        }
        let part = (len - start).min(bytes.len() as u64) as usize;
        file.read_exact_at(&mut bytes[..part], start).unwrap();
        for (at, found) in bytes[..part].chunks(BLOCK as usize).enumerate() {
            let (block, mut expected) = (start / BLOCK + at as u64, [0; BLOCK as usize]);
            if block % 2 == 0 && block < 2 * full {
                expected[..8].copy_from_slice(&(block / 2 % (full / 64)).to_le_bytes());
            } else if block % 2 == 0 && more.contains(&(block / 2)) {
                expected[..8].copy_from_slice(b"one more");
            }
            assert!(*found == expected[..found.len()], "block {block} has other bytes");
        }
    }
    drop(file);
    fs::remove_file(&path).unwrap();
    Allowed::BY_DEFAULT.check(&world, &mount);
    mount.unmount();
}

/// The number of files open at once.
const OPEN_FILES: u64 = 10_000;

/// A program that opens this many files at once, writes and reads through all of them, and removes
/// every other one while it is open. It reports that, waits for a line, and does the same again.
const HOLDER: &str = r#"
import os, resource, sys
count = int(sys.argv[1])
most = max(count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, most))
name = lambda index: "file-%d" % index
text = lambda index: b"text of file %d" % index
more = lambda index: text(index) + b", and more"
flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
files = [os.open(name(index), flags) for index in range(count)]
for index, file in enumerate(files):
    assert os.pwrite(file, text(index), 0) == len(text(index)), index
for index in range(0, count, 2):
    os.unlink(name(index))
for index, file in enumerate(files):
    assert os.pread(file, 100, 0) == text(index), index
    assert os.fstat(file).st_nlink == index % 2, index
    assert os.pwrite(file, more(index), 0) == len(more(index)), index
print("held", flush=True)
sys.stdin.readline()
for index, file in enumerate(files):
    assert os.pread(file, 100, 0) == more(index), index
    os.ftruncate(file, len(text(index)))
    assert os.fstat(file).st_size == len(text(index)), index
for file in files:
    os.close(file)
print("closed", flush=True)
"#;

#[test]
fn ten_thousand_files_are_open_at_once_and_half_of_them_unlinked() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let empty = used(&mount);
    let mut command = Command::new("python3");
    command.args(["-c", HOLDER, &OPEN_FILES.to_string()]).current_dir(mount.root());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = command.spawn().unwrap();
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    // If one of its assertions fails, it ends without a further line.
    assert_eq!(said.next().unwrap().unwrap(), "held");
    mount.sync();
    assert_eq!(fs::read_dir(mount.root()).unwrap().count() as u64, OPEN_FILES / 2 + FIXTURES);
    assert!(used(&mount) >= empty + OPEN_FILES * BLOCK, "what is open takes up space");
    holder.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "closed");
    assert!(holder.wait().unwrap().success());
    let names = fs::metadata(mount.root()).unwrap().blocks() * 512;
    let kept = empty + OPEN_FILES / 2 * BLOCK + names.next_multiple_of(BLOCK);
    wait_until("the space of what was removed to come back", PATIENCE, || used(&mount) <= kept);
    Allowed::BY_DEFAULT.check(&world, &mount);
    mount.unmount();

    let mount = world.mount("alice");
    for index in 0..OPEN_FILES {
        let found = fs::read_to_string(mount.path(&format!("file-{index}"))).ok();
        let expected = (index % 2 == 1).then(|| format!("text of file {index}"));
        assert_eq!(found, expected);
    }
    assert_eq!(used(&mount), kept);
    mount.unmount();
}
