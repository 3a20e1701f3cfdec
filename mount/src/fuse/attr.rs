//! Nodes in the form that the kernel expects.

use std::time::Duration;

use fuser::{FileAttr, FileType, INodeNo};
use xfer_client::core::Owners;
use xfer_protocol::tree::{Kind, Node, SpecialKind};
use xfer_protocol::{Errno, Ino};

use crate::command::options::Masks;

/// How long the kernel may cache names and attributes. Only this mount changes the tree: for ever.
pub(super) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The preferred I/O size reported to programs, in bytes.
const IO_BYTES: u32 = 128 << 10;

/// How owners and permissions are shown to programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Which owner numbers nodes show.
    pub(super) owners: Owners,
    /// Permission bits that are hidden.
    pub(super) masks: Masks,
}

/// The attributes of a node, as `stat` shows them.
pub(super) fn attr(ino: Ino, node: &Node, view: View) -> FileAttr {
    let (uid, gid) = view.owners.of(node);
    FileAttr {
        ino: INodeNo(ino.0),
        size: node.size(),
        blocks: node.sectors(),
        atime: node.atime.into(),
        mtime: node.mtime.into(),
        ctime: node.ctime.into(),
        crtime: node.ctime.into(),
        kind: file_type(&node.kind),
        perm: node.mode & !hidden(&node.kind, view.masks),
        nlink: node.nlink,
        uid,
        gid,
        rdev: rdev(&node.kind),
        blksize: IO_BYTES,
        flags: 0,
    }
}

/// The permission bits that are hidden on nodes of this kind.
fn hidden(kind: &Kind, masks: Masks) -> u16 {
    let own = match kind {
        Kind::Directory { .. } => masks.directories,
        Kind::File(_) | Kind::Symlink { .. } | Kind::Special(_) => masks.files,
    };
    own.unwrap_or(masks.all)
}

/// The attributes of an absent name: with inode number 0 the kernel caches the absence.
pub(super) fn absent() -> FileAttr {
    let epoch = std::time::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: IO_BYTES,
        flags: 0,
    }
}

/// Converts a node's kind to fuser's.
pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Directory { .. } => FileType::Directory,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::Special(SpecialKind::Fifo) => FileType::NamedPipe,
        Kind::Special(SpecialKind::Socket) => FileType::Socket,
        Kind::Special(SpecialKind::CharDevice { .. }) => FileType::CharDevice,
        Kind::Special(SpecialKind::BlockDevice { .. }) => FileType::BlockDevice,
    }
}

/// Converts an errno to fuser's.
pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.number())
}

fn rdev(kind: &Kind) -> u32 {
    match kind {
        Kind::Special(SpecialKind::CharDevice { rdev } | SpecialKind::BlockDevice { rdev }) => {
            *rdev
        }
        Kind::File(_)
        | Kind::Directory { .. }
        | Kind::Symlink { .. }
        | Kind::Special(SpecialKind::Fifo | SpecialKind::Socket) => 0,
    }
}
