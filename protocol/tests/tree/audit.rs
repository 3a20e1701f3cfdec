//! Invariants of trees and their contents, checked by walking them.

use std::collections::{BTreeMap, BTreeSet};

use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{Delivery, Extents, ItemKind, Kind, Node, Rows, Usage};
use xfer_protocol::{ContentId, Ino};

use crate::world::World;

/// More blocks than any file in these tests has.
const BLOCKS_MAX: u64 = 64;

/// Checks trees that share one storage.
pub fn audit(worlds: &[&World]) -> Result<(), String> {
    let mut references = BTreeMap::new();
    for world in worlds {
        audit_tree(world, &mut references)?;
    }
    let storage = worlds[0].storage.borrow();
    for (_, delivery) in storage.posted.values() {
        refer_items(delivery, &mut references);
    }
    let contents: BTreeSet<_> = storage.contents.keys().collect();
    must(references.keys().collect::<BTreeSet<_>>() == contents, || {
        format!("contents {contents:?}, referred to {references:?}")
    })?;
    must(references == storage.references, || {
        format!("references {:?}, counted {references:?}", storage.references)
    })
}

fn refer_items(delivery: &Delivery, references: &mut BTreeMap<ContentId, i64>) {
    for item in &delivery.items {
        if let ItemKind::File { content: Some(content), .. } = item.kind {
            *references.entry(content).or_default() += 1;
        }
    }
}

/// The totals of one walk over a tree.
#[derive(Default)]
struct Walk {
    names: BTreeMap<Ino, u32>,
    nodes: BTreeSet<Ino>,
}

fn audit_tree(world: &World, references: &mut BTreeMap<ContentId, i64>) -> Result<(), String> {
    let mut walk = Walk::default();
    walk_directory(world, Ino::ROOT, Ino::ROOT, &mut walk)?;
    walk.nodes.extend(world.slots.iter().flatten());
    let mut usage = Usage::default();
    for ino in &walk.nodes {
        let node = world.node(*ino);
        if !node.is_directory() {
            let names = walk.names.get(ino).copied().unwrap_or(0);
            must(node.nlink == names, || format!("{ino:?}: {} of {names} names", node.nlink))?;
        }
        usage.nodes += 1;
        usage.bytes +=
            blocks(&node) * BLOCK_BYTES + xattr_bytes(&node) + in_row(world, *ino, &node);
        audit_data(world, *ino, &node)?;
        if let Some(content) = node.content() {
            *references.entry(content).or_default() += 1;
        }
    }
    let counted = world.table.usage();
    must(usage == counted, || format!("takes up {usage:?}, counted {counted:?}"))
}

fn walk_directory(world: &World, at: Ino, above: Ino, walk: &mut Walk) -> Result<(), String> {
    let node = world.node(at);
    let Kind::Directory { parent, entries, name_bytes } = node.kind else {
        return Err(format!("{at:?} is no directory"));
    };
    let children = world.table.children(at).expect("all is loaded");
    must(parent == above, || format!("{at:?} says it is in {parent:?}, not {above:?}"))?;
    must(entries == children.len() as u64, || format!("{at:?} says it has {entries} entries"))?;
    let names: usize = children.iter().map(|(name, _)| name.as_bytes().len()).sum();
    must(name_bytes == names as u64, || format!("{at:?}: {name_bytes} bytes of names"))?;
    must(walk.nodes.insert(at), || format!("{at:?} is in two places"))?;
    let mut directories = 0;
    for (_, ino) in children {
        if world.node(ino).is_directory() {
            directories += 1;
            walk_directory(world, ino, at, walk)?;
        } else {
            walk.nodes.insert(ino);
            *walk.names.entry(ino).or_default() += 1;
        }
    }
    must(node.nlink == 2 + directories, || format!("{at:?}: {} links", node.nlink))
}

fn audit_data(world: &World, ino: Ino, node: &Node) -> Result<(), String> {
    let Some(data) = node.file() else { return Ok(()) };
    let storage = world.storage.borrow();
    let dense = (0..BLOCKS_MAX).all(|b| {
        data.extents.contains(data.size, b * BLOCK_BYTES) == (b * BLOCK_BYTES < data.size)
    });
    must(dense == (data.extents == Extents::Dense), || format!("{ino:?}: two maps for one set"))?;
    let Some(content) = data.content else {
        return must(blocks(node) == 0 && !data.sealed, || format!("{ino:?}: data in no content"));
    };
    if !data.sealed {
        let count = storage.references.get(&content);
        must(count == Some(&1), || format!("{ino:?}: {content:?} is shared, and not sealed"))?;
        let clean = storage.beyond(data).iter().all(|byte| *byte == 0);
        must(clean, || format!("{ino:?}: rubbish past the end"))?;
    }
    Ok(())
}

/// The blocks of a node's data, counted one by one.
fn blocks(node: &Node) -> u64 {
    let has = |data: &&xfer_protocol::tree::FileData, block: u64| {
        data.extents.contains(data.size, block * BLOCK_BYTES)
    };
    let count = |data| (0..BLOCKS_MAX).filter(|block| has(&data, *block)).count() as u64;
    node.file().map_or(0, count)
}

/// The chargeable bytes of a directory's entries or a link's target.
fn in_row(world: &World, ino: Ino, node: &Node) -> u64 {
    let bytes = match &node.kind {
        Kind::Symlink { target } => target.len(),
        Kind::Directory { .. } if node.nlink > 0 => {
            let children = world.table.children(ino).expect("all is loaded");
            children.iter().map(|(name, _)| 64 + name.as_bytes().len()).sum()
        }
        _ => 0,
    };
    bytes as u64 / 512 * 512
}

fn xattr_bytes(node: &Node) -> u64 {
    let xattrs = node.xattrs.all().expect("a world's nodes have all that is theirs");
    xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

fn must(holds: bool, else_say: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_say()) }
}
