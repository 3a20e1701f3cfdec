//! An op being worked out: the loaded rows with the op's own changes laid over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Changes, ContentEffect, DeliveryEffect, FileData, Kind, Loaded, Need, Node, PlanError, Rows,
    Usage,
};
use crate::limits::BLOCK_BYTES;
use crate::{ContentId, DeliveryId, Errno, Ino, Name, Timestamp};

/// Changes in the making. Dropping them leaves the rows as they were. The functions in `rules` call
/// this `d`.
pub(super) struct Staging<'a> {
    rows: &'a dyn Rows,
    /// When the op was made.
    pub(super) time: Timestamp,
    // Sorted maps, since one op may send a whole directory.
    nodes: BTreeMap<Ino, Option<Arc<Node>>>,
    entries: BTreeMap<(Ino, Name), Option<Ino>>,
    contents: Vec<ContentEffect>,
    references: BTreeMap<ContentId, i64>,
    deliveries: Vec<DeliveryEffect>,
    quota: super::Quota,
}

impl<'a> Staging<'a> {
    pub(super) fn new(rows: &'a dyn Rows, time: Timestamp) -> Staging<'a> {
        Staging {
            rows,
            time,
            nodes: BTreeMap::new(),
            entries: BTreeMap::new(),
            contents: Vec::new(),
            references: BTreeMap::new(),
            deliveries: Vec::new(),
            quota: rows.quota(),
        }
    }

    /// The node; an error if it does not exist.
    pub(super) fn node(&self, ino: Ino) -> Result<Arc<Node>, PlanError> {
        if let Some(node) = self.nodes.get(&ino) {
            return node.clone().ok_or(Errno::ENOENT.into());
        }
        match self.rows.node(ino) {
            Loaded::Present(node) => Ok(node),
            Loaded::Absent => Err(Errno::ENOENT.into()),
            Loaded::Unknown => Err(PlanError::Need(Need::Node(ino))),
        }
    }

    /// The node, for changing; an error if it does not exist.
    pub(super) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, PlanError> {
        if !self.nodes.contains_key(&ino) {
            let node = self.node(ino)?;
            self.nodes.insert(ino, Some(node));
        }
        match self.nodes.get_mut(&ino) {
            Some(Some(node)) => Ok(Arc::make_mut(node)),
            Some(None) | None => Err(Errno::ENOENT.into()),
        }
    }

    /// The directory; an error unless it is one and still has a name (or is the root).
    pub(super) fn directory(&self, ino: Ino) -> Result<Arc<Node>, PlanError> {
        let node = self.node(ino)?;
        match node.nlink {
            _ if !node.is_directory() => Err(Errno::ENOTDIR.into()),
            0 => Err(Errno::ENOENT.into()),
            _ => Ok(node),
        }
    }

    /// The node number in an entry, if the entry exists.
    pub(super) fn entry(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, PlanError> {
        if let Some(ino) = self.entries.get(&(parent, name.clone())) {
            return Ok(*ino);
        }
        match self.rows.entry(parent, name) {
            Loaded::Present(ino) => Ok(Some(ino)),
            Loaded::Absent => Ok(None),
            // A directory that this op made contains only the entries that this op added.
            Loaded::Unknown if self.is_new(parent) => Ok(None),
            Loaded::Unknown => Err(PlanError::Need(Need::Entry(parent, name.clone()))),
        }
    }

    /// Whether this op makes the node.
    fn is_new(&self, ino: Ino) -> bool {
        self.nodes.contains_key(&ino) && !matches!(self.rows.node(ino), Loaded::Present(_))
    }

    /// All entries of a directory, which this op must not have changed.
    pub(super) fn children(&self, parent: Ino) -> Result<Vec<(Name, Ino)>, PlanError> {
        self.rows.children(parent).ok_or(PlanError::Need(Need::Children(parent)))
    }

    pub(super) fn delivery(&self, id: DeliveryId) -> Result<Arc<super::Delivery>, PlanError> {
        match self.rows.delivery(id) {
            Loaded::Present(delivery) => Ok(delivery),
            Loaded::Absent => Err(Errno::ENOENT.into()),
            Loaded::Unknown => Err(PlanError::Need(Need::Delivery(id))),
        }
    }

    /// Adds a new node. A number that is in use is the client's fault.
    pub(super) fn insert(&mut self, ino: Ino, node: Node) -> Result<(), PlanError> {
        match self.rows.node(ino) {
            Loaded::Present(_) => return Err(Errno::EINVAL.into()),
            // Numbers are granted only once, so a number that was never loaded is unused.
            Loaded::Absent | Loaded::Unknown => {}
        }
        match self.nodes.insert(ino, Some(Arc::new(node))) {
            Some(_) => Err(Errno::EINVAL.into()),
            None => Ok(()),
        }
    }

    /// Removes a node for good.
    pub(super) fn remove(&mut self, ino: Ino) -> Result<(), PlanError> {
        self.node(ino)?;
        self.nodes.insert(ino, None);
        Ok(())
    }

    /// Makes `parent/name` refer to `ino`. The caller has made sure that the entry does not exist.
    pub(super) fn enter(&mut self, parent: Ino, name: &Name, ino: Ino) -> Result<(), PlanError> {
        self.set_entry(parent, name, Some(ino));
        self.count_entry(parent, 1, name)
    }

    /// Removes the entry `parent/name`. The caller has made sure that it exists.
    pub(super) fn leave(&mut self, parent: Ino, name: &Name) -> Result<(), PlanError> {
        self.set_entry(parent, name, None);
        self.count_entry(parent, -1, name)
    }

    fn set_entry(&mut self, parent: Ino, name: &Name, ino: Option<Ino>) {
        self.entries.insert((parent, name.clone()), ino);
    }

    fn count_entry(&mut self, parent: Ino, by: i64, name: &Name) -> Result<(), PlanError> {
        let time = self.time;
        let node = self.node_mut(parent)?;
        node.mtime = time;
        node.ctime = time;
        match &mut node.kind {
            Kind::Directory { entries, name_bytes, .. } => {
                let bytes = by * name.as_bytes().len() as i64;
                *entries = entries.checked_add_signed(by).ok_or(Errno::EIO)?;
                *name_bytes = name_bytes.checked_add_signed(bytes).ok_or(Errno::EIO)?;
                Ok(())
            }
            Kind::File(_) | Kind::Symlink { .. } | Kind::Special(_) => Err(Errno::ENOTDIR.into()),
        }
    }

    /// The data of a regular file, for changing.
    pub(super) fn file_mut(&mut self, ino: Ino) -> Result<&mut FileData, PlanError> {
        match &mut self.node_mut(ino)?.kind {
            Kind::File(data) => Ok(data),
            Kind::Directory { .. } => Err(Errno::EISDIR.into()),
            Kind::Symlink { .. } | Kind::Special(_) => Err(Errno::EINVAL.into()),
        }
    }

    pub(super) fn content(&mut self, effect: ContentEffect) {
        self.contents.push(effect);
    }

    /// Counts references to a content from deliveries; those from nodes are counted at the end.
    pub(super) fn refer(&mut self, content: ContentId, by: i64) {
        *self.references.entry(content).or_default() += by;
    }

    pub(super) fn deliver(&mut self, effect: DeliveryEffect) {
        self.deliveries.push(effect);
    }

    /// Marks the op as an arrival: it may not use the part of the quota kept for the recipient.
    pub(super) fn is_arrival(&mut self) {
        self.quota = self.rows.quota().for_arrivals();
    }

    /// Finishes the changes, or refuses with `EDQUOT` if they grow past the quota.
    pub(super) fn finish(self) -> Result<Changes, PlanError> {
        let changes = self.finish_beyond_quota();
        let (before, after, quota) = (changes.0, changes.1.usage, changes.2);
        let grew_past = |before: u64, after: u64, quota: u64| after > before && after > quota;
        if grew_past(before.bytes, after.bytes, quota.bytes)
            || grew_past(before.nodes, after.nodes, quota.nodes)
        {
            return Err(Errno::EDQUOT.into());
        }
        Ok(changes.1)
    }

    fn finish_beyond_quota(mut self) -> (Usage, Changes, super::Quota) {
        let before = self.rows.usage();
        let mut usage = before;
        for (ino, new) in &self.nodes {
            let old = match self.rows.node(*ino) {
                Loaded::Present(old) => Some(old),
                Loaded::Absent | Loaded::Unknown => None,
            };
            let charge = |node: &Option<Arc<Node>>| node.as_ref().map_or(0, |node| node.charge());
            let content = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| node.content());
            usage.bytes = usage.bytes.saturating_sub(charge(&old)).saturating_add(charge(new));
            usage.nodes =
                usage.nodes.saturating_sub(old.is_some().into()) + u64::from(new.is_some());
            let (old, new) = (content(&old), content(new));
            if old != new {
                old.into_iter().for_each(|id| *self.references.entry(id).or_default() -= 1);
                new.into_iter().for_each(|id| *self.references.entry(id).or_default() += 1);
            }
        }
        self.references.retain(|_, by| *by != 0);
        let changes = Changes {
            nodes: self.nodes.into_iter().collect(),
            entries: self.entries.into_iter().map(|((p, name), ino)| (p, name, ino)).collect(),
            usage,
            contents: self.contents,
            references: self.references.into_iter().collect(),
            deliveries: self.deliveries,
        };
        (before, changes, self.quota)
    }
}

/// The rest of the first and last blocks of `start..end`: before it, and after it.
pub(super) fn edges(start: u64, end: u64) -> [std::ops::Range<u64>; 2] {
    let first = start / BLOCK_BYTES * BLOCK_BYTES;
    let last = end.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
    [first..start, end..last]
}
