//! Nodes: the files, directories, links and special files of a tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::file::FileData;
use super::kind::Kind;
use crate::limits::{
    BLOCK_BYTES, ENTRY_BYTES, NOTE_BYTES_MAX, SECTOR_BYTES, XATTRS_LISTED_BYTES_MAX,
};
use crate::{ContentId, DeliveryId, Ino, Timestamp};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// A file, directory, link or special file, with everything but its names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// The kind of node, with the data that only this kind has.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (the low twelve bits of `st_mode`).
    pub mode: u16,
    /// The owner's user number on the client.
    pub uid: u32,
    /// The owning group's number on the client.
    pub gid: u32,
    /// The number of names that refer to it; for a directory, 2 plus the number of its
    /// subdirectories. A node without names is an *orphan*: a program may still have it open.
    pub nlink: u32,
    /// When its data was last read, as programs set it; reading does not change it.
    pub atime: Timestamp,
    /// When its data last changed.
    pub mtime: Timestamp,
    /// When anything about it last changed.
    pub ctime: Timestamp,
    /// Its extended attributes, which a listing may leave out.
    pub xattrs: Xattrs,
    /// The delivery that sent it. A node with one is a record, and its data can't change.
    pub sent: Option<DeliveryId>,
}

/// The attribute that says why something in a mailbox was not sent (yet). It is short and not
/// charged, so that it can be set even when the quota is full.
pub const STATE_XATTR: &[u8] = b"user.xfer.state";

/// The attribute with the sender's note, which goes along when the node is sent: up to
/// [`NOTE_BYTES_MAX`] bytes of text, in lines.
pub const NOTE_XATTR: &[u8] = b"user.xfer.note";

/// The attribute of an arrival with the note that came along. It has another name, so that a note does
/// not go along when its recipient sends on what arrived.
pub const ARRIVED_NOTE_XATTR: &[u8] = b"user.xfer.from.note";

/// Whether a program may set an attribute of this name: those in `user.`, except xfer's own. Of these it
/// may set the note to what it sends.
pub fn is_for_programs(name: &[u8]) -> bool {
    name == NOTE_XATTR || (name.starts_with(b"user.") && !name.starts_with(b"user.xfer."))
}

/// Whether a value can be a note.
pub fn is_note(value: &[u8]) -> bool {
    let is_text = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n');
    (1..=NOTE_BYTES_MAX).contains(&value.len()) && std::str::from_utf8(value).is_ok_and(is_text)
}

/// The extended attributes of a node. (The order of variants is part of the stored format.)
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Xattrs {
    /// The node has none.
    #[default]
    None,
    /// All of them, by name.
    All(Arc<XattrMap>),
    /// The node has some, too large for a listing and so left out.
    LeftOut {
        /// The size of their names and values, as in [`Xattrs::bytes`].
        bytes: u64,
    },
}

/// Extended attributes by name.
pub type XattrMap = BTreeMap<Bytes, Bytes>;

impl Xattrs {
    /// Wraps a map of attributes.
    pub fn of(map: Arc<XattrMap>) -> Xattrs {
        if map.is_empty() { Xattrs::None } else { Xattrs::All(map) }
    }

    /// All of them; `None` if they were left out.
    pub fn all(&self) -> Option<Arc<XattrMap>> {
        match self {
            Xattrs::None => Some(Arc::default()),
            Xattrs::All(map) => Some(map.clone()),
            Xattrs::LeftOut { .. } => None,
        }
    }

    /// Moves all of them out; `None` if they were left out.
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

    /// The size of their names and values without [`STATE_XATTR`], in bytes.
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

    /// The form for a listing: left out if they are large.
    #[must_use]
    pub fn listed(self) -> Xattrs {
        match self.bytes() {
            bytes if bytes > XATTRS_LISTED_BYTES_MAX => Xattrs::LeftOut { bytes },
            _ => self,
        }
    }
}

/// What a tree takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes: allocated blocks in full, entries and link targets in whole sectors, names and values
    /// of extended attributes exactly.
    pub bytes: u64,
    /// Nodes, of all kinds.
    pub nodes: u64,
}

/// The most that a tree may take up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes, counted as in [`Usage`].
    pub bytes: u64,
    /// Nodes, counted as in [`Usage`].
    pub nodes: u64,
}

impl Quota {
    /// A quota that no tree reaches.
    pub const UNLIMITED: Quota = Quota { bytes: u64::MAX, nodes: u64::MAX };

    /// The quota for arrivals: other users' deliveries can't fill the last tenth of the recipient's
    /// quota.
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
    /// Clears the set-id bits, as a change of data by an unprivileged program does. As on Linux,
    /// set-group-id without group-execute marks mandatory locking, and stays.
    pub fn clear_set_id(&mut self) {
        self.mode &= !SET_UID;
        if self.mode & GROUP_EXECUTE != 0 {
            self.mode &= !SET_GID;
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.directory().is_some()
    }

    /// The number of its entries; 0 if it is not a directory.
    pub fn entries(&self) -> u64 {
        self.directory().map_or(0, |(_, entries)| entries)
    }

    /// The directory that contains it, if it is a directory itself.
    pub fn parent(&self) -> Option<Ino> {
        self.directory().map(|(parent, _)| parent)
    }

    fn directory(&self) -> Option<(Ino, u64)> {
        match self.kind {
            Kind::Directory { parent, entries, .. } => Some((parent, entries)),
            Kind::File(_) | Kind::Symlink { .. } | Kind::Special(_) => None,
        }
    }

    /// Its data, if it is a regular file.
    pub fn file(&self) -> Option<&FileData> {
        match &self.kind {
            Kind::File(data) => Some(data),
            Kind::Directory { .. } | Kind::Symlink { .. } | Kind::Special(_) => None,
        }
    }

    /// The content that holds its data, if there is one.
    pub fn content(&self) -> Option<ContentId> {
        self.file().and_then(|data| data.content)
    }

    /// The space that it takes up without its extended attributes, in sectors (`st_blocks`): a
    /// file's blocks, a directory's entries, a symbolic link's target.
    ///
    /// A last sector that is not full is free, as on filesystems whose inodes hold a little data;
    /// nodes have a quota of their own.
    pub fn sectors(&self) -> u64 {
        match &self.kind {
            Kind::File(data) => data.extents.blocks(data.size) * (BLOCK_BYTES / SECTOR_BYTES),
            Kind::Directory { entries, name_bytes, .. } => {
                entries.saturating_mul(ENTRY_BYTES).saturating_add(*name_bytes) / SECTOR_BYTES
            }
            Kind::Symlink { target } => target.len() as u64 / SECTOR_BYTES,
            Kind::Special(_) => 0,
        }
    }

    /// The size that programs are shown, in bytes (`st_size`): a directory's grows with its entries.
    pub fn size(&self) -> u64 {
        const ENTRY_SHOWN_BYTES: u64 = 32;
        match &self.kind {
            Kind::File(data) => data.size,
            Kind::Directory { entries, .. } => entries.saturating_mul(ENTRY_SHOWN_BYTES),
            Kind::Symlink { target } => target.len() as u64,
            Kind::Special(_) => 0,
        }
    }

    /// The bytes that it adds to its tree's [`Usage`].
    pub fn charge(&self) -> u64 {
        self.sectors() * SECTOR_BYTES + self.xattrs.bytes()
    }
}
