//! The promises of the store of rows: trees, fencing, references, deliveries, accounts.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use support::{
    account, batch, delivery, file, file_batch, is_durable, name, node, record, time, waiting,
    xattrs,
};
use tempfile::TempDir;
use xfer_protocol::limits::{BLOCK_BYTES, EXTENT_RUNS_MAX};
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{
    DeliveryEffect, Extents, FileData, Item, ItemKind, Kind, Node, Quota, SpecialKind, Usage,
};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino, Name, Seq, Timestamp};
use xfer_store::embedded::SqliteStore;
use xfer_store::{AccountId, Batch, Committed, Decided, StoreError, WrongPasswords};

/// A store with its directory, which must live as long as the store.
fn open() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (SqliteStore::open(dir.path()).unwrap(), dir)
}

fn commit(store: &SqliteStore, batch: Batch) {
    assert!(store.commit(&[batch]).unwrap().iter().all(is_durable));
}

/// Commits changes of references only.
fn refer(store: &SqliteStore, account: AccountId, by: &[(u64, i64)]) -> Result<(), StoreError> {
    let mut batch = batch(account, 1);
    batch.references = by.iter().map(|(content, by)| (ContentId(*content), *by)).collect();
    store.commit(&[batch]).map(drop)
}

/// Removes an account with all its data.
fn remove(store: &SqliteStore, account: AccountId) {
    store.remove_account(account, time(99)).unwrap();
    store.give_up_account(account).unwrap();
    assert!(store.clear_deleted(time(100)).unwrap());
}

fn garbage(store: &SqliteStore) -> Vec<u64> {
    store.garbage(None, 100).unwrap().into_iter().map(|content| content.0).collect()
}

fn exists(store: &SqliteStore, content: u64) -> bool {
    store.content_exists(ContentId(content)).unwrap()
}

// Trees.

#[test]
fn a_tree_begins_with_its_inbox_and_its_outbox() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    let root = store.node(alice, Ino::ROOT).unwrap().unwrap();
    assert_eq!(root.kind, Kind::Directory { parent: Ino::ROOT, entries: 2, name_bytes: 11 });
    assert_eq!((root.nlink, root.mode, root.mtime), (4, 0o755, time(1)));
    let page = store.page(alice, Ino::ROOT, None, 10).unwrap();
    let names: Vec<_> = page.iter().map(|(name, ino, _)| (name.clone(), *ino)).collect();
    assert_eq!(names, [(name("inbox"), Ino::INBOX), (name("outbox"), Ino::OUTBOX)]);
    for (_, _, box_) in page {
        assert_eq!(box_.kind, Kind::empty_directory(Ino::ROOT));
        assert_eq!((box_.nlink, box_.mode), (2, 0o700));
    }
    let account = store.account(&name("alice")).unwrap().unwrap();
    assert_eq!(account.usage, Usage { bytes: 0, nodes: 3 });
    assert_eq!((account.applied, account.epoch), (Seq(0), Epoch(0)));
}

/// Checks that a node is read back bit for bit, even from a store that was reopened.
fn check_survives(node: Node) {
    let (store, dir) = open();
    let alice = account(&store, "alice");
    let mut batch = batch(alice, 1);
    batch.nodes.push((Ino(2000), Some(Arc::new(node.clone()))));
    commit(&store, batch);
    assert!(store.node(alice, Ino(2000)).unwrap().unwrap() == node);
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert!(store.node(alice, Ino(2000)).unwrap().unwrap() == node);
}

#[test]
fn a_node_of_each_kind_comes_back_as_it_was() {
    check_survives(file(7, 123));
    check_survives(node(Kind::File(FileData::default())));
    let (entries, name_bytes) = (u64::MAX, u64::MAX - 1);
    check_survives(node(Kind::Directory { parent: Ino(5), entries, name_bytes }));
    check_survives(node(Kind::Symlink { target: Bytes::from_static(b"../\xff/x") }));
    check_survives(node(Kind::Special(SpecialKind::Fifo)));
    check_survives(node(Kind::Special(SpecialKind::Socket)));
    check_survives(node(Kind::Special(SpecialKind::CharDevice { rdev: u32::MAX })));
    check_survives(node(Kind::Special(SpecialKind::BlockDevice { rdev: 0x0801 })));
    check_survives(Node { sent: Some(DeliveryId(9)), ..file(7, 0) });
    check_survives(Node { xattrs: xfer_protocol::tree::Xattrs::All(Arc::default()), ..file(7, 0) });
}

/// Data in every second block, which gives the most runs that are possible.
fn comb(blocks: u64) -> (u64, Extents) {
    let size = blocks * BLOCK_BYTES;
    let mut extents = Extents::Dense;
    extents.resize(0, size);
    for block in (1..blocks).step_by(2) {
        let _ = extents.insert(size, size, block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES);
    }
    (size, extents)
}

#[test]
fn the_largest_map_and_the_largest_attributes_fit() {
    let (size, extents) = comb(2 * EXTENT_RUNS_MAX as u64);
    assert_eq!(extents.data_in(size, 0..size).len(), EXTENT_RUNS_MAX);
    let data = FileData { size, content: Some(ContentId(1)), sealed: true, extents };
    let xattrs = xattrs(&[("user.one", 65_528), ("user.two", 65_528)]);
    check_survives(Node { xattrs, ..node(Kind::File(data)) });
}

#[test]
fn entries_come_in_pages_in_order_of_their_bytes() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    let mut names: Vec<Name> =
        (1..=255u8).filter(|b| !b"/.".contains(b)).map(|b| Name::new(&[b]).unwrap()).collect();
    names.push(Name::new(&[b'x'; 255]).unwrap());
    let mut batch = batch(alice, 1);
    for (index, name) in names.iter().enumerate() {
        let ino = Ino(3000 + index as u64);
        batch.nodes.push((ino, Some(Arc::new(file(ino.0, index as u64)))));
        batch.entries.push((Ino(2000), name.clone(), Some(ino)));
    }
    commit(&store, batch);
    names.sort();
    let mut seen: Vec<Name> = Vec::new();
    loop {
        let page = store.page(alice, Ino(2000), seen.last(), 100).unwrap();
        let is_last = page.len() < 100;
        for (name, ino, node) in page {
            assert_eq!(store.entry(alice, Ino(2000), &name).unwrap(), Some(ino));
            assert_eq!(store.node(alice, ino).unwrap(), Some(node));
            seen.push(name);
        }
        if is_last {
            break;
        }
    }
    assert_eq!(seen, names);
}

#[test]
fn what_goes_is_gone() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    commit(&store, file_batch(alice, 1, 2000));
    let mut batch = batch(alice, 2);
    batch.nodes.push((Ino(2000), None));
    batch.entries.push((Ino::ROOT, name("f2000"), None));
    commit(&store, batch);
    assert_eq!(store.node(alice, Ino(2000)).unwrap(), None);
    assert_eq!(store.entry(alice, Ino::ROOT, &name("f2000")).unwrap(), None);
    assert_eq!(store.page(alice, Ino::ROOT, None, 10).unwrap().len(), 2);
}

#[test]
fn nodes_without_a_name_are_found_as_orphans() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    commit(&store, file_batch(alice, 1, 2000));
    assert_eq!(store.orphans(alice).unwrap(), []);
    let mut batch = batch(alice, 2);
    batch.nodes.push((Ino(2000), Some(Arc::new(Node { nlink: 0, ..file(2001, 5) }))));
    commit(&store, batch);
    assert_eq!(store.orphans(alice).unwrap(), [Ino(2000)]);
    assert_eq!(store.orphans(bob).unwrap(), []);
}

#[test]
fn trees_do_not_see_each_other() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    commit(&store, file_batch(alice, 1, 2000));
    assert_eq!(store.node(bob, Ino(2000)).unwrap(), None);
    assert_eq!(store.entry(bob, Ino::ROOT, &name("f2000")).unwrap(), None);
    assert_eq!(store.page(bob, Ino::ROOT, None, 10).unwrap().len(), 2);
}

// Sessions.

#[test]
fn a_batch_of_an_earlier_session_writes_nothing_while_others_beside_it_do() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    assert_eq!(store.begin_session(alice).unwrap().epoch, Epoch(1));
    let late = file_batch(alice, 9, 2000);
    let committed = store.commit(&[late, file_batch(bob, 4, 3000)]).unwrap();
    assert_eq!(committed, [Committed::Fenced, Committed::Durable(vec![])]);
    assert_eq!(store.node(alice, Ino(2000)).unwrap(), None);
    assert_eq!(store.account(&name("alice")).unwrap().unwrap().applied, Seq(0));
    assert!(!exists(&store, 2001));
    let bob = store.account(&name("bob")).unwrap().unwrap();
    assert_eq!((bob.applied, bob.usage), (Seq(4), Usage { bytes: 4 * 4096, nodes: 3 }));
    let now = Batch { epoch: Epoch(1), ..file_batch(alice, 1, 2000) };
    assert_eq!(store.commit(&[now]).unwrap(), [Committed::Durable(vec![])]);
}

#[test]
fn a_session_of_an_account_that_was_removed_is_fenced_even_from_one_of_the_same_name() {
    let (store, _dir) = open();
    let old = account(&store, "alice");
    remove(&store, old);
    let new = account(&store, "alice");
    assert_ne!(old, new);
    assert_eq!(store.commit(&[file_batch(old, 1, 2000)]).unwrap(), [Committed::Fenced]);
    assert_eq!(store.page(new, Ino::ROOT, None, 10).unwrap().len(), 2);
}

// Contents.

#[test]
fn a_content_is_garbage_when_nothing_refers_to_it_any_more() {
    let (store, dir) = open();
    let alice = account(&store, "alice");
    refer(&store, alice, &[(10, 2), (11, 1)]).unwrap();
    assert!(exists(&store, 10) && exists(&store, 11));
    refer(&store, alice, &[(10, -1), (11, -1)]).unwrap();
    assert!(exists(&store, 10) && !exists(&store, 11));
    refer(&store, alice, &[(10, -1)]).unwrap();
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(garbage(&store), [10, 11]);
    assert_eq!(store.garbage(None, 1).unwrap().len(), 1);
    store.forget_garbage(&[ContentId(10)]).unwrap();
    assert_eq!(garbage(&store), [11]);
}

#[test]
fn a_content_that_came_and_went_within_one_batch_is_garbage() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    refer(&store, alice, &[(10, 0), (11, 1)]).unwrap();
    refer(&store, alice, &[(11, 0)]).unwrap();
    assert_eq!(garbage(&store), [10]);
    assert!(exists(&store, 11));
}

#[test]
fn references_that_can_not_be_fail_the_whole_commit() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    refer(&store, alice, &[(10, 1)]).unwrap();
    let wrong = |by: &[(u64, i64)]| {
        let error = refer(&store, alice, by).unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error}");
    };
    wrong(&[(11, 1), (10, -2)]);
    wrong(&[(11, 1), (12, -1)]);
    assert!(exists(&store, 10) && !exists(&store, 11));
    refer(&store, alice, &[(10, -1)]).unwrap();
    wrong(&[(10, 1)]);
}

#[test]
fn a_number_is_granted_once() {
    let (store, dir) = open();
    let first = store.grant_ids(10).unwrap();
    assert_eq!((first.first, first.end), (Ino::FIRST_GRANTED, Ino::FIRST_GRANTED + 10));
    drop(store);
    let (one, other) =
        (SqliteStore::open(dir.path()).unwrap(), SqliteStore::open(dir.path()).unwrap());
    assert_eq!(one.grant_ids(5).unwrap().first, first.end);
    assert_eq!(other.grant_ids(5).unwrap().first, first.end + 5);
    assert_eq!(one.grant_ids(5).unwrap().first, first.end + 10);
    one.grant_ids(u64::MAX).unwrap_err();
}

// Deliveries.

fn send(store: &SqliteStore, from: AccountId, to: &str, id: u64, content: u64) {
    let mut batch = batch(from, 1);
    let delivery = Arc::new(delivery(id, content));
    let root = Ino(10_000 + id);
    batch.nodes.push((root, Some(Arc::new(record(id)))));
    batch.deliveries.push(DeliveryEffect::Sent { root, to: name(to), delivery });
    batch.references.push((ContentId(content), 1));
    commit(store, batch);
}

fn state(store: &SqliteStore, from: AccountId, id: u64) -> DeliveryState {
    store.delivery_state(from, DeliveryId(id)).unwrap()
}

#[test]
fn a_delivery_waits_until_it_is_accepted() {
    let (store, dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    refer(&store, alice, &[(10, 1)]).unwrap();
    assert_eq!(state(&store, alice, 500), DeliveryState::Unknown);
    send(&store, alice, "bob", 500, 10);
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(*store.delivery(bob, DeliveryId(500)).unwrap().unwrap(), delivery(500, 10));
    assert_eq!(store.delivery(alice, DeliveryId(500)).unwrap(), None);
    assert_eq!(state(&store, alice, 500), DeliveryState::Sent(time(50)));
    assert_eq!(state(&store, bob, 500), DeliveryState::Unknown);
    assert_eq!(store.delivery_sender(DeliveryId(500)).unwrap(), Some(alice));
    let bytes = delivery(500, 10).bytes();
    assert_eq!(waiting(&store, bob), Usage { bytes, nodes: 3 });

    let mut accept = file_batch(bob, 1, 2000);
    accept.references = vec![]; // the node takes over the reference of the delivery
    accept.deliveries.push(DeliveryEffect::Accepted(DeliveryId(500)));
    commit(&store, accept);
    assert_eq!(store.delivery(bob, DeliveryId(500)).unwrap(), None);
    assert_eq!(store.waiting_after(bob, 0, 1).unwrap(), []);
    assert_eq!(waiting(&store, bob), Usage::default());
    assert_eq!(state(&store, alice, 500), DeliveryState::Received(time(100)));
    refer(&store, alice, &[(10, -1)]).unwrap();
    assert!(exists(&store, 10), "the recipient has it");
}

#[test]
fn a_delivery_that_is_turned_away_gives_its_contents_back() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    send(&store, alice, "bob", 500, 10);
    let mut decline = batch(bob, 1);
    decline.references.push((ContentId(10), -1));
    decline.deliveries.push(DeliveryEffect::Declined(DeliveryId(500)));
    commit(&store, decline.clone());
    assert_eq!(garbage(&store), [10]);
    assert_eq!(state(&store, alice, 500), DeliveryState::Refused(time(100)));
    decline.references.clear();
    store.commit(&[decline]).unwrap_err();
}

#[test]
fn deliveries_wait_in_the_order_in_which_they_were_committed() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    for id in [502, 500, 501] {
        send(&store, alice, "bob", id, id + 100);
    }
    let waiting = store.waiting_after(bob, 0, usize::MAX).unwrap();
    let heads: Vec<_> = waiting.into_iter().map(|(_, head)| head).collect();
    assert_eq!(heads.iter().map(|head| head.id.0).collect::<Vec<_>>(), [502, 500, 501]);
    let head = &heads[0];
    assert_eq!((&head.from, &head.name), (&name("alice"), &name("album")));
    let bytes = delivery(502, 602).bytes();
    assert_eq!((head.sent, head.items, head.bytes), (time(50), 3, bytes));
    assert_eq!(store.waiting_after(alice, 0, 1).unwrap(), []);
}

#[test]
fn what_is_sent_to_nobody_is_refused_and_leaves_no_references() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    send(&store, alice, "carol", 500, 10);
    assert_eq!(state(&store, alice, 500), DeliveryState::Refused(time(100)));
    assert_eq!(garbage(&store), [10]);
}

#[test]
fn of_what_the_inbox_has_no_room_for_only_that_is_kept() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    store.set_inbox(bob, Quota { bytes: u64::MAX, nodes: 2 }).unwrap();
    let mut batch = batch(alice, 1);
    let delivery = Arc::new(delivery(500, 10));
    batch.nodes.push((Ino(2000), Some(Arc::new(record(500)))));
    batch.deliveries.push(DeliveryEffect::Sent { root: Ino(2000), to: name("bob"), delivery });
    batch.references.push((ContentId(10), 1));
    let committed = store.commit(&[batch]).unwrap();
    let state = state(&store, alice, 500);
    let told = Decided { sender: alice, delivery: DeliveryId(500), state: state.clone() };
    assert_eq!(committed, [Committed::Durable(vec![told])]);
    assert_eq!(state, DeliveryState::NoRoom(time(100)));
    assert_eq!(store.no_room(alice).unwrap(), [(DeliveryId(500), state)]);
    assert_eq!(store.waiting_after(bob, 0, 1).unwrap(), []);
    assert!(!exists(&store, 10));
    assert_eq!(garbage(&store), [10], "nothing else had it");
}

#[test]
fn a_delivery_with_a_number_that_is_taken_changes_nothing_of_the_first() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    send(&store, alice, "bob", 500, 10);
    send(&store, alice, "bob", 500, 11);
    assert_eq!(*store.delivery(bob, DeliveryId(500)).unwrap().unwrap(), delivery(500, 10));
    assert_eq!(garbage(&store), [11]);
}

#[test]
fn the_largest_delivery_fits() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    let (size, extents) = comb(2 * EXTENT_RUNS_MAX as u64);
    let mut large = delivery(500, 10);
    let item = |index: usize, kind| Item {
        name: name(&index.to_string()),
        kind,
        ..large.items[1].clone()
    };
    let file = |index| {
        let content = Some(ContentId(10 + index as u64));
        item(index, ItemKind::File { size, content, extents: extents.clone() })
    };
    large.items.splice(1.., (0..4).map(file).collect::<Vec<_>>());
    let mut batch = batch(alice, 1);
    batch.references = (10..14).map(|content| (ContentId(content), 1)).collect();
    let large = Arc::new(large);
    batch.deliveries.push(DeliveryEffect::Sent {
        root: Ino(2000),
        to: name("bob"),
        delivery: large.clone(),
    });
    commit(&store, batch);
    assert!(store.delivery(bob, DeliveryId(500)).unwrap() == Some(large));
}

#[test]
fn a_delivery_that_is_settled_goes_with_the_last_node_of_its_record() {
    let (store, _dir) = open();
    let (alice, bob) = (account(&store, "alice"), account(&store, "bob"));
    for id in [500, 501] {
        send(&store, alice, "bob", id, id - 490);
    }
    let remove = |applied, id: u64| {
        let mut remove = batch(alice, applied);
        remove.nodes.push((Ino(10_000 + id), None));
        remove.unrecorded.push(DeliveryId(id));
        commit(&store, remove);
    };
    // A waiting delivery is still delivered, and is forgotten after that.
    remove(2, 500);
    assert!(matches!(state(&store, alice, 500), DeliveryState::Sent(_)));
    let mut decline = batch(bob, 1);
    decline.references = vec![(ContentId(10), -1), (ContentId(11), -1)];
    decline.deliveries = [500, 501].map(|id| DeliveryEffect::Declined(DeliveryId(id))).to_vec();
    commit(&store, decline);
    assert_eq!(state(&store, alice, 500), DeliveryState::Unknown);
    assert!(matches!(state(&store, alice, 501), DeliveryState::Refused(_)));
    remove(3, 501);
    assert_eq!(state(&store, alice, 501), DeliveryState::Unknown);
    assert_eq!(waiting(&store, bob), Usage::default());
}

// Accounts.

#[test]
fn a_name_is_taken_once() {
    let (store, _dir) = open();
    account(&store, "alice");
    let quota = Quota::UNLIMITED;
    let taken = store.create_account(&name("alice"), "x", quota, quota, time(1)).unwrap_err();
    assert!(matches!(taken, StoreError::Exists(_)), "{taken}");
    assert_eq!(store.accounts().unwrap().len(), 1);
}

#[test]
fn accounts_are_listed_by_name_and_can_be_changed() {
    let (store, _dir) = open();
    let (bob, alice) = (account(&store, "bob"), account(&store, "alice"));
    store.set_password(bob, "new").unwrap();
    store.set_quota(bob, Quota::UNLIMITED).unwrap();
    let all = store.accounts().unwrap();
    assert_eq!(all.iter().map(|account| account.id).collect::<Vec<_>>(), [alice, bob]);
    assert_eq!(all[0].quota, Quota { bytes: 1 << 30, nodes: 1000 });
    assert_eq!((all[1].quota, all[1].password.as_deref()), (Quota::UNLIMITED, Some("new")));
    assert_eq!(all[1].inbox, Quota::UNLIMITED);
    store.set_inbox(alice, Quota { bytes: 5, nodes: 6 }).unwrap();
    let alice = store.account(&name("alice")).unwrap().unwrap();
    assert_eq!(alice.inbox, Quota { bytes: 5, nodes: 6 });
    assert_eq!(alice.quota, Quota { bytes: 1 << 30, nodes: 1000 });
    assert_eq!(store.account(&name("carol")).unwrap(), None);
}

#[test]
fn what_is_done_to_an_account_that_is_gone_is_refused() {
    let (store, _dir) = open();
    let alice = account(&store, "alice");
    remove(&store, alice);
    let refused = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::NoAccount)), "{result:?}");
    };
    refused(store.set_password(alice, "x"));
    refused(store.set_quota(alice, Quota::UNLIMITED));
    refused(store.set_inbox(alice, Quota::UNLIMITED));
    refused(store.begin_session(alice).map(drop));
    refused(store.remove_account(alice, time(100)));
    refused(store.give_up_account(alice));
}

#[test]
fn a_removed_account_leaves_nothing_behind_but_what_it_sent() {
    let (store, _dir) = open();
    let (alice, bob, carol) =
        (account(&store, "alice"), account(&store, "bob"), account(&store, "carol"));
    let mut own = file_batch(bob, 1, 2000);
    own.nodes.push((Ino(2002), Some(Arc::new(file(2001, 5)))));
    own.references = vec![(ContentId(2001), 2)];
    commit(&store, own);
    send(&store, alice, "bob", 500, 10);
    send(&store, bob, "carol", 501, 11);
    remove(&store, bob);

    assert_eq!(garbage(&store), [10, 2001]);
    assert_eq!(store.node(bob, Ino::ROOT).unwrap(), None);
    assert_eq!(store.page(bob, Ino::ROOT, None, 10).unwrap(), []);
    assert!(matches!(state(&store, alice, 500), DeliveryState::Refused(_)));
    assert_eq!(*store.delivery(carol, DeliveryId(501)).unwrap().unwrap(), delivery(501, 11));
    assert_eq!(store.delivery_sender(DeliveryId(501)).unwrap(), None);
    let mut accept = batch(carol, 1);
    accept.deliveries.push(DeliveryEffect::Accepted(DeliveryId(501)));
    commit(&store, accept);
    remove(&store, alice);
    remove(&store, carol);
    assert_eq!(store.accounts().unwrap(), []);
}

// Wrong passwords.

#[test]
fn wrong_passwords_are_kept_by_pair_until_they_are_forgotten() {
    let (store, dir) = open();
    let failures = |user: &str, address: &str, count| WrongPasswords {
        user: user.into(),
        address: address.into(),
        count,
        last: time(5),
        blocked_until: Timestamp::new(35, 1).unwrap(),
    };
    let (first, second) = (failures("alice", "::1", 5), failures("\u{1}'--", "::2", 1));
    store.set_failures(&[failures("alice", "::1", 4)]).unwrap();
    store.set_failures(&[first.clone(), second.clone()]).unwrap();
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.failures("alice", "::1").unwrap(), Some(first.clone()));
    assert_eq!(store.failures("alice", "::2").unwrap(), None);
    assert_eq!(store.all_failures().unwrap(), [second.clone(), first.clone()]);
    store.set_failures(&[WrongPasswords { count: 0, ..first }]).unwrap();
    assert_eq!(store.all_failures().unwrap(), [second]);
}
