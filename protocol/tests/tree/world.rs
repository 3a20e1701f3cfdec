//! A tree on the rules, completely loaded, and its bytes.

use std::collections::BTreeMap;

use xfer_protocol::tree::{
    Action, Changes, FileData, Kind, Loaded, Node, Op, PlanError, Quota, Rows, SpecialKind, Table,
    Usage, plan,
};
use xfer_protocol::{Errno, Ino, Name, Seq, Timestamp};

use crate::contents::{Shared, Storage};
use crate::steps::{LONG_AGO_SECS, Meaning, SLOTS, Step, node};

/// The seconds of an op's time: later than any that a step sets.
const NOW_SECS: i64 = 5_000_000_000;

pub struct World {
    pub table: Table,
    pub storage: Shared,
    pub slots: [Option<Ino>; SLOTS],
    pub seq: Seq,
}

/// What a program sees under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u16,
    pub uid: u32,
    pub nlink: u32,
    /// The bytes of a file, or the target of a link.
    pub bytes: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of this node's names.
    pub same_as: String,
    /// The data's modification time, if a step set it and nothing has changed it since.
    pub touched: Option<i64>,
}

pub type Snapshot = BTreeMap<String, Seen>;

/// The nodes that every tree has.
pub fn fixtures() -> Vec<(Ino, Node)> {
    let node = |nlink, entries, name_bytes| Node {
        kind: Kind::Directory { parent: Ino::ROOT, entries, name_bytes },
        mode: 0o755,
        uid: 0,
        gid: 0,
        nlink,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        xattrs: Default::default(),
        sent: None,
    };
    let names = "inboxoutbox".len() as u64;
    vec![(Ino::ROOT, node(4, 2, names)), (Ino::INBOX, node(2, 0, 0)), (Ino::OUTBOX, node(2, 0, 0))]
}

/// The entries that every tree has.
pub fn fixed_entries() -> Vec<(Name, Ino)> {
    let name = |text: &[u8]| Name::new(text).unwrap();
    vec![(name(b"inbox"), Ino::INBOX), (name(b"outbox"), Ino::OUTBOX)]
}

pub const EMPTY_USAGE: Usage = Usage { bytes: 0, nodes: 3 };

/// A table of a new tree, completely loaded.
pub fn full_table(quota: Quota) -> Table {
    let mut table = Table::new(EMPTY_USAGE, quota, Seq(0));
    for (ino, node) in fixtures() {
        table.fill_node(ino, Some(node));
    }
    for (name, ino) in fixed_entries() {
        table.fill_entry(Ino::ROOT, name, Some(ino));
    }
    [Ino::ROOT, Ino::INBOX, Ino::OUTBOX].into_iter().for_each(|ino| table.fill_complete(ino));
    table
}

pub fn op(seq: Seq, action: Action) -> Op {
    Op { time: Timestamp::new(NOW_SECS + seq.0 as i64, 0).unwrap(), action }
}

/// Nodes that these changes leave without a name and that no slot has open.
pub fn orphans(changes: &Changes, slots: &[Option<Ino>; SLOTS]) -> Vec<Ino> {
    let lost = |(ino, node): &(Ino, Option<std::sync::Arc<Node>>)| {
        let nameless = node.as_ref().is_some_and(|node| node.nlink == 0);
        (nameless && !slots.contains(&Some(*ino))).then_some(*ino)
    };
    changes.nodes.iter().filter_map(lost).collect()
}

impl World {
    pub fn new() -> World {
        World::with(Storage::shared(), Quota::UNLIMITED)
    }

    pub fn with(storage: Shared, quota: Quota) -> World {
        World { table: full_table(quota), storage, slots: [None; SLOTS], seq: Seq(0) }
    }

    /// A number that was never used before.
    pub fn id(&self) -> u64 {
        self.storage.borrow_mut().grant(1)
    }

    /// Does one op, with its payload.
    pub fn apply(&mut self, action: Action, payload: &[u8]) -> Result<Changes, Errno> {
        let seq = self.seq.next();
        let changes = match plan(&self.table, &op(seq, action)) {
            Ok(changes) => changes,
            Err(PlanError::Refused(errno)) => return Err(errno),
            Err(PlanError::Need(need)) => panic!("{need:?} in a tree that is all loaded"),
        };
        self.seq = seq;
        self.table.apply(&changes, seq);
        self.storage.borrow_mut().follow(&changes, payload);
        Ok(changes)
    }

    /// Does an op without a payload that must succeed.
    pub fn must(&mut self, action: Action) {
        self.apply(action.clone(), &[]).unwrap_or_else(|errno| panic!("{action:?}: {errno}"));
    }

    /// Does a program's step and forgets nodes that it leaves nameless; `None` if there is no op.
    pub fn step(&mut self, step: &Step) -> Option<Result<(), Errno>> {
        let changes = match step.meaning(&self.table, &self.slots, self.id()) {
            Ok(Meaning::Nothing) => return None,
            Ok(Meaning::Op(action, bytes)) => self.apply(action, &bytes),
            Ok(Meaning::Open(slot, ino)) => {
                self.close(slot);
                self.slots[slot] = Some(ino);
                Ok(Changes::default())
            }
            Ok(Meaning::Close(slot)) => {
                self.close(slot);
                Ok(Changes::default())
            }
            Err(PlanError::Refused(errno)) => Err(errno),
            Err(PlanError::Need(need)) => panic!("{need:?} in a tree that is all loaded"),
        };
        Some(changes.map(|changes| {
            for ino in orphans(&changes, &self.slots) {
                self.must(Action::ForgetOrphan { ino });
            }
        }))
    }

    /// Does the steps in order, whatever the outcome of each.
    pub fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(ino) = self.slots[slot].take() else { return };
        if self.node(ino).nlink == 0 && !self.slots.contains(&Some(ino)) {
            self.must(Action::ForgetOrphan { ino });
        }
    }

    pub fn node(&self, ino: Ino) -> std::sync::Arc<Node> {
        node(&self.table, ino).unwrap()
    }

    pub fn entry(&self, parent: Ino, name: &Name) -> Option<Ino> {
        match self.table.entry(parent, name) {
            Loaded::Present(ino) => Some(ino),
            Loaded::Absent => None,
            Loaded::Unknown => panic!("{parent:?}/{name:?} in a tree that is all loaded"),
        }
    }

    pub fn read(&self, ino: Ino) -> Vec<u8> {
        let node = self.node(ino);
        self.storage.borrow().read(node.file().expect("a regular file"))
    }

    /// Everything in a directory, by path.
    pub fn snapshot(&self, directory: Ino) -> Snapshot {
        let (mut seen, mut first) = (Snapshot::new(), BTreeMap::new());
        self.look(directory, "", &mut seen, &mut first);
        seen
    }

    fn look(&self, at: Ino, above: &str, seen: &mut Snapshot, first: &mut BTreeMap<Ino, String>) {
        for (name, ino) in self.table.children(at).expect("all is loaded") {
            if ino < Ino(Ino::FIRST_GRANTED) {
                continue;
            }
            let path = format!("{above}/{name}");
            let same_as = first.entry(ino).or_insert_with(|| path.clone()).clone();
            seen.insert(path.clone(), self.see(ino, same_as));
            if self.node(ino).is_directory() {
                self.look(ino, &path, seen, first);
            }
        }
    }

    /// What a program sees of a node.
    pub fn see(&self, ino: Ino, same_as: String) -> Seen {
        let node = self.node(ino);
        let (kind, bytes) = match &node.kind {
            Kind::File(data) => ("file", self.storage.borrow().read(data)),
            Kind::Directory { .. } => ("directory", Vec::new()),
            Kind::Symlink { target } => ("link", target.to_vec()),
            Kind::Special(SpecialKind::Fifo) => ("fifo", Vec::new()),
            Kind::Special(SpecialKind::Socket) => ("socket", Vec::new()),
            Kind::Special(_) => ("device", Vec::new()),
        };
        let xattrs = node.xattrs.all().expect("a world's nodes have all that is theirs");
        let xattrs = xattrs.iter();
        Seen {
            kind,
            mode: node.mode,
            uid: node.uid,
            nlink: node.nlink,
            bytes,
            xattrs: xattrs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            same_as,
            touched: touched(node.mtime.secs()),
        }
    }
}

/// The moment, if a step has set it.
pub fn touched(secs: i64) -> Option<i64> {
    (LONG_AGO_SECS..LONG_AGO_SECS + 256).contains(&secs).then_some(secs)
}

/// The data of a node that must be a regular file.
pub fn data(node: &Node) -> &FileData {
    node.file().expect("a regular file")
}
