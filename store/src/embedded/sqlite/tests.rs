//! Tests that need access to the inside, such as a full disk. All others are in `store/tests/`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use xfer_protocol::tree::{Kind, Node, Quota, Usage};
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use super::*;
use crate::{ForgottenBefore, Placements, Trims, WrongPasswords};

/// A store with the account alice.
fn with_alice(dir: &Path) -> (SqliteStore, Name, AccountId) {
    let store = SqliteStore::open(dir).unwrap();
    let (name, quota) = (Name::new(b"alice").unwrap(), Quota::UNLIMITED);
    let alice = store.create_account(&name, "x", quota, quota, Timestamp::default()).unwrap();
    (store, name, alice)
}

/// A batch of links with about 4 MB of data.
fn large_batch(account: AccountId) -> Batch {
    let node = Node {
        kind: Kind::Symlink { target: vec![b'x'; 4000].into() },
        mode: 0o777,
        uid: 0,
        gid: 0,
        nlink: 1,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        xattrs: Default::default(),
        sent: None,
    };
    let node = Arc::new(node);
    Batch {
        account,
        epoch: Epoch(0),
        applied: Seq(1),
        usage: Usage::default(),
        next_id: 0,
        nodes: (2000..3000).map(|ino| (Ino(ino), Some(node.clone()))).collect(),
        entries: Vec::new(),
        references: Vec::new(),
        trims: Trims::default(),
        deliveries: Vec::new(),
        placements: Placements::default(),
        unrecorded: Vec::new(),
        time: Timestamp::default(),
    }
}

fn set_pages_max(store: &SqliteStore, pages: i64) {
    let set = |writer: &rusqlite::Transaction<'_>| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        Ok(writer.query_row(&sql, [], |_| Ok(()))?)
    };
    store.connections.write(set).unwrap();
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, name, alice) = with_alice(dir.path());
    set_pages_max(&store, 100);
    let full = store.commit(&[large_batch(alice)]).unwrap_err();
    assert!(matches!(full, StoreError::Full), "{full}");
    assert_eq!(store.node(alice, Ino(2000)).unwrap(), None);
    assert_eq!(store.account(&name).unwrap().unwrap().applied, Seq(0));
    set_pages_max(&store, 1 << 30);
    assert_eq!(store.commit(&[large_batch(alice)]).unwrap(), [Committed::Durable(vec![])]);
    assert!(store.node(alice, Ino(2999)).unwrap().is_some());
}

/// One batch for each of `count` users: a large one for the first, and one node for each other.
fn batches_of_users(store: &SqliteStore, count: usize) -> Vec<Batch> {
    let quota = Quota::UNLIMITED;
    let batch = |user: usize| {
        let name = Name::new(format!("user{user}").as_bytes()).unwrap();
        let account = store.create_account(&name, "x", quota, quota, Timestamp::default()).unwrap();
        let mut batch = large_batch(account);
        batch.nodes.truncate(if user == 0 { batch.nodes.len() } else { 1 });
        batch
    };
    (0..count).map(batch).collect()
}

fn applied(store: &SqliteStore, batches: &[Batch]) -> Vec<u64> {
    let accounts = store.accounts().unwrap();
    let of = |batch: &Batch| accounts.iter().find(|one| one.id == batch.account).unwrap().applied.0;
    batches.iter().map(of).collect()
}

#[test]
fn a_batch_that_the_disk_has_no_room_for_keeps_out_none_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let batches = batches_of_users(&store, 3);
    set_pages_max(&store, 200);
    let done = store.commit_each(&batches).unwrap();
    assert!(matches!(done[0], Err(StoreError::Full)), "{done:?}");
    assert!(done[1..].iter().all(|done| matches!(done, Ok(Committed::Durable(_)))), "{done:?}");
    assert_eq!(applied(&store, &batches), [0, 1, 1]);
}

#[test]
fn a_failure_that_undoes_the_transaction_ends_only_the_batch_that_met_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let batches = batches_of_users(&store, 3);
    // SQLite does the same by itself after an input error.
    let sql = format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON nodes WHEN NEW.account = {}
         BEGIN SELECT RAISE(ROLLBACK, 'told to'); END",
        batches[1].account.0
    );
    store.connections.write(|writer| Ok(writer.execute_batch(&sql)?)).unwrap();
    let done = store.commit_each(&batches).unwrap();
    assert!(matches!(done[1], Err(StoreError::Database(_))), "{done:?}");
    assert_eq!(applied(&store, &batches), [1, 0, 1]);
}

#[test]
fn a_commit_waits_for_another_process_however_long_that_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, alice) = with_alice(dir.path());
    let short = Duration::from_millis(10);
    store.connections.write(|writer| Ok(writer.busy_timeout(short)?)).unwrap();
    let other = Connection::open(dir.path().join("xfer.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| store.commit(&[large_batch(alice)]).unwrap());
        std::thread::sleep(20 * short);
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(commit.join().unwrap(), [Committed::Durable(vec![])]);
    });
}

#[test]
fn a_removal_goes_bit_by_bit_and_goes_on_after_it_was_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, name, alice) = with_alice(dir.path());
    let mut batch = large_batch(alice);
    let node = batch.nodes[0].1.clone();
    batch.nodes.extend((5000..8000).map(|ino| (Ino(ino), node.clone())));
    store.commit(&[batch]).unwrap();
    store.remove_account(alice, Timestamp::default()).unwrap();
    store.give_up_account(alice).unwrap();
    let is_left = |store: &SqliteStore| store.node(alice, Ino(7999)).unwrap().is_some();
    for _ in 0..2 {
        let time = Timestamp::default();
        assert!(store.write(|writer| accounts::removal::clear_some(writer, time)).unwrap());
    }
    assert!(is_left(&store));
    drop(store);

    // The remaining rows are hidden, and the name is free.
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!((store.account(&name).unwrap(), store.accounts().unwrap()), (None, vec![]));
    assert!(store.begin_session(alice).is_err() && store.set_password(alice, "x").is_err());
    assert_eq!(store.commit(&[large_batch(alice)]).unwrap(), [Committed::Fenced]);
    let (_, _, new) = with_alice(dir.path());
    assert!(store.clear_deleted(Timestamp::default()).unwrap());
    assert!(!is_left(&store));
    assert_eq!(store.accounts().unwrap().iter().map(|one| one.id).collect::<Vec<_>>(), [new]);
    let ids = "SELECT count(*) FROM accounts";
    let count = |reader: &rusqlite::Transaction<'_>| Ok(reader.query_row(ids, [], |r| r.get(0))?);
    assert_eq!(store.connections.read::<i64>(count).unwrap(), 1);
}

#[test]
fn old_wrong_passwords_are_forgotten_at_once_those_of_users_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let time = |secs| Timestamp::new(secs, 0).unwrap();
    for user in ["", "alice"] {
        for (address, last, blocked) in [("::1", 10, 15), ("::2", 10, 25), ("::3", 30, 30)] {
            let (last, blocked_until) = (time(last), time(blocked));
            let (user, address) = (user.to_owned(), address.to_owned());
            let failures = WrongPasswords { user, address, count: 5, last, blocked_until };
            store.set_failures(&[failures]).unwrap();
        }
    }
    store.forget_failures(ForgottenBefore { users: time(20), sources: time(30) }).unwrap();
    let left = store.all_failures().unwrap();
    let left: Vec<_> = left.iter().map(|one| (one.user.as_str(), one.address.as_str())).collect();
    assert_eq!(left, [("", "::3"), ("alice", "::2"), ("alice", "::3")]);
}
