//! What rows take up in memory: estimates, on the high side, that are cheap to make and depend on
//! the row alone.

use std::mem::size_of;

use super::{Directory, NodeRow};
use crate::tree::{Kind, Node, Xattrs};
use crate::{Ino, Name, Seq};

/// What an allocation takes up beside what was asked for, and for its counts if it is shared.
const ALLOCATION: usize = 32;

/// A place in a hash map is taken half of the time, at worst, and has a byte of its own.
const fn place(bytes: usize) -> usize {
    2 * (bytes + 1)
}

/// What a directory takes up, without its entries.
pub(super) const OF_DIRECTORY: usize = place(size_of::<(Ino, Directory)>()) + ALLOCATION;

/// What an entry takes up.
pub(super) fn of_entry(name: &Name) -> usize {
    // The nodes of a B-tree are at least half full.
    2 * size_of::<(Name, (Option<Ino>, Seq))>() + ALLOCATION + name.as_bytes().len()
}

/// What a node takes up, or the note that there is none.
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
        Kind::Directory { .. }
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharDevice { .. }
        | Kind::BlockDevice { .. } => 0,
    };
    size_of::<Node>() + ALLOCATION + beside + attributes.map(attribute).sum::<usize>()
}
