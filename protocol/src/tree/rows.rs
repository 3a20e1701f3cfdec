//! What the rules read, and what they say should change.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Extents, Kind, Node, Quota, Usage, Xattrs};
use crate::limits::BLOCK_BYTES;
use crate::{ContentId, DeliveryId, Errno, Ino, Name, Timestamp};

/// A row as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded<T> {
    /// It exists.
    Present(T),
    /// It is known not to exist.
    Absent,
    /// It was not loaded yet.
    Unknown,
}

/// The rows of one tree that are loaded. The rules read through this and nothing else.
pub trait Rows {
    /// A node by its number.
    fn node(&self, ino: Ino) -> Loaded<Arc<Node>>;
    /// What an entry of a directory refers to.
    fn entry(&self, parent: Ino, name: &Name) -> Loaded<Ino>;
    /// All entries of a directory in order of their names; `None` if not all are loaded.
    fn children(&self, parent: Ino) -> Option<Vec<(Name, Ino)>>;
    /// A delivery that waits to be accepted.
    fn delivery(&self, id: DeliveryId) -> Loaded<Arc<Delivery>>;
    /// What the whole tree takes up.
    fn usage(&self) -> Usage;
    /// What it may take up.
    fn quota(&self) -> Quota;
}

/// A row that must be loaded before the rules can decide.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Need {
    /// A node.
    Node(Ino),
    /// The extended attributes of a node, which were left out when it was loaded.
    Attributes(Ino),
    /// One entry of a directory.
    Entry(Ino, Name),
    /// All entries of a directory.
    Children(Ino),
    /// A delivery.
    Delivery(DeliveryId),
}

/// Why the rules gave no changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Load this and ask again.
    Need(Need),
    /// The op is refused; nothing changes.
    Refused(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Refused(errno)
    }
}

/// All that one op changes. Later entries of a list stand for later changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Nodes that are new or changed (`Some`) or gone (`None`), each at most once.
    pub nodes: Vec<(Ino, Option<Arc<Node>>)>,
    /// Entries that are new or changed (`Some`) or gone (`None`), each at most once.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// What the tree takes up afterwards.
    pub usage: Usage,
    /// What to do to contents, in order.
    pub contents: Vec<ContentEffect>,
    /// How many more nodes and deliveries refer to a content (or fewer).
    pub references: Vec<(ContentId, i64)>,
    /// What becomes of deliveries.
    pub deliveries: Vec<DeliveryEffect>,
}

/// A change to the bytes of a content.
///
/// A content never written at some place reads as zeros there, and so it does past its end.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it all; the variants say the rest")]
pub enum ContentEffect {
    /// A new, empty content comes into being.
    Create { content: ContentId },
    /// The op's payload, from its start, is written.
    Write { content: ContentId, offset: u64, len: u64 },
    /// A range becomes zeros.
    Zero { content: ContentId, offset: u64, len: u64 },
    /// `to` comes into being with these parts of `from`, which are in order, and nothing else.
    Clone { from: ContentId, to: ContentId, ranges: Vec<Range<u64>> },
    /// Bytes are copied, from one content or within one, as if through a buffer.
    Copy { from: ContentId, from_offset: u64, to: ContentId, to_offset: u64, len: u64 },
    /// A range is no longer reachable through a node. Once nothing reaches it through another that
    /// shares the content, its space may be reclaimed, though only after the next commit, since what
    /// was committed before can still reach it.
    Free { content: ContentId, offset: u64, len: u64 },
}

/// What becomes of a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it all; the variants say the rest")]
pub enum DeliveryEffect {
    /// It is on its way to a user. `root` is its record.
    Sent { to: Name, root: Ino, delivery: Arc<Delivery> },
    /// It was placed in the recipient's tree.
    Accepted(DeliveryId),
    /// The recipient turned it away.
    Declined(DeliveryId),
}

/// Something sent from one user to another: a file, or a directory with all that is in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: DeliveryId,
    /// The sender.
    pub from: Name,
    /// When it was sent.
    pub sent: Timestamp,
    /// What was sent: the first item, and after it what is in it, parents before children.
    pub items: Vec<Item>,
}

/// One node of a delivery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The place in [`Delivery::items`] of the directory it is in. The first item's is 0.
    pub parent: u32,
    /// Its name there.
    pub name: Name,
    /// What it is.
    pub kind: ItemKind,
    /// Its permission bits, without set-id and sticky bits.
    pub mode: u16,
    /// When its data last changed, at the sender's.
    pub mtime: Timestamp,
    /// Its extended attributes.
    pub xattrs: Xattrs,
}

/// What an item of a delivery is. Other kinds of node don't travel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ItemKind {
    /// A regular file, sharing the sender's content.
    File {
        /// Its size in bytes.
        size: u64,
        /// The content with its bytes.
        content: Option<ContentId>,
        /// Where it has data.
        extents: Extents,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: bytes::Bytes,
    },
}

impl Delivery {
    /// The bytes that the delivery takes up in an inbox: whole blocks of data, and names, targets
    /// and attributes; about what it will take up in the recipient's tree.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(Item::bytes).sum()
    }
}

impl Item {
    /// The bytes that it takes up.
    pub fn bytes(&self) -> u64 {
        let own = match &self.kind {
            ItemKind::File { size, extents, .. } => extents.blocks(*size) * BLOCK_BYTES,
            ItemKind::Symlink { target } => target.len() as u64,
            ItemKind::Directory => 0,
        };
        own + described(&self.name, &self.xattrs)
    }

    /// The bytes that a node with this name takes up once it is an item.
    pub fn bytes_of(name: &Name, node: &Node) -> u64 {
        let own = match &node.kind {
            Kind::File(data) => data.extents.blocks(data.size) * BLOCK_BYTES,
            Kind::Symlink { target } => target.len() as u64,
            Kind::Directory { .. } => 0,
            // These don't travel.
            Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                return 0;
            }
        };
        own + described(name, &node.xattrs)
    }

    /// Whether an attribute goes along: those of users, but not xfer's own.
    pub fn takes_along(name: &[u8]) -> bool {
        name.starts_with(b"user.") && !name.starts_with(b"user.xfer.")
    }
}

/// The bytes of a name and of the attributes that go along; of all, if they were left out.
fn described(name: &Name, xattrs: &Xattrs) -> u64 {
    let xattrs = match xattrs {
        Xattrs::None => 0,
        Xattrs::All(map) => {
            let along = map.iter().filter(|(name, _)| Item::takes_along(name));
            along.map(|(name, value)| name.len() + value.len()).sum::<usize>() as u64
        }
        Xattrs::LeftOut { bytes } => *bytes,
    };
    name.as_bytes().len() as u64 + xattrs
}
