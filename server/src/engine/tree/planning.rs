//! Planning ops: the changes to the table and the effects on contents of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::tree::{
    Action, Changes, ContentEffect, Loaded, Need, Node, Op, PlanError, Room, Rows, STATE_XATTR,
    Usage, is_for_programs, plan,
};
use xfer_protocol::{ContentId, Errno, Ino, Name, Seq};
use xfer_store::{Effect, Undone};

use super::Tree;
use crate::engine::tree::batch::Pending;
use crate::engine::tree::halt::Halt;
use crate::engine::tree::numbers::Numbers;

/// The number of needs at which no more are added for later ops.
const FORESEEN_MAX: usize = 256;

/// Why an op could not be planned.
#[derive(Debug)]
pub(crate) enum Unplanned {
    /// These rows must be loaded first.
    Missing(Vec<Need>),
    /// With this op, the session's ops take up this much room, which is more than its limit.
    Crowded(Room),
    /// The op changes a content in place from which an earlier op copies. That one must be durable
    /// first: if it had to be applied again, it would copy what this op wrote.
    Unsettled,
    /// The op can never be planned.
    Halted(Halt),
}

/// Ops that are planned and not applied yet.
#[derive(Default)]
pub(crate) struct Planned {
    /// The planned ops, each with the end of its effects in `effects`.
    ops: Vec<(Seq, usize)>,
    effects: Vec<Effect>,
    /// The changes that these ops add to the next batch.
    pub(crate) pending: Pending,
    /// The rows before these ops changed them, in the order of the changes.
    nodes: Vec<(Ino, Option<Arc<Node>>)>,
    entries: Vec<(Ino, Name, Option<Ino>)>,
    usage: Option<Usage>,
    /// The numbers that were free before these ops.
    ids: Option<Numbers>,
}

impl Tree {
    /// Plans the next op, with its data.
    ///
    /// # Errors
    /// If rows or room are missing, an earlier op must be durable first, or the op is refused. Then
    /// nothing has changed. If it is not refused, the op can be planned again later.
    pub(crate) fn plan(&mut self, op: &Op, data: &Bytes) -> Result<(), Unplanned> {
        let seq = self.last_planned().next();
        let refused = |errno| Unplanned::Halted(Halt::Refused { seq, errno });
        self.check(op).map_err(refused)?;
        let changes = match plan(&self.table, op) {
            Ok(changes) => changes,
            Err(PlanError::Refused(errno)) => return Err(refused(errno)),
            Err(PlanError::Need(need)) => return Err(Unplanned::Missing(self.with_it(need, op))),
        };
        let room = Room::of(&changes, self.table.usage());
        if let Some(wanted) = self.room.excess(room) {
            return Err(Unplanned::Crowded(wanted));
        }
        if changes.contents.iter().any(|effect| self.is_unsettled(effect)) {
            return Err(Unplanned::Unsettled);
        }
        let effects = effects(&changes, data).map_err(Unplanned::Halted)?;
        let ids = self.planned.ops.is_empty().then(|| self.ids.clone());
        self.ids.admit(&self.table, &changes).map_err(refused)?;
        self.planned.ids = ids.or_else(|| self.planned.ids.take());
        self.room.admit(room);
        self.remember(&changes);
        let planned = &mut self.planned;
        changes.contents.iter().for_each(|effect| planned.pending.touch(&changes, effect));
        planned.pending.note(&self.table, &changes);
        planned.effects.extend(effects);
        planned.ops.push((seq, planned.effects.len()));
        self.copied.extend(changes.contents.iter().filter_map(source).map(|from| (from, seq)));
        self.table.apply(&changes, seq);
        Ok(())
    }

    /// Whether an effect changes a content in place from which an op that is not durable copied.
    fn is_unsettled(&self, effect: &ContentEffect) -> bool {
        match effect {
            ContentEffect::Write { content, .. }
            | ContentEffect::Zero { content, .. }
            | ContentEffect::Copy { to: content, .. } => self.copied.contains_key(content),
            ContentEffect::Create { .. }
            | ContentEffect::Clone { .. }
            | ContentEffect::Free { .. } => false,
        }
    }

    /// Returns the reason to halt before the next op, if the disk has no room for it.
    pub(crate) fn no_room(&self) -> Halt {
        Halt::Full { seq: self.last_planned().next() }
    }

    /// Takes the effects on contents of the planned ops.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.planned.effects)
    }

    /// Notes that the effects of the planned ops are performed, so that these ops now count as
    /// applied. Returns their number.
    pub(crate) fn apply(&mut self) -> usize {
        self.applied = self.last_planned();
        let planned = std::mem::take(&mut self.planned);
        self.pending.absorb(planned.pending);
        planned.ops.len()
    }

    /// Takes back all planned ops after an effect could not be performed. Some of them may have
    /// changed contents. Returns the reason to halt, with the op that the effect belongs to.
    pub(crate) fn take_back(&mut self, undone: Undone) -> Halt {
        let last = self.last_planned();
        let planned = std::mem::take(&mut self.planned);
        // Collected in reverse, so that the oldest version of each row wins.
        let nodes: BTreeMap<_, _> = planned.nodes.into_iter().rev().collect();
        let entries = planned.entries.into_iter().rev();
        let entries: BTreeMap<_, _> = entries.map(|(at, name, ino)| ((at, name), ino)).collect();
        let before = Changes {
            nodes: nodes.into_iter().collect(),
            entries: entries.into_iter().map(|((at, name), ino)| (at, name, ino)).collect(),
            usage: planned.usage.unwrap_or(self.table.usage()),
            ..Changes::default()
        };
        self.table.apply(&before, last);
        // The last batch says which numbers are used, and a session that goes on sends these ops again.
        if let Some(ids) = planned.ids {
            self.ids = ids;
        }
        let Pending { touched, created, .. } = planned.pending;
        self.torn.extend(touched.into_iter().filter_map(|(content, ino)| Some((content, ino?))));
        self.unwanted.extend(created);
        let culprit = planned.ops.iter().find(|(_, end)| undone.at < *end);
        Halt::Storage(undone.error).of_op(culprit.map_or(last, |(seq, _)| *seq))
    }

    /// Adds to `needs` the rows that later ops will need, as far as that is foreseeable, so that
    /// all are loaded together.
    pub(crate) fn foresee(&self, ops: &[Op], needs: Vec<Need>) -> Vec<Need> {
        let mut known: BTreeSet<Need> = needs.iter().cloned().collect();
        let mut needs = needs;
        let mut add = |need: Need| {
            if known.insert(need.clone()) {
                needs.push(need);
            }
            needs.len() >= FORESEEN_MAX
        };
        for op in ops {
            let (nodes, entries) = named(&op.action);
            for ino in nodes.into_iter().flatten() {
                // A node with a free number will be created by an earlier op.
                let is_known = self.ids.is_free(ino.0) || self.table.node(ino) != Loaded::Unknown;
                if !is_known && add(Need::Node(ino)) {
                    return needs;
                }
            }
            for (parent, name) in entries.into_iter().flatten() {
                let is_known =
                    self.ids.is_free(parent.0) || self.table.entry(parent, name) != Loaded::Unknown;
                if !is_known && add(Need::Entry(parent, name.clone())) {
                    return needs;
                }
            }
        }
        needs
    }

    fn last_planned(&self) -> Seq {
        self.planned.ops.last().map_or(self.applied, |(seq, _)| *seq)
    }

    /// Keeps the present version of the rows that an op is about to change.
    fn remember(&mut self, changes: &Changes) {
        self.planned.usage.get_or_insert(self.table.usage());
        for (ino, _) in &changes.nodes {
            let before = match self.table.node(*ino) {
                Loaded::Present(node) => Some(node),
                Loaded::Absent | Loaded::Unknown => None,
            };
            self.planned.nodes.push((*ino, before));
        }
        for (parent, name, _) in &changes.entries {
            let before = match self.table.entry(*parent, name) {
                Loaded::Present(ino) => Some(ino),
                Loaded::Absent | Loaded::Unknown => None,
            };
            self.planned.entries.push((*parent, name.clone(), before));
        }
    }

    /// Checks the op against facts that the rules can't know.
    fn check(&self, op: &Op) -> Result<(), Errno> {
        match &op.action {
            Action::Send { from, .. } if *from != self.user => Err(Errno::EINVAL),
            Action::SetXattr { name, .. }
                if name.starts_with(b"user.xfer.")
                    && name != STATE_XATTR
                    && !is_for_programs(name) =>
            {
                Err(Errno::EPERM)
            }
            Action::Accept { first, .. } if !self.ids.is_free(first.0) => Err(Errno::EINVAL),
            Action::Send { .. }
            | Action::SetXattr { .. }
            | Action::Accept { .. }
            | Action::Create { .. }
            | Action::Mkdir { .. }
            | Action::Symlink { .. }
            | Action::Mknod { .. }
            | Action::Link { .. }
            | Action::Unlink { .. }
            | Action::Rmdir { .. }
            | Action::Rename { .. }
            | Action::SetAttr { .. }
            | Action::RemoveXattr { .. }
            | Action::Write { .. }
            | Action::Fallocate { .. }
            | Action::CopyRange { .. }
            | Action::ForgetOrphan { .. }
            | Action::Mailbox { .. }
            | Action::Revise { .. }
            | Action::Decline { .. } => Ok(()),
        }
    }

    /// Returns the rows to load if the rules miss one for an op.
    fn with_it(&self, need: Need, op: &Op) -> Vec<Need> {
        match (&need, &op.action) {
            // The rules start over for each row that they miss. So everything that is sent is
            // loaded ahead, one level of directories at a time.
            (Need::Children(root), Action::Send { .. }) => {
                let unlisted = self.unlisted(*root);
                if unlisted.is_empty() { vec![need] } else { unlisted }
            }
            (
                Need::Children(_)
                | Need::Node(_)
                | Need::Attributes(_)
                | Need::Entry(..)
                | Need::Delivery(_),
                _,
            ) => vec![need],
        }
    }

    /// Returns the directories nearest to `root` whose entries are not all loaded, up to the most
    /// items that a delivery can hold.
    fn unlisted(&self, root: Ino) -> Vec<Need> {
        let mut waiting = VecDeque::from([root]);
        let (mut unlisted, mut count) = (Vec::new(), 0);
        while let Some(directory) = waiting.pop_front().filter(|_| count <= DELIVERY_ITEMS_MAX) {
            let Some(entries) = self.table.children(directory) else {
                // The rules never ask for a root with more entries than a delivery can hold, but a
                // directory below it may have more.
                let held = self.directory(directory).map_or(0, |node| node.entries());
                if directory == root || held <= DELIVERY_ITEMS_MAX as u64 {
                    count += held as usize;
                    unlisted.push(Need::Children(directory));
                }
                continue;
            };
            count += entries.len();
            let inner = entries.into_iter().map(|(_, ino)| ino);
            waiting.extend(inner.filter(|ino| self.directory(*ino).is_some()));
        }
        unlisted
    }

    fn directory(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.table.node(ino) {
            Loaded::Present(node) => Some(node).filter(|node| node.is_directory()),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }
}

/// The content from which an effect copies.
fn source(effect: &ContentEffect) -> Option<ContentId> {
    match effect {
        ContentEffect::Copy { from, .. } | ContentEffect::Clone { from, .. } => Some(*from),
        ContentEffect::Create { .. }
        | ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Free { .. } => None,
    }
}

/// Returns the effects that an op has on contents now. Space that it makes unreachable is reclaimed
/// after the commit.
fn effects(changes: &Changes, data: &Bytes) -> Result<Vec<Effect>, Halt> {
    let mut effects = Vec::with_capacity(changes.contents.len());
    for effect in &changes.contents {
        effects.push(match effect {
            ContentEffect::Create { content } => Effect::Create { content: *content },
            ContentEffect::Write { content, offset, len } => {
                if (data.len() as u64) < *len {
                    return Err(Halt::Protocol("a write without its data"));
                }
                let data = data.slice(..*len as usize);
                Effect::Write { content: *content, offset: *offset, data }
            }
            ContentEffect::Zero { content, offset, len } => {
                Effect::Zero { content: *content, range: *offset..offset.saturating_add(*len) }
            }
            ContentEffect::Clone { from, to, ranges } => {
                Effect::Clone { from: *from, to: *to, ranges: ranges.clone() }
            }
            ContentEffect::Copy { from, from_offset, to, to_offset, len } => {
                Effect::Copy { from: (*from, *from_offset), to: (*to, *to_offset), len: *len }
            }
            ContentEffect::Free { .. } => continue,
        });
    }
    Ok(effects)
}

/// The nodes and entries that an action names.
type Named<'a> = ([Option<Ino>; 2], [Option<(Ino, &'a Name)>; 2]);

fn named(action: &Action) -> Named<'_> {
    let at = |parent: Ino, name| ([Some(parent), None], [Some((parent, name)), None]);
    match action {
        Action::Create { parent, name, .. }
        | Action::Mkdir { parent, name, .. }
        | Action::Symlink { parent, name, .. }
        | Action::Mknod { parent, name, .. }
        | Action::Unlink { parent, name }
        | Action::Rmdir { parent, name }
        | Action::Accept { parent, name, .. } => at(*parent, name),
        Action::Link { ino, parent, name } => {
            ([Some(*parent), Some(*ino)], [Some((*parent, name)), None])
        }
        Action::Rename { from, to, .. } => {
            let entries = [Some((from.0, &from.1)), Some((to.0, &to.1))];
            ([Some(from.0), Some(to.0)], entries)
        }
        Action::SetAttr { ino, .. }
        | Action::SetXattr { ino, .. }
        | Action::RemoveXattr { ino, .. }
        | Action::Write { ino, .. }
        | Action::Fallocate { ino, .. }
        | Action::ForgetOrphan { ino }
        | Action::Revise { ino } => ([Some(*ino), None], [None, None]),
        Action::CopyRange { from, to, .. } => ([Some(*from), Some(*to)], [None, None]),
        Action::Mailbox { user, .. } => at(Ino::OUTBOX, user),
        Action::Send { to, .. } => at(Ino::OUTBOX, to),
        Action::Decline { .. } => ([None, None], [None, None]),
    }
}
