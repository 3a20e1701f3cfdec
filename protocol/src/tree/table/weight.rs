//! The memory that rows take: cheap estimates, on the high side, that depend on the row
//! alone.

use std::mem::size_of;

use super::{Directory, NodeRow};
use crate::tree::{Kind, Node, Xattrs};
use crate::{Ino, Name, Seq};

/// The overhead of an allocation, with the counts of a shared one.
const ALLOCATION: usize = 32;

/// At worst, half the places of a hash map are in use. Each has a control byte besides.
const fn place(bytes: usize) -> usize {
    2 * (bytes + 1)
}

/// The memory of a directory without its entries.
pub(super) const OF_DIRECTORY: usize = place(size_of::<(Ino, Directory)>()) + ALLOCATION;

/// The memory of an entry.
pub(super) fn of_entry(name: &Name) -> usize {
    // The nodes of a B-tree are at least half full.
    2 * size_of::<(Name, (Option<Ino>, Seq))>() + ALLOCATION + name.as_bytes().len()
}

/// The memory of a node, or of the note that it does not exist.
pub(super) fn of_node(node: Option<&Node>) -> usize {
    place(size_of::<(Ino, NodeRow)>()) + node.map_or(0, of_present)
}

fn of_present(node: &Node) -> usize {
    let attributes = match &node.xattrs {
        Xattrs::All(map) => Some(map),
        Xattrs::None | Xattrs::LeftOut { .. } => None,
    };
    let attributes = attributes.into_iter().flat_map(|map| map.iter());
    let attribute = |(name, value): (&bytes::Bytes, &bytes::Bytes)| {
        2 * size_of::<(bytes::Bytes, bytes::Bytes)>() + 2 * ALLOCATION + name.len() + value.len()
    };
    let beside = match &node.kind {
        Kind::File(data) => data.extents.runs() * 2 * size_of::<(u64, u64)>(),
        Kind::Symlink { target } => target.len() + ALLOCATION,
        Kind::Directory { .. } | Kind::Special(_) => 0,
    };
    size_of::<Node>() + ALLOCATION + beside + attributes.map(attribute).sum::<usize>()
}
