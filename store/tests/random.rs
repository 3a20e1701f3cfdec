//! Random commits to the store of rows, compared with a plain model, also after the store is
//! reopened.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use support::{account, batch, delivery, file, is_durable, name, record, waiting as waiting_in};
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{DeliveryEffect, Node};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino, Name, Seq};
use xfer_store::embedded::SqliteStore;
use xfer_store::{AccountId, Batch};

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const PARENTS: u64 = 3;
const CONTENTS: u64 = 6;

/// One change within a batch. Numbers are small, so that changes collide.
#[derive(Clone, Debug)]
enum Change {
    Node(u64, u64),
    RemoveNode(u64),
    Entry(u64, u64, u64),
    RemoveEntry(u64, u64),
    Refer(u64, i64),
    Send(usize, u64, u64),
    Accept(u64),
    Decline(u64),
}

#[derive(Clone, Debug)]
enum Step {
    /// Batches of users; the flag marks those of an earlier session.
    Commit(Vec<(usize, bool, Vec<Change>)>),
    Begin(usize),
    Forget,
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..6u64, 0..1000u64).prop_map(|(ino, size)| Change::Node(ino, size)),
        1 => (0..6u64).prop_map(Change::RemoveNode),
        3 => (0..PARENTS, 0..4u64, 0..6u64).prop_map(|(p, n, i)| Change::Entry(p, n, i)),
        1 => (0..PARENTS, 0..4u64).prop_map(|(p, n)| Change::RemoveEntry(p, n)),
        3 => (0..CONTENTS, -2..3i64).prop_map(|(content, by)| Change::Refer(content, by)),
        2 => (0..4usize, 0..6u64, 0..CONTENTS).prop_map(|(to, id, c)| Change::Send(to, id, c)),
        1 => (0..6u64).prop_map(Change::Accept),
        1 => (0..6u64).prop_map(Change::Decline),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let changes = prop::collection::vec(change(), 0..6);
    let batch = (0..USERS.len(), prop::bool::weighted(0.1), changes);
    prop_oneof![
        8 => prop::collection::vec(batch, 1..4).prop_map(Step::Commit),
        1 => (0..USERS.len()).prop_map(Step::Begin),
        1 => Just(Step::Forget),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Default)]
struct Tree {
    applied: u64,
    epoch: u64,
    nodes: BTreeMap<u64, Arc<Node>>,
    entries: BTreeMap<(u64, Name), u64>,
}

#[derive(Clone)]
struct Sent {
    from: usize,
    /// The recipient, while it waits.
    to: Option<usize>,
    content: u64,
    state: DeliveryState,
}

#[derive(Clone, Default)]
struct Model {
    trees: [Tree; USERS.len()],
    references: BTreeMap<u64, i64>,
    garbage: BTreeSet<u64>,
    sent: BTreeMap<u64, Sent>,
    /// The deliveries in the order of their arrival.
    order: Vec<u64>,
}

impl Model {
    /// Counts references. Returns false, without counting, if the change is impossible.
    fn refer(&mut self, batch: &mut Batch, content: u64, by: i64) -> bool {
        let is_twice = batch.references.iter().any(|(id, _)| id.0 == content);
        let after = self.references.get(&content).unwrap_or(&0) + by;
        if is_twice || after < 0 || (self.garbage.contains(&content) && by != 0) {
            return false;
        }
        batch.references.push((ContentId(content), by));
        self.set_references(content, after);
        true
    }

    fn set_references(&mut self, content: u64, count: i64) {
        if count == 0 {
            self.references.remove(&content);
            self.garbage.insert(content);
        } else {
            self.references.insert(content, count);
        }
    }

    /// Applies a change to the model and adds it to the batch. Leaves out changes that no session
    /// sends: a row twice, the removal of a node that has entries, an entry without its node.
    fn change(&mut self, user: usize, batch: &mut Batch, change: &Change) {
        let tree = &mut self.trees[user];
        match *change {
            Change::Node(ino, size) => {
                if batch.nodes.iter().all(|(changed, _)| changed.0 != ino) {
                    let nlink = (size % 3) as u32;
                    let node = Arc::new(Node { nlink, ..file(ino, size) });
                    tree.nodes.insert(ino, node.clone());
                    batch.nodes.push((Ino(ino), Some(node)));
                }
            }
            Change::RemoveNode(ino) => {
                let is_free = batch.nodes.iter().all(|(changed, _)| changed.0 != ino)
                    && tree.entries.values().all(|there| *there != ino);
                if is_free {
                    tree.nodes.remove(&ino);
                    batch.nodes.push((Ino(ino), None));
                }
            }
            Change::Entry(parent, number, ino) => {
                let name = name(&format!("n{number}"));
                if tree.nodes.contains_key(&ino) && is_untouched(batch, parent, &name) {
                    tree.entries.insert((parent, name.clone()), ino);
                    batch.entries.push((Ino(parent), name, Some(Ino(ino))));
                }
            }
            Change::RemoveEntry(parent, number) => {
                let name = name(&format!("n{number}"));
                if is_untouched(batch, parent, &name) {
                    tree.entries.remove(&(parent, name.clone()));
                    batch.entries.push((Ino(parent), name, None));
                }
            }
            Change::Refer(content, by) => drop(self.refer(batch, content, by)),
            Change::Send(to, id, content) => self.send(user, batch, to, id, content),
            Change::Accept(id) => self.settle(user, batch, id, true),
            Change::Decline(id) => self.settle(user, batch, id, false),
        }
    }

    fn send(&mut self, user: usize, batch: &mut Batch, to: usize, id: u64, content: u64) {
        if self.sent.contains_key(&id) || !self.refer(batch, content, 1) {
            return;
        }
        let delivery = Arc::new(delivery(id, content));
        let state = DeliveryState::Sent(delivery.sent);
        let user_name = name(USERS.get(to).unwrap_or(&"nobody"));
        let root = 1_000_000 + id;
        let node = Arc::new(record(id));
        self.trees[user].nodes.insert(root, node.clone());
        batch.nodes.push((Ino(root), Some(node)));
        let root = Ino(root);
        batch.deliveries.push(DeliveryEffect::Sent { root, to: user_name, delivery });
        let to = (to < USERS.len()).then_some(to);
        if to.is_none() {
            let count = self.references[&content] - 1;
            self.set_references(content, count);
        }
        let state = if to.is_some() { state } else { DeliveryState::Refused(batch.time) };
        self.sent.insert(id, Sent { from: user, to, content, state });
        self.order.push(id);
    }

    fn settle(&mut self, user: usize, batch: &mut Batch, id: u64, is_accepted: bool) {
        let waits = self.sent.get(&id).filter(|sent| sent.to == Some(user));
        let Some(content) = waits.map(|sent| sent.content) else { return };
        if !is_accepted && !self.refer(batch, content, -1) {
            return;
        }
        let sent = self.sent.get_mut(&id).unwrap();
        sent.to = None;
        let id = DeliveryId(id);
        if is_accepted {
            sent.state = DeliveryState::Received(batch.time);
            batch.deliveries.push(DeliveryEffect::Accepted(id));
        } else {
            sent.state = DeliveryState::Refused(batch.time);
            batch.deliveries.push(DeliveryEffect::Declined(id));
        }
    }

    fn batch(
        &mut self,
        accounts: &[AccountId],
        user: usize,
        is_late: bool,
        changes: &[Change],
    ) -> (Batch, bool) {
        let before = self.clone();
        self.trees[user].applied += 1;
        let tree = &self.trees[user];
        let mut batch = batch(accounts[user], tree.applied);
        batch.epoch = Epoch(tree.epoch);
        changes.iter().for_each(|change| self.change(user, &mut batch, change));
        if is_late && batch.epoch > Epoch(0) {
            *self = before;
            batch.epoch = Epoch(batch.epoch.0 - 1);
            return (batch, false);
        }
        (batch, true)
    }
}

fn is_untouched(batch: &Batch, parent: u64, name: &Name) -> bool {
    batch.entries.iter().all(|(there, other, _)| there.0 != parent || other != name)
}

fn check_equal(store: &SqliteStore, accounts: &[AccountId], model: &Model) {
    for (user, tree) in model.trees.iter().enumerate() {
        check_tree(store, accounts[user], USERS[user], tree);
        let waits = |id: &&u64| model.sent[*id].to == Some(user);
        let waiting: Vec<u64> = model.order.iter().filter(waits).copied().collect();
        let heads = store.waiting_after(accounts[user], 0, usize::MAX).unwrap();
        assert_eq!(heads.iter().map(|(_, head)| head.id.0).collect::<Vec<_>>(), waiting);
        assert_eq!(waiting_in(store, accounts[user]).nodes, 3 * waiting.len() as u64);
    }
    for (id, sent) in &model.sent {
        let id = DeliveryId(*id);
        assert_eq!(store.delivery_state(accounts[sent.from], id).unwrap(), sent.state);
        for (user, account) in accounts.iter().enumerate() {
            let there = store.delivery(*account, id).unwrap();
            let expected = (sent.to == Some(user)).then(|| delivery(id.0, sent.content));
            assert_eq!(there.as_deref(), expected.as_ref());
        }
    }
    for content in 0..CONTENTS {
        let exists = store.content_exists(ContentId(content)).unwrap();
        assert_eq!(exists, model.references.contains_key(&content), "content {content}");
    }
    let garbage: BTreeSet<u64> =
        store.garbage(None, 100).unwrap().into_iter().map(|content| content.0).collect();
    assert_eq!(garbage, model.garbage);
}

fn check_tree(store: &SqliteStore, account: AccountId, user: &str, tree: &Tree) {
    let row = store.account(&name(user)).unwrap().unwrap();
    assert_eq!((row.applied, row.epoch), (Seq(tree.applied), Epoch(tree.epoch)));
    for ino in 0..6 {
        let node = store.node(account, Ino(ino)).unwrap();
        assert_eq!(node.as_ref(), tree.nodes.get(&ino).map(|node| &**node));
    }
    for parent in 0..PARENTS {
        let page = store.page(account, Ino(parent), None, 100).unwrap();
        let there = page.into_iter().map(|(name, ino, node)| (name, ino.0, node));
        let expected = tree.entries.iter().filter(|((there, _), _)| *there == parent);
        let expected =
            expected.map(|((_, name), ino)| (name.clone(), *ino, (*tree.nodes[ino]).clone()));
        assert!(there.eq(expected));
    }
    let orphans: Vec<u64> = store.orphans(account).unwrap().iter().map(|ino| ino.0).collect();
    let expected = tree.nodes.iter().filter(|(_, node)| node.nlink == 0).map(|(ino, _)| *ino);
    assert_eq!(orphans, expected.collect::<Vec<_>>());
}

/// Empties a new tree, because the model begins with empty trees.
fn clear(store: &SqliteStore, account: AccountId) {
    let mut batch = batch(account, 0);
    batch.nodes = (1..=3).map(|ino| (Ino(ino), None)).collect();
    batch.entries =
        ["inbox", "outbox"].map(|text| (Ino::ROOT, name(text), None)).into_iter().collect();
    store.commit(&[batch]).unwrap();
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let accounts = USERS.map(|user| account(&store, user));
    accounts.iter().for_each(|account| clear(&store, *account));
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(batches) => {
                let (batches, expected): (Vec<_>, Vec<_>) = batches
                    .iter()
                    .map(|(user, is_late, changes)| {
                        model.batch(&accounts, *user, *is_late, changes)
                    })
                    .unzip();
                let committed = store.commit(&batches).unwrap();
                assert_eq!(committed.iter().map(is_durable).collect::<Vec<_>>(), expected);
            }
            Step::Begin(user) => {
                model.trees[*user].epoch += 1;
                let begun = store.begin_session(accounts[*user]).unwrap();
                assert_eq!(begun.epoch, Epoch(model.trees[*user].epoch));
            }
            Step::Forget => {
                store.forget_garbage(&store.garbage(None, 2).unwrap()).unwrap();
                model.garbage = model.garbage.iter().skip(2).copied().collect();
            }
            Step::Reopen => store = SqliteStore::open(dir.path()).unwrap(),
        }
        check_equal(&store, &accounts, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_commits_do_what_they_do_to_a_plain_model(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        run(&steps);
    }
}
