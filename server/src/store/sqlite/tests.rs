//! What can only be tested from inside: a disk that is full. All else is in `tests/store_*.rs`.

#![allow(clippy::unwrap_used)]

use xfer_protocol::tree::Kind;
use xfer_protocol::{Epoch, Seq};

use super::*;

/// A batch of links that takes up about 4 MB.
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
        xattrs: None,
        sent: None,
    };
    let node = Arc::new(node);
    Batch {
        account,
        epoch: Epoch(0),
        applied: Seq(1),
        usage: Usage::default(),
        nodes: (2000..3000).map(|ino| (Ino(ino), Some(node.clone()))).collect(),
        entries: Vec::new(),
        references: Vec::new(),
        deliveries: Vec::new(),
        refused: Vec::new(),
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
    let store = SqliteStore::open(dir.path()).unwrap();
    let (name, quota) = (Name::new(b"alice").unwrap(), Quota::UNLIMITED);
    let alice = store.create_account(&name, "x", quota, quota, Timestamp::default()).unwrap();
    set_pages_max(&store, 100);
    let full = store.commit(&[large_batch(alice)]).unwrap_err();
    assert!(matches!(full, StoreError::Full), "{full}");
    assert_eq!(store.node(alice, Ino(2000)).unwrap(), None);
    assert_eq!(store.account(&name).unwrap().unwrap().applied, Seq(0));
    set_pages_max(&store, 1 << 30);
    assert_eq!(store.commit(&[large_batch(alice)]).unwrap(), [Committed::Durable]);
    assert!(store.node(alice, Ino(2999)).unwrap().is_some());
}
