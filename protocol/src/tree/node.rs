//! Nodes: what a tree is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Extents;
use crate::limits::{BLOCK_BYTES, ENTRY_BYTES, SECTOR_BYTES, XATTRS_LISTED_BYTES_MAX};
use crate::{ContentId, DeliveryId, Ino, Timestamp};

/// A file, directory, link or special file: everything about it but its names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What it is, with what only such nodes have.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (the low twelve bits of `st_mode`).
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Names that refer to it; for a directory, 2 and one more for each directory in it. A node
    /// with none is an *orphan*: some program may still have it open.
    pub nlink: u32,
    /// When its data was last read, as far as anybody set it; reading does not.
    pub atime: Timestamp,
    /// When its data last changed.
    pub mtime: Timestamp,
    /// When anything of it last changed.
    pub ctime: Timestamp,
    /// Its extended attributes.
    pub xattrs: Xattrs,
    /// The delivery that sent it: from then on it is a record, and its data can't change.
    pub sent: Option<DeliveryId>,
}

/// The attribute that says why something in a mailbox was not sent (yet). It is short and charged to
/// nobody, so that it can be set when the quota is full.
pub const STATE_XATTR: &[u8] = b"user.xfer.state";

/// The extended attributes of a node. (The variants' order is on disk.)
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Xattrs {
    /// It has none.
    #[default]
    None,
    /// All of them, by name.
    All(Arc<XattrMap>),
    /// It has some that were left out, since a listing of many such nodes would be large.
    LeftOut {
        /// The bytes of their names and values, as in [`Xattrs::bytes`].
        bytes: u64,
    },
}

/// Extended attributes by name.
pub type XattrMap = BTreeMap<Bytes, Bytes>;

impl Xattrs {
    /// These.
    pub fn of(map: Arc<XattrMap>) -> Xattrs {
        if map.is_empty() { Xattrs::None } else { Xattrs::All(map) }
    }

    /// All of them; nothing if they were left out.
    pub fn all(&self) -> Option<Arc<XattrMap>> {
        match self {
            Xattrs::None => Some(Arc::default()),
            Xattrs::All(map) => Some(map.clone()),
            Xattrs::LeftOut { .. } => None,
        }
    }

    /// Takes all of them out; nothing if they were left out.
    pub fn take(&mut self) -> Option<Arc<XattrMap>> {
        match std::mem::take(self) {
            Xattrs::None => Some(Arc::default()),
            Xattrs::All(map) => Some(map),
            left_out @ Xattrs::LeftOut { .. } => {
                *self = left_out;
                None
            }
        }
    }

    /// The bytes of their names and values, but for [`STATE_XATTR`].
    pub fn bytes(&self) -> u64 {
        match self {
            Xattrs::None => 0,
            Xattrs::All(map) => {
                let counted = map.iter().filter(|(name, _)| *name != STATE_XATTR);
                counted.map(|(name, value)| name.len() + value.len()).sum::<usize>() as u64
            }
            Xattrs::LeftOut { bytes } => *bytes,
        }
    }

    /// As a listing shows them: left out if they are large.
    #[must_use]
    pub fn listed(self) -> Xattrs {
        match self.bytes() {
            bytes if bytes > XATTRS_LISTED_BYTES_MAX => Xattrs::LeftOut { bytes },
            _ => self,
        }
    }
}

/// What a node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Directory {
        /// The directory that it is in; the root is in itself.
        parent: Ino,
        /// How many entries it has.
        entries: u64,
        /// The bytes of their names.
        name_bytes: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as it was written.
        target: Bytes,
    },
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device. Kept, never usable through a mount.
    CharDevice {
        /// Its device number.
        rdev: u32,
    },
    /// A block device. Kept, never usable through a mount.
    BlockDevice {
        /// Its device number.
        rdev: u32,
    },
}

/// The data of a regular file: how much, where there is any, and which content holds it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileData {
    /// The size, in bytes.
    pub size: u64,
    /// The content with the bytes; none as long as nothing was ever allocated.
    pub content: Option<ContentId>,
    /// Whether other nodes or deliveries may have the same content. It is never written to then:
    /// the first change takes a content of its own.
    pub sealed: bool,
    /// Which blocks are data; all others read as zeros, whatever the content holds there.
    pub extents: Extents,
}

/// What a tree takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes: allocated blocks in full, entries and targets in whole sectors, and names and values
    /// of extended attributes.
    pub bytes: u64,
    /// Nodes, of all kinds.
    pub nodes: u64,
}

/// What a tree may take up at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes, counted as in [`Usage`].
    pub bytes: u64,
    /// Nodes, counted as in [`Usage`].
    pub nodes: u64,
}

impl Quota {
    /// A quota that nothing reaches.
    pub const UNLIMITED: Quota = Quota { bytes: u64::MAX, nodes: u64::MAX };

    /// What a tree may take up at most once something arrives: a tenth of the quota stays free of
    /// what others send.
    pub fn for_arrivals(self) -> Quota {
        Quota { bytes: self.bytes - self.bytes / 10, nodes: self.nodes - self.nodes / 10 }
    }
}

impl Kind {
    /// A directory without entries.
    pub fn empty_directory(parent: Ino) -> Kind {
        Kind::Directory { parent, entries: 0, name_bytes: 0 }
    }
}

impl Node {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.directory().is_some()
    }

    /// How many entries it has, if it is a directory.
    pub fn entries(&self) -> u64 {
        self.directory().map_or(0, |(_, entries)| entries)
    }

    /// The directory that it is in, if it is a directory itself.
    pub fn parent(&self) -> Option<Ino> {
        self.directory().map(|(parent, _)| parent)
    }

    fn directory(&self) -> Option<(Ino, u64)> {
        match self.kind {
            Kind::Directory { parent, entries, .. } => Some((parent, entries)),
            Kind::File(_)
            | Kind::Symlink { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice { .. }
            | Kind::BlockDevice { .. } => None,
        }
    }

    /// Its data, if it is a regular file.
    pub fn file(&self) -> Option<&FileData> {
        match &self.kind {
            Kind::File(data) => Some(data),
            Kind::Directory { .. }
            | Kind::Symlink { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice { .. }
            | Kind::BlockDevice { .. } => None,
        }
    }

    /// The content that holds its data, if there is one.
    pub fn content(&self) -> Option<ContentId> {
        self.file().and_then(|data| data.content)
    }

    /// What it takes up but for its extended attributes, in sectors (`st_blocks`): the blocks of a
    /// file's data, a directory's entries, a symbolic link's target.
    ///
    /// What does not fill a sector is free, as on filesystems whose inodes hold a little data: a node
    /// is counted itself.
    pub fn sectors(&self) -> u64 {
        match &self.kind {
            Kind::File(data) => data.extents.blocks(data.size) * (BLOCK_BYTES / SECTOR_BYTES),
            Kind::Directory { entries, name_bytes, .. } => {
                entries.saturating_mul(ENTRY_BYTES).saturating_add(*name_bytes) / SECTOR_BYTES
            }
            Kind::Symlink { target } => target.len() as u64 / SECTOR_BYTES,
            Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => 0,
        }
    }

    /// The bytes it counts for in its tree's [`Usage`].
    pub fn charge(&self) -> u64 {
        self.sectors() * SECTOR_BYTES + self.xattrs.bytes()
    }
}
