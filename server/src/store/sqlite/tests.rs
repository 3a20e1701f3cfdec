//! The store of rows, by what it promises.

#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn an_account_begins_with_its_fixtures() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let name = Name::new(b"alice").unwrap();
    let id = store
        .create_account(&name, "$x", Quota::UNLIMITED, Quota::UNLIMITED, Timestamp::default())
        .unwrap();
    let page = store.page(id, Ino::ROOT, None, 10).unwrap();
    assert_eq!(page.len(), 2);
    assert_eq!(store.account(&name).unwrap().unwrap().quota, Quota::UNLIMITED);
    assert_eq!(store.begin_session(id).unwrap().epoch.0, 1);
}
