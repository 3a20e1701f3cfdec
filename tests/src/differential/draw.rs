//! Draws random operations: on few names, so that they collide, and near block boundaries, where
//! mistakes are most likely.

use rustix::fs::{Access, FallocateFlags, OFlags, RenameFlags, XattrFlags};

use super::operation::{Fill, LockKind, LockOwner, Moment, Operation, Origin, Special, Target};
use crate::Random;

/// The most files, mappings and directories that a process holds open at once.
pub(super) const SLOTS: u64 = 3;
pub(super) const MAPS: u64 = 2;
pub(super) const DIRECTORIES: u64 = 2;

/// The directory that has many entries from the start.
pub(super) const CROWD: &str = "crowd";

/// The users and groups that nodes are given to. A worker process runs as the second, and is in the
/// group of the third.
pub(super) const IDS: [u32; 4] = [0, 20_001, 20_002, 20_003];

/// An offset that no file can have.
const TOO_FAR: u64 = 1 << 62;

/// Draws the next operation.
pub(super) fn operation(random: &mut Random) -> Operation {
    let slot = random.below(SLOTS) as usize;
    match random.below(100) {
        0..18 => open(random, slot),
        18 => Operation::Close { slot },
        19..46 => data(random, slot),
        46..54 => mapping(random, slot),
        54..58 => lock(random, slot),
        58..62 => listing(random),
        62..84 => naming(random),
        _ => attribute(random),
    }
}

fn open(random: &mut Random, slot: usize) -> Operation {
    let access = [OFlags::RDWR, OFlags::RDWR, OFlags::RDWR, OFlags::RDONLY, OFlags::WRONLY];
    let extras = [
        OFlags::CREATE,
        OFlags::CREATE,
        OFlags::CREATE,
        OFlags::CREATE | OFlags::EXCL,
        OFlags::CREATE | OFlags::TRUNC,
        OFlags::CREATE | OFlags::APPEND,
        OFlags::CREATE | OFlags::NOFOLLOW,
        OFlags::TRUNC,
        OFlags::APPEND,
        OFlags::NOFOLLOW,
        OFlags::empty(),
        OFlags::empty(),
        OFlags::DIRECTORY,
    ];
    let flags = *random.pick(&access) | *random.pick(&extras);
    // Half of them go to existing directories, so that there are files to work with.
    let path = match random.below(2) {
        0 => format!("{CROWD}/{}", name(random)),
        _ => path(random),
    };
    Operation::Open { path, flags: flags.bits(), mode: mode(random), slot }
}

fn data(random: &mut Random, slot: usize) -> Operation {
    match random.below(28) {
        0..9 => Operation::Write {
            slot,
            at: Some(near(random)).filter(|_| random.below(4) > 0),
            data: fill(random, 9000),
        },
        9..15 => Operation::Read { slot, at: at(random), len: random.below(40_000) as usize },
        15..17 => {
            let from = *random.pick(&[Origin::Start, Origin::Current, Origin::End]);
            Operation::Seek { slot, offset: random.below(40_000) as i64 - 10_000, from }
        }
        17 => Operation::FindData { slot, offset: offset(random) },
        18..21 => Operation::Resize { target: target(random, slot), len: offset(random) },
        21..24 => {
            let (mode, len) = (fallocate_mode(random), random.below(20_000));
            Operation::Fallocate { slot, mode, offset: near(random), len }
        }
        24..27 => Operation::Copy {
            from: slot,
            from_offset: offset(random),
            to: random.below(SLOTS) as usize,
            to_offset: near(random),
            len: random.below(30_000) as usize,
        },
        _ if random.below(3) == 0 => Operation::Fsync { slot, data_only: random.below(2) == 0 },
        _ => Operation::FindData { slot, offset: offset(random) },
    }
}

/// All modes that the kernel passes to FUSE filesystems, and some that it passes to none.
fn fallocate_mode(random: &mut Random) -> u32 {
    let keep = FallocateFlags::KEEP_SIZE;
    let modes = [
        FallocateFlags::empty(),
        keep,
        FallocateFlags::PUNCH_HOLE | keep,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE | keep,
        FallocateFlags::PUNCH_HOLE,
        FallocateFlags::UNSHARE_RANGE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE,
        FallocateFlags::COLLAPSE_RANGE | keep,
        FallocateFlags::INSERT_RANGE | FallocateFlags::COLLAPSE_RANGE,
    ];
    let usual = if random.below(6) == 0 { modes.len() } else { 5 };
    random.pick(&modes[..usual]).bits()
}

fn mapping(random: &mut Random, slot: usize) -> Operation {
    let map = random.below(MAPS) as usize;
    match random.below(12) {
        0..3 => Operation::Map { slot, map },
        3 => Operation::Unmap { map },
        4..8 => {
            let (offset, data) = (offset(random), fill(random, 9000));
            Operation::WriteMapped { map, offset, data, sync: random.below(2) == 0 }
        }
        8..11 => Operation::ReadMapped { map, offset: offset(random), len: 10_000 },
        _ => Operation::SyncMapped { map },
    }
}

fn lock(random: &mut Random, slot: usize) -> Operation {
    let kind = *random.pick(&[LockKind::Shared, LockKind::Exclusive, LockKind::None]);
    let owner = *random.pick(&[LockOwner::Process, LockOwner::OpenFile]);
    let (start, len) = (random.below(8) as i64, random.below(4) as i64);
    match random.below(5) {
        0 | 1 => Operation::Flock { slot, kind },
        2 | 3 => Operation::Lock { slot, owner, kind, start, len },
        _ => Operation::FindLock { slot, owner, kind, start, len },
    }
}

fn listing(random: &mut Random) -> Operation {
    let directory = random.below(DIRECTORIES) as usize;
    match random.below(8) {
        0 => {
            let crowd = random.below(4) > 0;
            let path = if crowd { CROWD.to_owned() } else { path(random) };
            Operation::OpenDirectory { path, directory }
        }
        1..5 => Operation::ReadSome { directory, rewind: random.below(10) == 0 },
        5 => Operation::ReadRest { directory },
        _ => Operation::List { path: path(random) },
    }
}

fn naming(random: &mut Random) -> Operation {
    let at = path(random);
    match random.below(26) {
        0..4 => Operation::Mkdir { path: at, mode: mode(random) },
        4 | 5 => {
            let kind = *random.pick(&[Special::File, Special::Fifo, Special::Socket]);
            Operation::Mknod { path: at, kind, mode: mode(random) }
        }
        6..9 => Operation::Symlink { target: link_target(random), path: at },
        9 => Operation::Readlink { path: at },
        10..13 => {
            let slot = random.below(SLOTS) as usize;
            Operation::Link { from: target(random, slot), to: at }
        }
        13..17 => Operation::Unlink { path: at },
        17..19 => Operation::Rmdir { path: at },
        // Make room now and then: a tree with every name taken offers little variety.
        19 if random.below(3) == 0 => Operation::Clear { path: at },
        _ => Operation::Rename { from: at, to: path(random), flags: rename_flags(random) },
    }
}

/// Flags that FUSE filesystems may receive, and flags that none does.
fn rename_flags(random: &mut Random) -> u32 {
    let flags = [
        RenameFlags::empty(),
        RenameFlags::EXCHANGE,
        RenameFlags::NOREPLACE,
        RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
        RenameFlags::WHITEOUT | RenameFlags::EXCHANGE,
    ];
    let usual = if random.below(8) == 0 { flags.len() } else { 3 };
    random.pick(&flags[..usual]).bits()
}

fn attribute(random: &mut Random) -> Operation {
    let slot = random.below(SLOTS) as usize;
    let target = target(random, slot);
    match random.below(16) {
        0 | 1 => Operation::Chmod { target, mode: mode(random) },
        2 | 3 => {
            // Never neither: a FUSE filesystem is told too little about that case to refuse it.
            let (uid, gid) = (*random.pick(&IDS), *random.pick(&IDS));
            let (uid, gid) = match random.below(4) {
                0 => (Some(uid), None),
                1 => (None, Some(gid)),
                _ => (Some(uid), Some(gid)),
            };
            Operation::Chown { target, uid, gid }
        }
        4 | 5 => {
            let (atime, mtime) = (moment(random), moment(random));
            Operation::SetTimes { target, atime, mtime }
        }
        6..9 => {
            let flags = [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE];
            let (name, value) = (xattr_name(random), fill(random, 100));
            Operation::SetXattr { target, name, value, flags: random.pick(&flags).bits() }
        }
        9 => Operation::GetXattr { target, name: xattr_name(random), room: room(random) },
        10 => Operation::ListXattrs { target, room: room(random) },
        11 => Operation::RemoveXattr { target, name: xattr_name(random) },
        12..15 => Operation::Stat { target },
        _ => {
            let modes = [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK, Access::EXISTS];
            Operation::Access { path: path(random), mode: random.pick(&modes).bits() }
        }
    }
}

fn target(random: &mut Random, slot: usize) -> Target {
    if random.below(3) == 0 {
        return Target::Open { slot };
    }
    Target::Path { path: path(random), follow: random.below(3) > 0 }
}

/// A path of up to three of few names. Each `..` comes after a name, so the path alone never leads
/// out of its root. Now and then a name is too long, or the path ends in a slash.
fn path(random: &mut Random) -> String {
    if random.below(80) == 0 {
        return "n".repeat(254 + random.below(3) as usize);
    }
    let mut names = Vec::new();
    if random.below(6) == 0 {
        names.push(CROWD);
    }
    let depth = *random.pick(&[1, 1, 1, 2, 2, 3]);
    while names.len() < depth {
        names.push(name(random));
        match random.below(24) {
            0 => names.push(".."),
            1 => names.push("."),
            _ => {}
        }
    }
    let mut path = names.join("/");
    if random.below(40) == 0 {
        path.push('/');
    }
    path
}

fn name(random: &mut Random) -> &'static str {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    NAMES[random.below(NAMES.len() as u64) as usize]
}

/// The target of a symbolic link: below, beside its directory, the link itself or others in a
/// ring, or nothing. A target that leads up does so by one step; enough levels lie above a side's
/// root.
fn link_target(random: &mut Random) -> String {
    match random.below(12) {
        0 => "/proc/nothing/of/this/name".to_owned(),
        1 => "x".repeat(4000),
        2 => ".".to_owned(),
        3 | 4 => format!("../{}", name(random)),
        _ => {
            let names = path(random);
            let names: Vec<&str> = names.split('/').filter(|name| !name.starts_with('.')).collect();
            names.join("/")
        }
    }
}

fn mode(random: &mut Random) -> u32 {
    *random.pick(&[0o600, 0o644, 0o755, 0o777, 0o777, 0o2775, 0o4711, 0o6777, 0o1777, 0o000])
}

fn at(random: &mut Random) -> Option<u64> {
    let at = offset(random);
    Some(at).filter(|_| random.below(4) > 0)
}

/// Like [`near`], and some offsets that no file can have.
fn offset(random: &mut Random) -> u64 {
    if random.below(100) == 0 { TOO_FAR + random.below(2) } else { near(random) }
}

/// Offsets near block boundaries, and a few far away. Not beyond the largest file: for a local
/// filesystem the kernel knows that limit and refuses such a write before any effect, while a FUSE
/// filesystem is asked only after the set-id bits are gone.
fn near(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => (1 << 20) - 5 + random.below(10),
        2 => random.below(1 << 22),
        _ => random.below(6) * 4096 + random.below(3),
    }
}

fn fill(random: &mut Random, end: u64) -> Fill {
    Fill { seed: random.number(), len: random.below(end) as usize }
}

fn room(random: &mut Random) -> usize {
    *random.pick(&[0, 1, 20, 4096, 4096])
}

fn xattr_name(random: &mut Random) -> String {
    match random.below(20) {
        0 => "user.".to_owned(),
        1 => "nobodys.a".to_owned(),
        2 => format!("user.{}", "n".repeat(251)),
        _ => (*random.pick(&["user.a", "user.b", "user.c"])).to_owned(),
    }
}

fn moment(random: &mut Random) -> Moment {
    match random.below(5) {
        0 => Moment::Now,
        1 => Moment::Omitted,
        _ => {
            let second = random.below(1 << 30) as i64 - (1 << 20);
            Moment::At { second, nanosecond: random.below(1_000_000_000) as i64 }
        }
    }
}
