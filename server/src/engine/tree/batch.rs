//! What a tree changed since it was last given to a commit, as far as its rows don't say it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
pub(super) struct Free {
    /// The node that the content belongs to.
    pub(super) ino: Ino,
    /// The content.
    pub(super) content: ContentId,
    /// The range, in bytes.
    pub(super) range: Range<u64>,
}

/// Collected by applying ops, taken by a commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// How many more nodes and deliveries refer to a content.
    pub(super) references: BTreeMap<ContentId, i64>,
    /// What becomes of deliveries, in order.
    pub(super) deliveries: Vec<DeliveryEffect>,
    /// Deliveries that lost a node of their record.
    pub(super) unrecorded: BTreeSet<DeliveryId>,
    /// Contents that were changed, and the node that each belongs to, if there is one.
    pub(super) touched: HashMap<ContentId, Option<Ino>>,
    /// Contents that came into being.
    pub(super) created: HashSet<ContentId>,
    /// What is to be given back.
    pub(super) frees: Vec<Free>,
    /// Contents that something has no more, which others may still have.
    pub(super) dropped: BTreeSet<ContentId>,
    /// What an earlier batch noted as to be given back, and was.
    pub(super) freed: Vec<ContentId>,
    rows: usize,
    bytes: u64,
    /// Rows with large attributes, maps or targets, and how many bytes of them.
    large: HashMap<Ino, usize>,
    held: usize,
}

/// What waits for a batch that is being committed.
#[derive(Default)]
pub(super) struct InFlight {
    pub(super) touched: HashMap<ContentId, Option<Ino>>,
    pub(super) created: HashSet<ContentId>,
    pub(super) stillborn: HashSet<ContentId>,
    pub(super) frees: Vec<Free>,
    /// What the session's ops up to its end take up.
    pub(super) used: Room,
}

impl Pending {
    /// Notes what an op is about to change in `rows`.
    pub(super) fn note(&mut self, rows: &impl Rows, changes: &Changes) {
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
        changes.nodes.iter().for_each(|(ino, node)| self.note_size(*ino, node.as_deref()));
        for effect in &changes.contents {
            if let ContentEffect::Free { content, offset, len } = effect {
                self.note_free(changes, *content, *offset..offset.saturating_add(*len));
            }
        }
    }

    /// Notes that a content is about to be changed by so many bytes, for an op that changes its node so.
    pub(super) fn touch(&mut self, changes: &Changes, content: ContentId, bytes: u64) {
        self.touched.insert(content, owner(changes, content));
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Those of the contents that were changed which belong to nodes that an op changes so.
    pub(super) fn owned_by<'a>(
        &'a self,
        changes: &'a Changes,
    ) -> impl Iterator<Item = (ContentId, Ino)> + 'a {
        let nodes =
            changes.nodes.iter().filter_map(|(ino, node)| Some((node.as_ref()?.content()?, *ino)));
        nodes.filter(|(content, _)| self.touched.contains_key(content))
    }

    /// Whether so much is collected that it should not wait for more.
    pub(super) fn is_large(&self) -> bool {
        self.rows >= ROWS_LARGE || self.bytes >= BYTES_LARGE || self.held >= HELD_LARGE
    }

    /// Contents that came and went: no commit ever hears of them.
    pub(super) fn stillborn(&self) -> HashSet<ContentId> {
        let unused = |content: &&ContentId| self.references.get(content).is_none_or(|by| *by == 0);
        self.created.iter().filter(unused).copied().collect()
    }

    fn note_size(&mut self, ino: Ino, node: Option<&Node>) {
        let bytes = Some(node.map_or(0, own_size)).filter(|bytes| *bytes > HELD_SMALL);
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
pub(super) fn own_size(node: &Node) -> usize {
    let kind = match &node.kind {
        Kind::File(data) => match &data.extents {
            Extents::Dense => 0,
            Extents::Mapped(runs) => runs.len() * RUN_BYTES,
        },
        Kind::Symlink { target } => target.len(),
        Kind::Directory { .. }
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharDevice { .. }
        | Kind::BlockDevice { .. } => 0,
    };
    let xattrs = match &node.xattrs {
        Xattrs::All(map) => map.len() * 8 + node.xattrs.bytes() as usize,
        Xattrs::None | Xattrs::LeftOut { .. } => 0,
    };
    kind + xattrs
}
