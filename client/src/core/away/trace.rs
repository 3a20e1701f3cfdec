//! The changes that are not durable, told so that they can be understood without the replica: each
//! with the nodes that it is about, and for nodes that are older than these changes, where they
//! were.
//!
//! Nothing is read from the server here. A node whose directory is not loaded has no place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xfer_protocol::tree::{Action, Loaded, Op, Rows};
use xfer_protocol::{Ino, Name, Seq, Timestamp};

use crate::core::state::Core;

/// The bytes of a longer copy are not told, since they would take too much memory.
const COPY_BYTES_MAX: u64 = 16 << 20;

/// A part of the trace. The parts are in order: a node comes before the first change of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trace {
    /// A node that is older than the changes.
    Node(Whereabouts),
    /// A change.
    Change(Change),
}

impl Trace {
    /// The change, if it is one.
    pub fn change(&self) -> Option<&Change> {
        match self {
            Trace::Change(change) => Some(change),
            Trace::Node(_) => None,
        }
    }
}

/// A directory, and a name in it.
pub type Place = (Ino, Name);

/// A node as it was before the first change of it that is not durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Its number.
    pub ino: Ino,
    /// The names that it had, each with its directory, as far as they are known.
    pub places: Vec<Place>,
    /// Whether it has no name any more.
    pub is_orphan: bool,
}

/// A change that is not durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its position in the log.
    pub seq: Seq,
    /// The op.
    pub op: Op,
    /// The nodes that it is about.
    pub subjects: Subjects,
    /// The data of a write; for a copy, the bytes that the target has, if they are known here.
    pub payload: Bytes,
}

/// The nodes that an op is about: the one that it changes, makes, moves or removes; and for a
/// rename, the one that was at the target.
pub type Subjects = [Option<Subject>; 2];

/// A node that an op is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Its number.
    pub ino: Ino,
    /// When anything about it had last changed before the op; `None` if the op made it.
    pub changed: Option<Timestamp>,
    /// Whether it is a directory.
    pub is_directory: bool,
}

impl Core {
    /// The nodes that an op will be about. To be called before the op is applied.
    pub(in crate::core) fn subjects(&self, action: &Action) -> Subjects {
        let known = |ino| {
            let node = self.known_node(ino);
            let is_directory = node.as_ref().is_some_and(|node| node.is_directory());
            Some(Subject { ino, changed: node.map(|node| node.ctime), is_directory })
        };
        let new =
            |ino: &Ino, is_directory| Some(Subject { ino: *ino, changed: None, is_directory });
        let at = |parent, name| match self.replica.table.entry(parent, name) {
            Loaded::Present(ino) => known(ino),
            Loaded::Absent | Loaded::Unknown => None,
        };
        match action {
            Action::Create { ino, .. }
            | Action::Symlink { ino, .. }
            | Action::Mknod { ino, .. } => [new(ino, false), None],
            Action::Mkdir { ino, .. } | Action::Mailbox { ino, .. } => [new(ino, true), None],
            Action::Link { ino, .. }
            | Action::SetAttr { ino, .. }
            | Action::SetXattr { ino, .. }
            | Action::RemoveXattr { ino, .. }
            | Action::Write { ino, .. }
            | Action::Fallocate { ino, .. }
            | Action::CopyRange { to: ino, .. }
            | Action::ForgetOrphan { ino }
            | Action::Revise { ino } => [known(*ino), None],
            Action::Unlink { parent, name } | Action::Rmdir { parent, name } => {
                [at(*parent, name), None]
            }
            Action::Rename { from, to, .. } => [at(from.0, &from.1), at(to.0, &to.1)],
            Action::Send { .. } | Action::Accept { .. } | Action::Decline { .. } => [None, None],
        }
    }

    /// The changes that are not durable.
    pub fn trace(&mut self) -> Vec<Trace> {
        self.trace_after(Seq::default(), &BTreeSet::new()).0
    }

    /// Those of them after `after`, and the nodes that need no description any more after these.
    /// `described` has those that need none before.
    pub(in crate::core) fn trace_after(
        &mut self,
        after: Seq,
        described: &BTreeSet<Ino>,
    ) -> (Vec<Trace>, BTreeSet<Ino>) {
        let mut changes: Vec<Change> = self.uplink.log.changes(after).collect();
        for change in &mut changes {
            self.fill_in_copy(change);
        }
        let mut telling = Telling::new(self, &changes, described);
        let mut trace = Vec::new();
        for change in changes {
            telling.describe(&change, &mut trace);
            trace.push(Trace::Change(change));
        }
        (trace, telling.newly_described)
    }

    /// Adds the bytes of a copy that are known. They may be those of a later change; then that
    /// change sets them again.
    fn fill_in_copy(&mut self, change: &mut Change) {
        let Action::CopyRange { to, to_offset, len, .. } = change.op.action else { return };
        let Some(node) = self.known_node(to) else { return };
        let Some(file) = node.file().filter(|_| len <= COPY_BYTES_MAX) else { return };
        // What is a hole now, or beyond the end, is zeros, or is set by a later change.
        let range = to_offset..to_offset.saturating_add(len).min(file.size);
        let runs = file.extents.data_in(file.size, range);
        let cache = &mut self.data.cache;
        let is_known = |run: &Range<u64>| {
            file.content.is_some_and(|content| cache.missing(content, run.clone()).is_empty())
        };
        if !runs.iter().all(is_known) {
            return;
        }
        let mut bytes = vec![0; len as usize];
        for run in runs {
            let Some(content) = file.content else { return };
            let part = (run.start - to_offset) as usize..(run.end - to_offset) as usize;
            if !cache.read(content, run, &mut bytes[part]) {
                return;
            }
        }
        change.payload = bytes.into();
    }

    /// The present places of a node. One that has a single name is looked for in the directory where
    /// the kernel last found it, and only then everywhere.
    fn places(&self, ino: Ino) -> Vec<Place> {
        let table = &self.replica.table;
        let Some(node) = self.known_node(ino) else { return Vec::new() };
        let parent = node.parent().or(self.handles.kernel.directory_of(ino));
        if let Some(parent) = parent.filter(|_| node.is_directory() || node.nlink == 1) {
            let mut entries = table.known_entries(parent, None);
            let found = entries.find(|(_, at)| *at == Some(ino));
            if let Some((name, _)) = found {
                return vec![(parent, name.clone())];
            }
        }
        table.find_entries(ino).collect()
    }
}

/// The telling of some changes.
struct Telling<'a> {
    core: &'a Core,
    described: &'a BTreeSet<Ino>,
    newly_described: BTreeSet<Ino>,
    /// The places that these changes are about.
    touched: BTreeSet<Place>,
    /// The nodes that had those before, each with its places.
    before: BTreeMap<Ino, Vec<Place>>,
}

impl<'a> Telling<'a> {
    fn new(core: &'a Core, changes: &[Change], described: &'a BTreeSet<Ino>) -> Telling<'a> {
        let (mut touched, mut before) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        for change in changes {
            for (place, subject) in change.places().into_iter().flatten() {
                let is_first = touched.insert(place.clone());
                if let Some(subject) = subject.filter(|_| is_first) {
                    before.entry(subject.ino).or_default().push(place);
                }
            }
        }
        Telling { core, described, newly_described: BTreeSet::new(), touched, before }
    }

    /// Describes the nodes that a change is about, and their directories.
    fn describe(&mut self, change: &Change, trace: &mut Vec<Trace>) {
        for ((parent, _), _) in change.places().into_iter().flatten() {
            self.describe_node(parent, trace);
        }
        for subject in change.subjects.into_iter().flatten() {
            if subject.changed.is_some() {
                self.describe_node(subject.ino, trace);
            } else {
                self.newly_described.insert(subject.ino);
            }
        }
    }

    fn describe_node(&mut self, ino: Ino, trace: &mut Vec<Trace>) {
        let is_described = ino == Ino::ROOT || self.described.contains(&ino);
        if is_described || !self.newly_described.insert(ino) {
            return;
        }
        let mut places = self.before.remove(&ino).unwrap_or_default();
        let present = self.core.places(ino);
        places.extend(present.into_iter().filter(|place| !self.touched.contains(place)));
        for (parent, _) in &places {
            self.describe_node(*parent, trace);
        }
        let is_orphan = self.core.known_node(ino).is_none_or(|node| node.nlink == 0);
        trace.push(Trace::Node(Whereabouts { ino, places, is_orphan }));
    }
}

impl Change {
    /// The nodes that it is about, and the directories that it is made in.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Ino> {
        let subjects = self.subjects.into_iter().flatten().map(|subject| subject.ino);
        subjects.chain(self.places().into_iter().flatten().map(|((directory, _), _)| directory))
    }

    /// The places that it is about, each with the node that had it before.
    fn places(&self) -> [Option<(Place, Option<Subject>)>; 2] {
        let [first, second] = self.subjects;
        let at = |parent: &Ino, name: &Name, had| Some(((*parent, name.clone()), had));
        match &self.op.action {
            Action::Create { parent, name, .. }
            | Action::Mkdir { parent, name, .. }
            | Action::Symlink { parent, name, .. }
            | Action::Mknod { parent, name, .. }
            | Action::Link { parent, name, .. }
            | Action::Accept { parent, name, .. } => [at(parent, name, None), None],
            Action::Mailbox { user, .. } => [at(&Ino::OUTBOX, user, None), None],
            Action::Unlink { parent, name } | Action::Rmdir { parent, name } => {
                [at(parent, name, first), None]
            }
            Action::Rename { from, to, .. } => {
                [at(&from.0, &from.1, first), at(&to.0, &to.1, second)]
            }
            Action::SetAttr { .. }
            | Action::SetXattr { .. }
            | Action::RemoveXattr { .. }
            | Action::Write { .. }
            | Action::Fallocate { .. }
            | Action::CopyRange { .. }
            | Action::ForgetOrphan { .. }
            | Action::Revise { .. }
            | Action::Send { .. }
            | Action::Decline { .. } => [None, None],
        }
    }
}
