//! A client's replica and a server's tree over a store of plain rows, with delays in everything
//! that passes between them: ops, commits, acknowledgements, listings.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use xfer_protocol::tree::{
    Action, Changes, Loaded, Need, Node, Op, PlanError, Quota, Row, Rows, Table, Usage, Xattrs,
    plan,
};
use xfer_protocol::{Errno, Ino, Name, Seq};

use crate::steps::{Meaning, SLOTS, Step};
use crate::world::{EMPTY_USAGE, fixed_entries, fixtures, full_table, op, orphans};

/// Durable rows.
pub struct Store {
    pub nodes: BTreeMap<Ino, Node>,
    pub entries: BTreeMap<(Ino, Name), Ino>,
    pub usage: Usage,
    applied: Seq,
}

pub struct Server {
    pub table: Table,
    pub store: Store,
    applied: Seq,
}

/// The server's state that an answer shows: either is correct.
#[derive(Clone, Copy, Debug)]
pub enum View {
    Committed,
    Applied,
}

/// An answer in flight: all entries of a directory, as they were when it was given.
pub struct Listing {
    directory: Ino,
    entries: Vec<(Name, Ino, Option<Node>)>,
    unloadings: u64,
}

pub struct Pair {
    pub client: Table,
    pub server: Server,
    /// A completely loaded tree that follows the client step by step.
    pub whole: Table,
    pub slots: [Option<Ino>; SLOTS],
    seq: Seq,
    pub next_id: u64,
    /// Ops that the server has not applied, with the changes that they should make.
    on_its_way: VecDeque<(Seq, Op, Changes)>,
    durable: VecDeque<Seq>,
    listings: Vec<Listing>,
    view: View,
    /// A planted bug: late answers are filled in despite an unloading in between.
    pub trusts_late_answers: bool,
}

impl Store {
    fn new() -> Store {
        let entries = fixed_entries().into_iter().map(|(name, ino)| ((Ino::ROOT, name), ino));
        Store {
            nodes: fixtures().into_iter().collect(),
            entries: entries.collect(),
            usage: EMPTY_USAGE,
            applied: Seq(0),
        }
    }

    fn list(&self, directory: Ino) -> impl Iterator<Item = (&Name, Ino)> {
        let inside = self.entries.iter().filter(move |((parent, _), _)| *parent == directory);
        inside.map(|((_, name), ino)| (name, *ino))
    }

    /// Writes the rows that a table changed since the last commit.
    fn commit(&mut self, table: &Table, applied: Seq) {
        for row in table.changed_rows(self.applied) {
            match row {
                Row::Node(ino) => match table.node(ino) {
                    Loaded::Present(node) => drop(self.nodes.insert(ino, (*node).clone())),
                    Loaded::Absent => drop(self.nodes.remove(&ino)),
                    Loaded::Unknown => panic!("{ino:?} changed and was unloaded"),
                },
                Row::Entry(parent, name) => match table.entry(parent, &name) {
                    Loaded::Present(ino) => drop(self.entries.insert((parent, name), ino)),
                    Loaded::Absent => drop(self.entries.remove(&(parent, name))),
                    Loaded::Unknown => panic!("{parent:?}/{name:?} changed and was unloaded"),
                },
            }
        }
        self.usage = table.usage();
        self.applied = applied;
    }
}

impl Server {
    fn fill(&mut self, need: Need) {
        match need {
            Need::Node(ino) => self.table.fill_node(ino, self.store.nodes.get(&ino).cloned()),
            Need::Entry(parent, name) => {
                let ino = self.store.entries.get(&(parent, name.clone())).copied();
                self.table.fill_entry(parent, name, ino);
            }
            Need::Children(parent) => {
                for (name, ino) in self.store.list(parent) {
                    self.table.fill_entry(parent, name.clone(), Some(ino));
                }
                self.table.fill_complete(parent);
            }
            Need::Attributes(ino) => panic!("a store leaves nothing out, as of {ino:?}"),
            Need::Delivery(id) => panic!("nothing is sent here, but {id:?} is needed"),
        }
    }

    fn plan(&mut self, op: &Op) -> Result<Changes, Errno> {
        loop {
            match plan(&self.table, op) {
                Ok(changes) => return Ok(changes),
                Err(PlanError::Refused(errno)) => return Err(errno),
                Err(PlanError::Need(need)) => self.fill(need),
            }
        }
    }

    fn node(&self, ino: Ino, view: View) -> Option<Node> {
        match (view, self.table.node(ino)) {
            (View::Applied, Loaded::Present(node)) => Some((*node).clone()),
            (View::Applied, Loaded::Absent) => None,
            (View::Applied, Loaded::Unknown) | (View::Committed, _) => {
                self.store.nodes.get(&ino).cloned()
            }
        }
    }

    fn list(&self, directory: Ino, view: View) -> BTreeMap<Name, Ino> {
        let mut list: BTreeMap<Name, Ino> =
            self.store.list(directory).map(|(name, ino)| (name.clone(), ino)).collect();
        match view {
            View::Committed => {}
            View::Applied => {
                for (name, ino) in self.table.known_entries(directory, None) {
                    match ino {
                        Some(ino) => drop(list.insert(name.clone(), ino)),
                        None => drop(list.remove(name)),
                    }
                }
            }
        }
        list
    }
}

impl Pair {
    pub fn new() -> Pair {
        let empty = || Table::new(EMPTY_USAGE, Quota::UNLIMITED, Seq(0));
        Pair {
            client: empty(),
            server: Server { table: empty(), store: Store::new(), applied: Seq(0) },
            whole: full_table(Quota::UNLIMITED),
            slots: [None; SLOTS],
            seq: Seq(0),
            next_id: Ino::FIRST_GRANTED,
            on_its_way: VecDeque::new(),
            durable: VecDeque::new(),
            listings: Vec::new(),
            view: View::Committed,
            trusts_late_answers: false,
        }
    }

    /// Does a program's step at the client.
    pub fn step(&mut self, step: &Step) {
        self.next_id += 1;
        loop {
            match step.meaning(&self.client, &self.slots, self.next_id) {
                Ok(Meaning::Op(action, _)) => return self.act(action),
                Ok(Meaning::Open(slot, ino)) => {
                    self.close(slot);
                    self.slots[slot] = Some(ino);
                    return;
                }
                Ok(Meaning::Close(slot)) => return self.close(slot),
                Ok(Meaning::Nothing) | Err(PlanError::Refused(_)) => return,
                Err(PlanError::Need(need)) => self.fetch(need),
            }
        }
    }

    fn act(&mut self, action: Action) {
        let op = op(self.seq.next(), action);
        let changes = loop {
            match plan(&self.client, &op) {
                Ok(changes) => break changes,
                Err(PlanError::Refused(errno)) => return self.must_be_refused(&op, errno),
                Err(PlanError::Need(need)) => self.fetch(need),
            }
        };
        let expected = plan(&self.whole, &op);
        let expected =
            expected.unwrap_or_else(|stop| panic!("the replica goes wrong: {op:?}: {stop:?}"));
        let whole = completed(&changes, &expected);
        assert_eq!(whole, expected, "the replica goes wrong: {op:?}");
        self.seq = self.seq.next();
        self.client.apply(&changes, self.seq);
        self.whole.apply(&expected, self.seq);
        let lost = orphans(&changes, &self.slots);
        self.on_its_way.push_back((self.seq, op, expected));
        lost.into_iter().for_each(|ino| self.act(Action::ForgetOrphan { ino }));
    }

    fn must_be_refused(&mut self, op: &Op, errno: Errno) {
        let refused = Err(PlanError::Refused(errno));
        assert_eq!(plan(&self.whole, op), refused, "the replica goes wrong: {op:?}");
        if self.on_its_way.is_empty() {
            assert_eq!(self.server.plan(op), Err(errno), "the server differs: {op:?}");
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(ino) = self.slots[slot].take() else { return };
        let Loaded::Present(node) = self.whole.node(ino) else { panic!("{ino:?} is open") };
        if node.nlink == 0 && !self.slots.contains(&Some(ino)) {
            self.act(Action::ForgetOrphan { ino });
        }
    }

    /// The client asks and waits for the answer.
    fn fetch(&mut self, need: Need) {
        self.view = match self.view {
            View::Committed => View::Applied,
            View::Applied => View::Committed,
        };
        match need {
            Need::Node(ino) => self.client.fill_node(ino, self.server.node(ino, self.view)),
            Need::Entry(parent, name) => {
                let ino = self.server.list(parent, self.view).get(&name).copied();
                self.client.fill_entry(parent, name, ino);
            }
            Need::Children(directory) => {
                let listing = self.listing(directory, self.view);
                self.fill_listing(listing);
            }
            Need::Attributes(ino) => {
                let node = self.server.node(ino, self.view).expect("it is there");
                self.client.fill_xattrs(ino, node.xattrs);
            }
            Need::Delivery(id) => panic!("nothing is sent here, but {id:?} is needed"),
        }
    }

    fn listing(&self, directory: Ino, view: View) -> Listing {
        let entries = self.server.list(directory, view).into_iter();
        let with_node = |(name, ino)| (name, ino, self.server.node(ino, view));
        let unloadings = self.client.unloadings();
        Listing { directory, entries: entries.map(with_node).collect(), unloadings }
    }

    fn fill_listing(&mut self, listing: Listing) {
        if listing.unloadings != self.client.unloadings() && !self.trusts_late_answers {
            return;
        }
        for (name, ino, node) in listing.entries {
            if let Some(mut node) = node {
                // Listings leave out only large ones; the server may hold either form.
                let bytes = node.xattrs.bytes();
                if bytes > 0 {
                    node.xattrs = Xattrs::LeftOut { bytes };
                }
                self.client.fill_node(ino, Some(node));
            }
            self.client.fill_entry(listing.directory, name, Some(ino));
        }
        self.client.fill_complete(listing.directory);
    }

    /// The client asks for a listing; the answer is in flight from now on.
    pub fn ask(&mut self, directory: Ino, view: View) {
        if self.server.node(directory, view).is_some_and(|node| node.is_directory()) {
            self.listings.push(self.listing(directory, view));
        }
    }

    /// Delivers one of the listings in flight.
    pub fn deliver(&mut self, which: usize) {
        if !self.listings.is_empty() {
            let listing = self.listings.swap_remove(which % self.listings.len());
            self.fill_listing(listing);
        }
    }

    /// The server applies the next ops.
    pub fn apply(&mut self, count: usize) {
        for _ in 0..count.min(self.on_its_way.len()) {
            let (seq, op, predicted) = self.on_its_way.pop_front().expect("counted");
            let changes = self.server.plan(&op);
            assert_eq!(changes.as_ref(), Ok(&predicted), "the server differs: {op:?}");
            self.server.table.apply(&predicted, seq);
            self.server.applied = seq;
        }
    }

    /// The server commits what it has applied.
    pub fn commit(&mut self) {
        let Server { table, store, applied } = &mut self.server;
        store.commit(table, *applied);
        table.mark_durable_in_store(*applied);
        self.durable.push_back(*applied);
    }

    /// Tells the client of one commit.
    pub fn settle(&mut self) {
        if let Some(seq) = self.durable.pop_front() {
            self.client.mark_durable(seq);
        }
    }

    /// Completes everything in flight and reports any difference between the trees.
    pub fn compare(&mut self) -> Result<(), String> {
        self.apply(usize::MAX);
        self.commit();
        while !self.durable.is_empty() {
            self.settle();
        }
        (0..self.listings.len()).for_each(|_| self.deliver(0));
        if self.server.store.usage != self.whole.usage() {
            return Err("usage differs".into());
        }
        for ino in [1, 2, 3].into_iter().chain(Ino::FIRST_GRANTED..=self.next_id).map(Ino) {
            self.compare_node(ino)?;
            self.compare_entries(ino)?;
        }
        Ok(())
    }

    fn compare_node(&self, ino: Ino) -> Result<(), String> {
        let stored = self.server.store.nodes.get(&ino).cloned().map(Arc::new);
        let whole = match self.whole.node(ino) {
            Loaded::Present(node) => Some(node),
            Loaded::Absent | Loaded::Unknown => None,
        };
        if stored != whole {
            return Err(format!("{ino:?}: stored {stored:?}, should be {whole:?}"));
        }
        match (self.client.node(ino), stored) {
            (Loaded::Unknown, _) => Ok(()),
            (Loaded::Present(known), Some(stored)) if is_same(&known, &stored) => Ok(()),
            // It went before its listing came, so no entry leads to it.
            (Loaded::Present(_) | Loaded::Absent, None) => Ok(()),
            (known, stored) => Err(format!("{ino:?}: known {known:?}, stored {stored:?}")),
        }
    }

    fn compare_entries(&self, directory: Ino) -> Result<(), String> {
        let Some(whole) = self.whole.children(directory) else { return Ok(()) };
        let list = |list: Vec<(&Name, Ino)>| -> Vec<(Name, Ino)> {
            list.into_iter().map(|(name, ino)| (name.clone(), ino)).collect()
        };
        let stored = list(self.server.store.list(directory).collect());
        if stored != whole {
            return Err(format!("{directory:?}: stored {stored:?}, should be {whole:?}"));
        }
        for (name, known) in self.client.known_entries(directory, None) {
            let stored = self.server.store.entries.get(&(directory, name.clone())).copied();
            if known != stored && self.server.store.nodes.contains_key(&directory) {
                return Err(format!("{directory:?}/{name:?}: known {known:?}, stored {stored:?}"));
            }
        }
        match self.client.children(directory) {
            Some(known) if known != whole && self.server.store.nodes.contains_key(&directory) => {
                Err(format!("{directory:?}: known {known:?}, should be {whole:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The changes with attributes that the replica has not loaded filled in from `expected`: moving a
/// node, for example, does not need them.
fn completed(changes: &Changes, expected: &Changes) -> Changes {
    let mut changes = changes.clone();
    for ((_, node), (_, whole)) in changes.nodes.iter_mut().zip(&expected.nodes) {
        if let (Some(node), Some(whole)) = (node, whole)
            && node.xattrs == (Xattrs::LeftOut { bytes: whole.xattrs.bytes() })
        {
            Arc::make_mut(node).xattrs = whole.xattrs.clone();
        }
    }
    changes
}

/// Whether a known node equals the stored one, or has its attributes left out with the right size.
fn is_same(known: &Node, stored: &Node) -> bool {
    let xattrs = Xattrs::LeftOut { bytes: stored.xattrs.bytes() };
    known == stored || *known == Node { xattrs, ..stored.clone() }
}
