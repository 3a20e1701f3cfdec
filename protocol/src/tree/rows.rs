//! The rows that the rules read, and the changes that they return.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Extents, Kind, Node, Quota, Usage, Xattrs, is_for_programs};
use crate::limits::BLOCK_BYTES;
use crate::{ContentId, DeliveryId, Errno, Ino, Name, Timestamp};

/// A row, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded<T> {
    /// It exists.
    Present(T),
    /// It is known not to exist.
    Absent,
    /// It has not been loaded.
    Unknown,
}

/// The loaded rows of one tree. The rules read through this trait and nothing else.
pub trait Rows {
    /// A node by its number.
    fn node(&self, ino: Ino) -> Loaded<Arc<Node>>;
    /// The node that a directory's entry refers to.
    fn entry(&self, parent: Ino, name: &Name) -> Loaded<Ino>;
    /// All entries of a directory, in order of names; `None` if some are not loaded.
    fn children(&self, parent: Ino) -> Option<Vec<(Name, Ino)>>;
    /// A delivery that waits to be accepted.
    fn delivery(&self, id: DeliveryId) -> Loaded<Arc<Delivery>>;
    /// What the whole tree takes up now.
    fn usage(&self) -> Usage;
    /// What the whole tree may take up.
    fn quota(&self) -> Quota;
}

/// A row that must be loaded before the rules can decide.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Need {
    /// A node, by its number.
    Node(Ino),
    /// The extended attributes of a node that was loaded without them.
    Attributes(Ino),
    /// One entry of a directory, by its name.
    Entry(Ino, Name),
    /// All entries of a directory, by its number.
    Children(Ino),
    /// A delivery that waits to be accepted.
    Delivery(DeliveryId),
}

/// Why the rules returned no changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// This row must be loaded first; then ask again.
    Need(Need),
    /// The op is refused; nothing changes.
    Refused(Errno),
}

impl From<Errno> for PlanError {
    fn from(errno: Errno) -> PlanError {
        PlanError::Refused(errno)
    }
}

/// Everything that one op changes. Within a list, later entries are later changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Nodes that are new or changed (`Some`) or gone (`None`), each at most once.
    pub nodes: Vec<(Ino, Option<Arc<Node>>)>,
    /// Entries that are new or changed (`Some`) or gone (`None`), each at most once.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// What the tree takes up after the op.
    pub usage: Usage,
    /// What to do to contents, in order.
    pub contents: Vec<ContentEffect>,
    /// How many nodes and deliveries more (or fewer) refer to each content.
    pub references: Vec<(ContentId, i64)>,
    /// What happens to deliveries.
    pub deliveries: Vec<DeliveryEffect>,
}

/// A change to the bytes of a content.
///
/// A content reads as zeros wherever it was never written, and past its end.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it all; the variants say the rest")]
pub enum ContentEffect {
    /// Creates an empty content.
    Create { content: ContentId },
    /// Writes the op's payload, from its start.
    Write { content: ContentId, offset: u64, len: u64 },
    /// Zeroes a range.
    Zero { content: ContentId, offset: u64, len: u64 },
    /// Creates `to` with these ranges of `from`, which are in order; the rest is zeros.
    Clone { from: ContentId, to: ContentId, ranges: Vec<Range<u64>> },
    /// Copies bytes between contents or within one, as if through a buffer.
    Copy { from: ContentId, from_offset: u64, to: ContentId, to_offset: u64, len: u64 },
    /// A range is no longer reachable through one node. Its space may be reclaimed once no other
    /// node that shares the content reaches it, and only after the next commit: until then the
    /// committed rows still reach it.
    Free { content: ContentId, offset: u64, len: u64 },
}

/// What happens to a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it all; the variants say the rest")]
pub enum DeliveryEffect {
    /// It was sent to a user. `root` is the sender's record of it.
    Sent { to: Name, root: Ino, delivery: Arc<Delivery> },
    /// It was placed in the recipient's tree.
    Accepted(DeliveryId),
    /// The recipient declined it.
    Declined(DeliveryId),
}

/// A file, or a directory with its contents, sent from one user to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number, unique on the server.
    pub id: DeliveryId,
    /// The sender's user name.
    pub from: Name,
    /// When it was sent, by the sender's clock.
    pub sent: Timestamp,
    /// The items: first the node that was sent, then its contents, parents before children.
    pub items: Vec<Item>,
}

/// One node of a delivery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The index in [`Delivery::items`] of the directory that contains it; 0 for the first item.
    pub parent: u32,
    /// Its name in that directory.
    pub name: Name,
    /// The kind of item, with its data.
    pub kind: ItemKind,
    /// Its permission bits, without set-id and sticky bits.
    pub mode: u16,
    /// When its data last changed, in the sender's tree.
    pub mtime: Timestamp,
    /// The extended attributes that travel with it.
    pub xattrs: Xattrs,
}

/// The kinds of item. Nodes of other kinds don't travel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ItemKind {
    /// A regular file, sharing the sender's content.
    File {
        /// The size in bytes.
        size: u64,
        /// The content with the bytes; `None` if nothing is allocated.
        content: Option<ContentId>,
        /// The allocated blocks.
        extents: Extents,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The path that it points to.
        target: bytes::Bytes,
    },
    /// Another name of an item, which has all else.
    Link {
        /// The index in [`Delivery::items`] of that item: an earlier one, and no directory.
        item: u32,
    },
}

impl Delivery {
    /// The delivery's size in an inbox: whole blocks of data, and names, targets and attributes.
    /// This is about what it will take up in the recipient's tree.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(Item::bytes).sum()
    }
}

impl Item {
    /// The item's size in an inbox, in bytes.
    pub fn bytes(&self) -> u64 {
        let own = match &self.kind {
            ItemKind::File { size, extents, .. } => extents.blocks(*size) * BLOCK_BYTES,
            ItemKind::Symlink { target } => target.len() as u64,
            ItemKind::Directory | ItemKind::Link { .. } => 0,
        };
        own + described(&self.name, &self.xattrs)
    }

    /// The size in an inbox, in bytes, of a node sent under this name.
    pub fn bytes_of(name: &Name, node: &Node) -> u64 {
        let own = match &node.kind {
            Kind::File(data) => data.extents.blocks(data.size) * BLOCK_BYTES,
            Kind::Symlink { target } => target.len() as u64,
            Kind::Directory { .. } => 0,
            // These don't travel.
            Kind::Special(_) => {
                return 0;
            }
        };
        own + described(name, &node.xattrs)
    }
}

/// The bytes of a name and of the attributes that travel; of all attributes, if they were left out.
fn described(name: &Name, xattrs: &Xattrs) -> u64 {
    let xattrs = match xattrs {
        Xattrs::None => 0,
        Xattrs::All(map) => {
            let along = map.iter().filter(|(name, _)| is_for_programs(name));
            along.map(|(name, value)| name.len() + value.len()).sum::<usize>() as u64
        }
        Xattrs::LeftOut { bytes } => *bytes,
    };
    name.as_bytes().len() as u64 + xattrs
}
