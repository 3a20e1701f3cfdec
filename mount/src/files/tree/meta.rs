//! What is known of a node, in the form that all commands use.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

#[cfg(target_os = "linux")]
use rustix::fs::{FileType, Stat};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use xfer_client::core::Owners;
use xfer_protocol::limits::SECTOR_BYTES;
use xfer_protocol::tree::{self, Node, SpecialKind};
use xfer_protocol::{Ino, Timestamp};

/// The kind of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A symbolic link, and where it leads.
    Symlink(OsString),
    Pipe,
    Socket,
    Device,
}

/// Everything about a node but its data and its names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    /// Permission, set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u64,
    pub(crate) size: u64,
    /// The space that it takes up, in bytes.
    pub(crate) allocated: u64,
    pub(crate) inode: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
}

impl Meta {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// Whether it is a pipe, a socket or a device. A transfer does not replace one.
    pub(crate) fn is_special(&self) -> bool {
        matches!(self.kind, Kind::Pipe | Kind::Socket | Kind::Device)
    }

    /// That of a node of a session.
    pub(super) fn of_node(ino: Ino, node: &Node, owners: Owners) -> Meta {
        let (uid, gid) = owners.of(node);
        let kind = match &node.kind {
            tree::Kind::File(_) => Kind::File,
            tree::Kind::Directory { .. } => Kind::Directory,
            tree::Kind::Symlink { target } => Kind::Symlink(OsString::from_vec(target.to_vec())),
            tree::Kind::Special(SpecialKind::Fifo) => Kind::Pipe,
            tree::Kind::Special(SpecialKind::Socket) => Kind::Socket,
            tree::Kind::Special(
                SpecialKind::CharDevice { .. } | SpecialKind::BlockDevice { .. },
            ) => Kind::Device,
        };
        Meta {
            kind,
            mode: node.mode,
            uid,
            gid,
            links: node.nlink.into(),
            size: node.size(),
            allocated: node.sectors() * SECTOR_BYTES,
            inode: ino.0,
            mtime: node.mtime,
            ctime: node.ctime,
        }
    }

    /// That of a node of a mount. `target` is where it leads if it is a symbolic link.
    #[cfg(target_os = "linux")]
    pub(super) fn of_stat(stat: &Stat, target: Option<OsString>) -> Meta {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(target.unwrap_or_default()),
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            _ => Kind::Device,
        };
        Meta {
            kind,
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink,
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * SECTOR_BYTES,
            inode: stat.st_ino,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// That of a file of this machine. Where a symbolic link leads is read apart.
    pub(crate) fn of_here(found: &Metadata, target: Option<OsString>) -> Meta {
        let kind = match found.file_type() {
            of if of.is_file() => Kind::File,
            of if of.is_dir() => Kind::Directory,
            of if of.is_symlink() => Kind::Symlink(target.unwrap_or_default()),
            of if of.is_fifo() => Kind::Pipe,
            of if of.is_socket() => Kind::Socket,
            _ => Kind::Device,
        };
        Meta {
            kind,
            mode: (found.mode() & 0o7777) as u16,
            uid: found.uid(),
            gid: found.gid(),
            links: found.nlink(),
            size: found.size(),
            allocated: found.blocks() * SECTOR_BYTES,
            inode: found.ino(),
            mtime: time(found.mtime(), found.mtime_nsec()),
            ctime: time(found.ctime(), found.ctime_nsec()),
        }
    }
}

/// The times to set: this one as that of the last change, and none as that of the last access.
pub(in crate::files) fn times(mtime: Timestamp) -> Timestamps {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: mtime.secs(), tv_nsec: mtime.nanos().into() };
    Timestamps { last_access, last_modification }
}

fn time(secs: i64, nanos: i64) -> Timestamp {
    Timestamp::new(secs, u32::try_from(nanos).unwrap_or(0)).unwrap_or_default()
}
