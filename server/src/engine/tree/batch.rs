//! What a tree changed since it was last given to a commit, as far as its rows don't say it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use xfer_protocol::tree::{
    Changes, ContentEffect, DeliveryEffect, Extents, Kind, Loaded, Node, Room, Rows, Xattrs,
};
use xfer_protocol::{ContentId, DeliveryId, Ino};

/// Rows beyond which a batch is committed before its time.
const ROWS_LARGE: usize = 20_000;

/// Bytes of data beyond which a batch is committed before its time.
const BYTES_LARGE: u64 = 64 << 20;

/// Bytes of attributes, maps and targets in rows beyond which a batch is committed before its time:
/// rows that are not committed can't be unloaded, and a few of these take what thousands of others do.
const HELD_LARGE: usize = 16 << 20;

/// What one row may have of them without being counted, in bytes.
const HELD_SMALL: usize = 1 << 10;

/// What a run of data takes up in a sparse file's map, in bytes.
const RUN_BYTES: usize = 18;

/// A range of a content whose space goes back once it is sure that nothing reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Free {
    /// The node that the content belongs to.
    pub(crate) ino: Ino,
    /// The content.
    pub(crate) content: ContentId,
    /// The range, in bytes.
    pub(crate) range: Range<u64>,
}

/// Collected by applying ops, taken by a commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// How many more nodes and deliveries refer to a content.
    pub(crate) references: BTreeMap<ContentId, i64>,
    /// What becomes of deliveries, in order.
    pub(crate) deliveries: Vec<DeliveryEffect>,
    /// Deliveries that lost a node of their record.
    pub(crate) unrecorded: BTreeSet<DeliveryId>,
    /// Contents that were changed, and the node that each belongs to, if there is one.
    pub(crate) touched: BTreeMap<ContentId, Option<Ino>>,
    /// Contents that came into being.
    pub(crate) created: BTreeSet<ContentId>,
    /// What is to be given back.
    pub(crate) frees: Vec<Free>,
    /// Contents that something has no more, which others may still have.
    pub(crate) dropped: BTreeSet<ContentId>,
    /// What an earlier batch noted as to be given back, and was.
    pub(crate) freed: Vec<ContentId>,
    rows: usize,
    bytes: u64,
    /// How large the nodes are that changed, in order, until that is absorbed.
    sizes: Vec<(Ino, usize)>,
    /// Rows with large attributes, maps or targets, and how many bytes of them.
    large: BTreeMap<Ino, usize>,
    held: usize,
}

/// What waits for a batch that is being committed.
#[derive(Default)]
pub(crate) struct InFlight {
    pub(crate) touched: BTreeMap<ContentId, Option<Ino>>,
    pub(crate) created: BTreeSet<ContentId>,
    pub(crate) stillborn: BTreeSet<ContentId>,
    pub(crate) frees: Vec<Free>,
    /// What the session's ops up to its end take up.
    pub(crate) used: Room,
}

impl Pending {
    /// Notes what an op is about to change in `rows`.
    pub(crate) fn note(&mut self, rows: &impl Rows, changes: &Changes) {
        for (ino, node) in &changes.nodes {
            let Loaded::Present(before) = rows.node(*ino) else { continue };
            let after = node.as_ref().and_then(|node| node.sent);
            self.unrecorded.extend(before.sent.filter(|sent| Some(*sent) != after));
        }
        for (content, by) in &changes.references {
            *self.references.entry(*content).or_default() += by;
            // Whatever else has it from now on: that may be less of it.
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

    /// Notes what an op that changes its nodes so is about to do to a content.
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

    /// Takes over what is collected by ops that come after those of this.
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

    /// Whether so much is collected that it should not wait for more.
    pub(crate) fn is_large(&self) -> bool {
        self.rows >= ROWS_LARGE || self.bytes >= BYTES_LARGE || self.held >= HELD_LARGE
    }

    /// Contents that came and went: no commit ever hears of them.
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

/// What only some nodes have, and as much as they like: about its size in bytes.
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
