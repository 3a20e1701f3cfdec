//! The changes to a tree since its last batch, as far as its rows don't show them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use xfer_protocol::tree::{
    Changes, ContentEffect, DeliveryEffect, Extents, Kind, Loaded, Node, Room, Rows, Xattrs,
};
use xfer_protocol::{ContentId, DeliveryId, Ino};

/// The number of changed rows at which a batch is committed early.
const ROWS_LARGE: usize = 20_000;

/// The bytes of data at which a batch is committed early.
const BYTES_LARGE: u64 = 64 << 20;

/// The bytes of attributes, maps and targets in changed rows at which a batch is committed early.
/// Rows that are not committed can't be unloaded, and a few of these take as much memory as
/// thousands of others.
const HELD_LARGE: usize = 16 << 20;

/// The size up to which the attributes, map and target of a row are not counted, in bytes.
const HELD_SMALL: usize = 1 << 10;

/// The size of one run in a sparse file's map, in bytes.
const RUN_BYTES: usize = 18;

/// A range of a content to be reclaimed once no committed row reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Free {
    /// The node that the content belongs to.
    pub(crate) ino: Ino,
    pub(crate) content: ContentId,
    /// The range, in bytes.
    pub(crate) range: Range<u64>,
}

/// The changes that ops collect and the next batch takes.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// By how much the number of nodes and deliveries that refer to a content changes.
    pub(crate) references: BTreeMap<ContentId, i64>,
    /// Deliveries that are sent, accepted or declined, in order.
    pub(crate) deliveries: Vec<DeliveryEffect>,
    /// Deliveries that lost a node of their record.
    pub(crate) unrecorded: BTreeSet<DeliveryId>,
    /// Contents that were changed, each with the node that it belongs to, if there is one.
    pub(crate) touched: BTreeMap<ContentId, Option<Ino>>,
    /// Contents that were created.
    pub(crate) created: BTreeSet<ContentId>,
    /// Ranges to be reclaimed after the commit.
    pub(crate) frees: Vec<Free>,
    /// Contents that lost an owner, and may have others.
    pub(crate) dropped: BTreeSet<ContentId>,
    /// Contents of which the parts that an earlier batch noted were reclaimed.
    pub(crate) freed: Vec<ContentId>,
    rows: usize,
    bytes: u64,
    /// The sizes of the changed nodes, in order, until `absorb` adds them up.
    sizes: Vec<(Ino, usize)>,
    /// Rows with large attributes, maps or targets, each with the size of these in bytes.
    large: BTreeMap<Ino, usize>,
    held: usize,
}

/// The state that is kept for a batch while it is being committed.
#[derive(Default)]
pub(crate) struct InFlight {
    pub(crate) touched: BTreeMap<ContentId, Option<Ino>>,
    pub(crate) created: BTreeSet<ContentId>,
    pub(crate) stillborn: BTreeSet<ContentId>,
    pub(crate) frees: Vec<Free>,
    /// The room that the session's ops take up, including those of the batch.
    pub(crate) used: Room,
}

impl Pending {
    /// Notes the changes that an op is about to make to `rows`.
    pub(crate) fn note(&mut self, rows: &impl Rows, changes: &Changes) {
        for (ino, node) in &changes.nodes {
            let Loaded::Present(before) = rows.node(*ino) else { continue };
            let after = node.as_ref().and_then(|node| node.sent);
            self.unrecorded.extend(before.sent.filter(|sent| Some(*sent) != after));
        }
        for (content, by) in &changes.references {
            *self.references.entry(*content).or_default() += by;
            // The remaining owners may have less of it.
            if *by < 0 {
                self.dropped.insert(*content);
            }
        }
        self.deliveries.extend(changes.deliveries.iter().cloned());
        self.rows += changes.nodes.len() + changes.entries.len();
        let size = |node: &Option<Arc<Node>>| node.as_deref().map_or(0, own_size);
        self.sizes.extend(changes.nodes.iter().map(|(ino, node)| (*ino, size(node))));
        for effect in &changes.contents {
            if let ContentEffect::Free { content, offset, len } = effect {
                self.note_free(changes, *content, *offset..offset.saturating_add(*len));
            }
        }
    }

    /// Notes the effect that an op is about to have on a content. `changes` are those of the same
    /// op.
    pub(crate) fn touch(&mut self, changes: &Changes, effect: &ContentEffect) {
        let (content, bytes) = match effect {
            ContentEffect::Create { content } => {
                self.created.insert(*content);
                (content, 0)
            }
            ContentEffect::Clone { to, ranges, .. } => {
                self.created.insert(*to);
                (to, ranges.iter().map(|range| range.end - range.start).sum())
            }
            ContentEffect::Write { content, len, .. } => (content, *len),
            ContentEffect::Copy { to, len, .. } => (to, *len),
            ContentEffect::Zero { content, .. } => (content, 0),
            ContentEffect::Free { .. } => return,
        };
        self.touched.insert(*content, owner(changes, *content));
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds the changes collected by later ops.
    pub(crate) fn absorb(&mut self, later: Pending) {
        for (content, by) in later.references {
            *self.references.entry(content).or_default() += by;
        }
        self.deliveries.extend(later.deliveries);
        self.unrecorded.extend(later.unrecorded);
        self.touched.extend(later.touched);
        self.created.extend(later.created);
        self.frees.extend(later.frees);
        self.dropped.extend(later.dropped);
        self.freed.extend(later.freed);
        self.rows += later.rows;
        self.bytes = self.bytes.saturating_add(later.bytes);
        later.sizes.into_iter().for_each(|(ino, bytes)| self.note_large(ino, bytes));
    }

    /// Whether the batch is so large that it should be committed at once.
    pub(crate) fn is_large(&self) -> bool {
        self.rows >= ROWS_LARGE || self.bytes >= BYTES_LARGE || self.held >= HELD_LARGE
    }

    /// Contents that were created and dropped again since the last batch, so that no commit names
    /// them.
    pub(crate) fn stillborn(&self) -> BTreeSet<ContentId> {
        let unused = |content: &&ContentId| self.references.get(content).is_none_or(|by| *by == 0);
        self.created.iter().filter(unused).copied().collect()
    }

    fn note_large(&mut self, ino: Ino, bytes: usize) {
        let bytes = Some(bytes).filter(|bytes| *bytes > HELD_SMALL);
        let before = match bytes {
            Some(bytes) => self.large.insert(ino, bytes),
            None => self.large.remove(&ino),
        };
        self.held = self.held + bytes.unwrap_or(0) - before.unwrap_or(0);
    }

    fn note_free(&mut self, changes: &Changes, content: ContentId, range: Range<u64>) {
        if let Some(ino) = owner(changes, content) {
            self.frees.push(Free { ino, content, range });
        }
    }
}

/// The node that has the content after these changes.
fn owner(changes: &Changes, content: ContentId) -> Option<Ino> {
    let has =
        |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| node.content()) == Some(content);
    changes.nodes.iter().find(|(_, node)| has(node)).map(|(ino, _)| *ino)
}

/// The approximate size of a node's attributes, map and target, in bytes. Only some nodes have
/// these, and they may be large.
pub(crate) fn own_size(node: &Node) -> usize {
    let kind = match &node.kind {
        Kind::File(data) => match &data.extents {
            Extents::Dense => 0,
            Extents::Mapped(runs) => runs.len() * RUN_BYTES,
        },
        Kind::Symlink { target } => target.len(),
        Kind::Directory { .. } | Kind::Special(_) => 0,
    };
    let xattrs = match &node.xattrs {
        Xattrs::All(map) => map.len() * 8 + node.xattrs.bytes() as usize,
        Xattrs::None | Xattrs::LeftOut { .. } => 0,
    };
    kind + xattrs
}
