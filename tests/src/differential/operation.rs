//! One operation: a process's request to the system, in a form that can be sent to another process.

use serde::{Deserialize, Serialize};

/// The number of operation kinds.
pub(super) const KINDS: usize = 40;

/// One operation, on paths relative to a side's root or on files that its process holds open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Operation {
    Open { path: String, flags: u32, mode: u32, slot: usize },
    Close { slot: usize },
    Write { slot: usize, at: Option<u64>, data: Fill },
    Read { slot: usize, at: Option<u64>, len: usize },
    Seek { slot: usize, offset: i64, from: Origin },
    FindData { slot: usize, offset: u64 },
    Resize { target: Target, len: u64 },
    Fallocate { slot: usize, mode: u32, offset: u64, len: u64 },
    Copy { from: usize, from_offset: u64, to: usize, to_offset: u64, len: usize },
    Fsync { slot: usize, data_only: bool },
    Flock { slot: usize, kind: LockKind },
    Lock { slot: usize, owner: LockOwner, kind: LockKind, start: i64, len: i64 },
    FindLock { slot: usize, owner: LockOwner, kind: LockKind, start: i64, len: i64 },
    Map { slot: usize, map: usize },
    Unmap { map: usize },
    WriteMapped { map: usize, offset: u64, data: Fill, sync: bool },
    ReadMapped { map: usize, offset: u64, len: usize },
    SyncMapped { map: usize },
    OpenDirectory { path: String, directory: usize },
    ReadSome { directory: usize, rewind: bool },
    ReadRest { directory: usize },
    List { path: String },
    Mkdir { path: String, mode: u32 },
    Mknod { path: String, kind: Special, mode: u32 },
    Symlink { target: String, path: String },
    Readlink { path: String },
    Link { from: Target, to: String },
    Unlink { path: String },
    Rmdir { path: String },
    Rename { from: String, to: String, flags: u32 },
    Chmod { target: Target, mode: u32 },
    Chown { target: Target, uid: Option<u32>, gid: Option<u32> },
    SetTimes { target: Target, atime: Moment, mtime: Moment },
    SetXattr { target: Target, name: String, value: Fill, flags: u32 },
    GetXattr { target: Target, name: String, room: usize },
    ListXattrs { target: Target, room: usize },
    RemoveXattr { target: Target, name: String },
    Stat { target: Target },
    Access { path: String, mode: u32 },
    Clear { path: String },
}

/// The object of an operation on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Target {
    Path { path: String, follow: bool },
    Open { slot: usize },
}

/// Bytes, given by the seed that generates them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Fill {
    pub(super) seed: u64,
    pub(super) len: usize,
}

/// The origin of a position in a file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Origin {
    Start,
    Current,
    End,
}

/// The kind of a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum LockKind {
    Shared,
    Exclusive,
    None,
}

/// The owner of a range lock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum LockOwner {
    Process,
    OpenFile,
}

/// The kind of a special node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Special {
    File,
    Fifo,
    Socket,
}

/// A time to set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Moment {
    At { second: i64, nanosecond: i64 },
    Now,
    Omitted,
}

impl Fill {
    pub(super) fn bytes(self) -> Vec<u8> {
        crate::Random::new(self.seed).bytes(self.len)
    }
}

impl Operation {
    /// The name of the operation's kind.
    pub(super) fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split(' ').next().unwrap().to_owned()
    }

    /// The paths and open files whose nodes the operation may change.
    pub(super) fn targets(&self) -> Vec<Target> {
        let at = |path: &String, follow| Target::Path { path: path.clone(), follow };
        match self {
            Operation::Open { path, flags, .. } => {
                vec![at(path, flags & libc::O_NOFOLLOW as u32 == 0)]
            }
            Operation::Write { slot, .. }
            | Operation::Read { slot, .. }
            | Operation::Fallocate { slot, .. } => vec![Target::Open { slot: *slot }],
            Operation::Copy { from, to, .. } => {
                vec![Target::Open { slot: *from }, Target::Open { slot: *to }]
            }
            Operation::Mkdir { path, .. }
            | Operation::Mknod { path, .. }
            | Operation::Symlink { path, .. }
            | Operation::Unlink { path }
            | Operation::Rmdir { path } => vec![at(path, false)],
            Operation::Rename { from, to, .. } => vec![at(from, false), at(to, false)],
            Operation::Link { from, to } => vec![from.clone(), at(to, false)],
            Operation::Resize { target, .. }
            | Operation::Chmod { target, .. }
            | Operation::Chown { target, .. }
            | Operation::SetTimes { target, .. }
            | Operation::SetXattr { target, .. }
            | Operation::RemoveXattr { target, .. } => vec![target.clone()],
            Operation::Close { .. }
            | Operation::Seek { .. }
            | Operation::FindData { .. }
            | Operation::Fsync { .. }
            | Operation::Flock { .. }
            | Operation::Lock { .. }
            | Operation::FindLock { .. }
            | Operation::Map { .. }
            | Operation::Unmap { .. }
            | Operation::WriteMapped { .. }
            | Operation::ReadMapped { .. }
            | Operation::SyncMapped { .. }
            | Operation::OpenDirectory { .. }
            | Operation::ReadSome { .. }
            | Operation::ReadRest { .. }
            | Operation::List { .. }
            | Operation::Readlink { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattrs { .. }
            | Operation::Stat { .. }
            | Operation::Access { .. }
            | Operation::Clear { .. } => Vec::new(),
        }
    }
}
