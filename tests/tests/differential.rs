//! Random operations on a mount and on a local directory: the same results, errors, attributes and
//! contents. A small alphabet of names makes collisions frequent.
#![allow(clippy::unwrap_used)]

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs as sys;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};
use xfer_tests::snapshot::{assert_same, snapshot, snapshot_without_times};
use xfer_tests::{Random, World, scale};

/// How many operations a run makes. Each part of it ends with a comparison and a remount.
const OPERATIONS: usize = 20_000;
const OPERATIONS_OF_A_PART: usize = 5_000;

/// How many of the last operations a failure shows.
const SHOWN: usize = 12;

/// How many kinds of operation there are.
const KINDS: usize = 22;

/// How many files a run holds open at once.
const SLOTS: u64 = 4;

/// One operation, on paths relative to the root, or on a file that is held open.
#[derive(Clone, Debug)]
enum Operation {
    Create { path: String, mode: u32, slot: usize },
    Open { path: String, slot: usize, append: bool, truncate: bool },
    Close { slot: usize },
    WriteAt { slot: usize, offset: u64, data: Vec<u8> },
    ReadAt { slot: usize, offset: u64, len: usize },
    Resize { slot: usize, len: u64 },
    Fallocate { slot: usize, mode: FallocateFlags, offset: u64, len: u64 },
    Copy { from: usize, from_offset: u64, to: usize, to_offset: u64, len: usize },
    StatOpen { slot: usize },
    Mkdir { path: String },
    Unlink { path: String },
    Rmdir { path: String },
    Rename { from: String, to: String, flags: RenameFlags },
    Link { from: String, to: String },
    Symlink { target: String, path: String },
    Readlink { path: String },
    Chmod { path: String, mode: u32 },
    SetTimes { path: String, atime: i64, mtime: i64 },
    SetXattr { path: String, name: &'static str, value: Vec<u8>, flags: XattrFlags },
    RemoveXattr { path: String, name: &'static str },
    Stat { path: String },
    List { path: String },
}

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO_KEEP: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

impl Operation {
    fn random(random: &mut Random) -> Operation {
        let slot = random.below(SLOTS) as usize;
        match random.below(26) {
            0 | 1 => Operation::Create { path: path(random), mode: mode(random), slot },
            2 | 3 => Operation::Open {
                path: path(random),
                slot,
                append: random.below(4) == 0,
                truncate: random.below(4) == 0,
            },
            4 => Operation::Close { slot },
            5..=7 => {
                let len = random.below(9000) as usize;
                Operation::WriteAt { slot, offset: offset(random), data: random.bytes(len) }
            }
            8 | 9 => Operation::ReadAt { slot, offset: offset(random), len: 20_000 },
            10 => Operation::Resize { slot, len: offset(random) },
            11 => {
                let modes = [
                    FallocateFlags::empty(),
                    FallocateFlags::KEEP_SIZE,
                    PUNCH,
                    FallocateFlags::ZERO_RANGE,
                    ZERO_KEEP,
                ];
                let (mode, len) = (*random.pick(&modes), random.below(20_000));
                Operation::Fallocate { slot, mode, offset: offset(random), len }
            }
            12 => Operation::Copy {
                from: slot,
                from_offset: offset(random),
                to: random.below(SLOTS) as usize,
                to_offset: offset(random),
                len: random.below(30_000) as usize,
            },
            13 => Operation::StatOpen { slot },
            14 => Operation::Mkdir { path: path(random) },
            15 => Operation::Unlink { path: path(random) },
            16 => Operation::Rmdir { path: path(random) },
            17 | 18 => {
                let flags = [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE];
                let (from, to) = (path(random), path(random));
                Operation::Rename { from, to, flags: *random.pick(&flags) }
            }
            19 => Operation::Link { from: path(random), to: path(random) },
            20 => Operation::Symlink { target: path(random), path: path(random) },
            21 => Operation::Readlink { path: path(random) },
            22 => Operation::Chmod { path: path(random), mode: mode(random) },
            23 => {
                let (atime, mtime) = (random.below(1 << 31) as i64, random.below(1 << 31) as i64);
                Operation::SetTimes { path: path(random), atime, mtime }
            }
            24 => xattr_operation(random),
            _ if random.below(2) == 0 => Operation::Stat { path: path(random) },
            _ => Operation::List { path: path(random) },
        }
    }
}

fn xattr_operation(random: &mut Random) -> Operation {
    let (path, name) = (path(random), *random.pick(&["user.a", "user.b"]));
    if random.below(3) == 0 {
        return Operation::RemoveXattr { path, name };
    }
    let flags = [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE];
    let (flags, len) = (*random.pick(&flags), random.below(100) as usize);
    Operation::SetXattr { path, name, value: random.bytes(len), flags }
}

/// A path of up to three of four names, and now and then one that is too long.
fn path(random: &mut Random) -> String {
    if random.below(60) == 0 {
        return "n".repeat(254 + random.below(3) as usize);
    }
    let depth = 1 + random.below(3);
    let names: Vec<&str> = (0..depth).map(|_| *random.pick(&["a", "b", "c", "d"])).collect();
    names.join("/")
}

fn mode(random: &mut Random) -> u32 {
    *random.pick(&[0o600, 0o644, 0o755, 0o2755, 0o4711, 0o1777, 0o000])
}

/// Offsets near the edges of blocks, and a few far away.
fn offset(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => (1 << 20) - 5 + random.below(10),
        2 => random.below(1 << 22),
        _ => random.below(6) * 4096 + random.below(3),
    }
}

/// One of the two sides: a root, and the files held open there.
struct Side {
    root: PathBuf,
    open: Vec<Option<File>>,
}

/// What an operation gave: something to compare, or an error's number.
type Outcome = Result<String, i32>;

impl Side {
    fn new(root: PathBuf) -> Side {
        Side { root, open: (0..SLOTS).map(|_| None).collect() }
    }

    fn apply(&mut self, operation: &Operation) -> Outcome {
        self.try_apply(operation).map_err(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn try_apply(&mut self, operation: &Operation) -> io::Result<String> {
        match operation {
            Operation::Create { .. }
            | Operation::Open { .. }
            | Operation::Close { .. }
            | Operation::WriteAt { .. }
            | Operation::ReadAt { .. }
            | Operation::Resize { .. }
            | Operation::Fallocate { .. }
            | Operation::Copy { .. }
            | Operation::StatOpen { .. } => self.apply_to_open(operation),
            Operation::Mkdir { .. }
            | Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename { .. }
            | Operation::Link { .. }
            | Operation::Symlink { .. }
            | Operation::Readlink { .. }
            | Operation::Chmod { .. }
            | Operation::SetTimes { .. }
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Stat { .. }
            | Operation::List { .. } => self.apply_to_path(operation),
        }
    }

    fn apply_to_open(&mut self, operation: &Operation) -> io::Result<String> {
        let done = |()| String::new();
        match operation {
            Operation::Create { path, mode, slot } => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create_new(true).mode(*mode);
                self.open[*slot] = Some(options.open(self.root.join(path))?);
                Ok(String::new())
            }
            Operation::Open { path, slot, append, truncate } => {
                let mut options = OpenOptions::new();
                options.read(true).write(!append).append(*append).truncate(*truncate && !append);
                self.open[*slot] = Some(options.open(self.root.join(path))?);
                Ok(String::new())
            }
            Operation::Close { slot } => {
                self.open[*slot] = None;
                Ok(String::new())
            }
            Operation::WriteAt { slot, offset, data } => {
                self.file(*slot)?.write_all_at(data, *offset).map(done)
            }
            Operation::ReadAt { slot, offset, len } => read_at(self.file(*slot)?, *offset, *len),
            Operation::Resize { slot, len } => self.file(*slot)?.set_len(*len).map(done),
            Operation::Fallocate { slot, mode, offset, len } => {
                Ok(sys::fallocate(self.file(*slot)?, *mode, *offset, *len).map(done)?)
            }
            Operation::Copy { from, from_offset, to, to_offset, len } => {
                let (mut from_offset, mut to_offset) = (*from_offset, *to_offset);
                let (from, to) = (self.file(*from)?, self.file(*to)?);
                copy_all(from, &mut from_offset, to, &mut to_offset, *len)
            }
            Operation::StatOpen { slot } => Ok(describe(&self.file(*slot)?.metadata()?)),
            _ => unreachable!("operations on paths are applied elsewhere"),
        }
    }

    fn apply_to_path(&mut self, operation: &Operation) -> io::Result<String> {
        let at = |path: &str| self.root.join(path);
        let done = |()| String::new();
        match operation {
            Operation::Mkdir { path } => fs::create_dir(at(path)).map(done),
            Operation::Unlink { path } => fs::remove_file(at(path)).map(done),
            Operation::Rmdir { path } => fs::remove_dir(at(path)).map(done),
            Operation::Rename { from, to, flags } => {
                Ok(sys::renameat_with(CWD, at(from), CWD, at(to), *flags).map(done)?)
            }
            Operation::Link { from, to } => fs::hard_link(at(from), at(to)).map(done),
            Operation::Symlink { target, path } => symlink(target, at(path)).map(done),
            Operation::Readlink { path } => {
                Ok(fs::read_link(at(path))?.to_string_lossy().into_owned())
            }
            Operation::Chmod { path, mode } => {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)).map(done)
            }
            Operation::SetTimes { path, atime, mtime } => {
                let moment =
                    |tv_sec: i64| sys::Timespec { tv_sec, tv_nsec: tv_sec % 1_000_000_000 };
                let times = sys::Timestamps {
                    last_access: moment(*atime),
                    last_modification: moment(*mtime),
                };
                sys::utimensat(CWD, at(path), &times, sys::AtFlags::empty())?;
                let meta = fs::metadata(at(path))?;
                Ok(format!("{}.{} {}", meta.mtime(), meta.mtime_nsec(), meta.atime()))
            }
            Operation::SetXattr { path, name, value, flags } => {
                Ok(sys::setxattr(at(path), *name, value, *flags).map(done)?)
            }
            Operation::RemoveXattr { path, name } => {
                Ok(sys::removexattr(at(path), *name).map(done)?)
            }
            Operation::Stat { path } => Ok(describe(&fs::symlink_metadata(at(path))?)),
            Operation::List { path } => list(&at(path)),
            _ => unreachable!("operations on open files are applied elsewhere"),
        }
    }

    fn file(&self, slot: usize) -> io::Result<&File> {
        self.open[slot].as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<String> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(bytes[..read].escape_ascii().to_string())
}

/// Copies until nothing more is copied: how much one call copies is the filesystem's choice.
fn copy_all(
    from: &File,
    from_offset: &mut u64,
    to: &File,
    to_offset: &mut u64,
    len: usize,
) -> io::Result<String> {
    let mut copied = 0;
    while copied < len {
        let rest = len - copied;
        match sys::copy_file_range(from, Some(from_offset), to, Some(to_offset), rest)? {
            0 => break,
            more => copied += more,
        }
    }
    Ok(copied.to_string())
}

/// All of `stat` that is not a filesystem's own business.
fn describe(meta: &fs::Metadata) -> String {
    let size = if meta.is_dir() { 0 } else { meta.len() };
    format!("{:o} {} {} {} {}", meta.mode(), meta.nlink(), size, meta.uid(), meta.gid())
}

fn list(path: &Path) -> io::Result<String> {
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = entries.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(format!("{names:?}"))
}

#[test]
fn random_operations_give_what_a_local_directory_gives() {
    let mut random = Random::new(Random::seed());
    let world = World::new(&["alice"]);
    let local = world.outside().join("local");
    fs::create_dir(&local).unwrap();
    let parts = scale::count("XFER_DIFFERENTIAL_OPERATIONS", OPERATIONS) / OPERATIONS_OF_A_PART;
    let mut last: VecDeque<Operation> = VecDeque::new();
    let mut succeeded: HashSet<std::mem::Discriminant<Operation>> = HashSet::new();
    for part in 0..parts {
        let mount = world.mount("alice");
        let remote = mount.path("remote");
        fs::create_dir_all(&remote).unwrap();
        let (mut here, mut there) = (Side::new(local.clone()), Side::new(remote.clone()));
        for index in 0..OPERATIONS_OF_A_PART {
            let operation = Operation::random(&mut random);
            let (expected, got) = (here.apply(&operation), there.apply(&operation));
            if got.is_ok() {
                succeeded.insert(std::mem::discriminant(&operation));
            }
            last.push_back(operation);
            if last.len() > SHOWN {
                last.pop_front();
            }
            assert_eq!(got, expected, "part {part}, operation {index}: {last:#?}");
        }
        drop((here, there));
        let expected = snapshot_without_times(&local);
        assert_same(&expected, &snapshot_without_times(&remote));
        mount.unmount();
        let mount = world.mount("alice");
        assert_same(&expected, &snapshot_without_times(&mount.path("remote")));
        mount.unmount();
    }
    assert_eq!(succeeded.len(), KINDS, "some kind of operation never succeeded");
}

#[test]
fn the_comparison_sees_a_planted_difference() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let local = world.outside();
    for root in [&local, &mount.path("remote")] {
        fs::create_dir_all(root).unwrap();
        fs::write(root.join("file"), "same").unwrap();
        let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options().write(true).open(root.join("file")).unwrap().set_modified(past).unwrap();
    }
    let (one, other) = (snapshot(&local), snapshot(&mount.path("remote")));
    assert_same(&one, &other);
    let set = |value: &[u8]| {
        xfer_tests::files::set_xattr(&mount.path("remote/file"), "user.x", value).unwrap();
    };
    set(b"1");
    let with_one = snapshot(&mount.path("remote"));
    assert_ne!(other, with_one);
    set(b"2");
    assert_ne!(snapshot(&mount.path("remote")), with_one);
    mount.unmount();
}
