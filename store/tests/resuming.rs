//! Sessions that their clients resume: the secrets, what survives, and what ends them for good.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use support::{batch, client, file, file_batch, name, resumable, resumption, time};
use tokio::runtime::Runtime;
use xfer_protocol::tree::Quota;
use xfer_protocol::{ContentId, Epoch, IdRange, Ino, Seq};
use xfer_store::embedded::{FileStore, OlderDatabase, Serving, SqliteStore, over};
use xfer_store::{
    AccountId, Answer, Batch, Committed, Effect, Fate, Left, Location, NewAccount, Store,
    StoreError, Use,
};

/// A store whose user alice has a session with the secret 1.
fn store() -> (SqliteStore, AccountId, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let (quota, time) = (Quota::UNLIMITED, time(1));
    let alice = store.create_account(&name("alice"), "hash", quota, quota, time).unwrap();
    store.begin_resumable(alice, &resumable(1, 1), None).unwrap();
    (store, alice, dir)
}

fn resumes(store: &SqliteStore, account: AccountId, shown: u8, next: u8) -> bool {
    store.resume(account, &resumption(1, shown, next)).unwrap().is_some()
}

fn commit(store: &SqliteStore, epoch: u64, batch: Batch) -> Committed {
    let batch = Batch { epoch: Epoch(epoch), ..batch };
    store.commit(&[batch]).unwrap().remove(0)
}

#[test]
fn the_last_secret_given_and_the_last_one_shown_are_good_and_no_older_one() {
    let (store, alice, _dir) = store();
    assert!(resumes(&store, alice, 1, 2));
    // The answer with the secret 2 was lost.
    assert!(resumes(&store, alice, 1, 3));
    assert!(!resumes(&store, alice, 2, 9));
    assert!(resumes(&store, alice, 3, 4));
    assert!(!resumes(&store, alice, 1, 9));
    assert!(resumes(&store, alice, 3, 5));
    let known = store.resumable(alice).unwrap().unwrap();
    assert_eq!((known.shown.0[0], known.secret.0[0]), (3, 5));
    assert_eq!(known.address, "another address");
    assert!(store.resume(alice, &resumption(2, 5, 9)).unwrap().is_none(), "another session");
}

#[test]
fn a_session_is_resumed_with_its_numbers_and_its_log_and_fences_what_was_before() {
    let (store, alice, dir) = store();
    let ranges: Vec<IdRange> = (0..3).map(|_| store.grant_ids_to(alice, 10).unwrap()).collect();
    let used = Batch { next_id: ranges[1].first + 4, ..file_batch(alice, 1, 2000) };
    assert_eq!(commit(&store, 1, used), Committed::Durable(vec![]));
    // Also after a crash.
    let store = {
        drop(store);
        SqliteStore::open(dir.path()).unwrap()
    };
    let resumed = store.resume(alice, &resumption(1, 1, 2)).unwrap().unwrap();
    assert_eq!((resumed.account.epoch, resumed.account.applied), (Epoch(2), Seq(1)));
    let next_id = ranges[1].first + 4;
    let left = [IdRange { first: next_id, ..ranges[1] }, ranges[2]];
    assert_eq!((resumed.granted, resumed.next_id), (left.to_vec(), next_id));
    assert_eq!(commit(&store, 1, file_batch(alice, 2, 2001)), Committed::Fenced);
    assert_eq!(commit(&store, 2, file_batch(alice, 2, 2001)), Committed::Durable(vec![]));
    assert!(store.node(alice, Ino(2001)).unwrap().is_some());
}

#[test]
fn a_session_in_its_place_a_new_password_an_end_and_a_removal_end_it_for_good() {
    let ends: [fn(&SqliteStore, AccountId); 4] = [
        |store, alice| {
            let replaced = Some(resumable(1, 1).session);
            store.begin_resumable(alice, &resumable(2, 1), replaced).unwrap();
        },
        |store, alice| store.set_password(alice, "another").unwrap(),
        |store, alice| store.end_for_good(alice, Epoch(1)).unwrap(),
        |store, alice| store.remove_account(alice, time(2)).unwrap(),
    ];
    for end in ends {
        let (store, alice, _dir) = store();
        end(&store, alice);
        assert!(!resumes(&store, alice, 1, 2));
    }
}

#[test]
fn an_end_that_comes_too_late_ends_no_later_session() {
    let (store, alice, _dir) = store();
    assert!(resumes(&store, alice, 1, 2));
    store.end_for_good(alice, Epoch(1)).unwrap();
    assert!(resumes(&store, alice, 2, 3));
}

#[test]
fn an_account_whose_session_was_away_can_be_removed() {
    let (store, alice, _dir) = store();
    store.remove_account(alice, time(2)).unwrap();
    store.give_up_account(alice).unwrap();
    assert!(store.clear_deleted(time(2)).unwrap());
    assert_eq!(store.accounts().unwrap(), []);
}

/// A store that a server uses. It crashes when this is dropped.
struct Served {
    store: Store,
    runtime: Runtime,
}

impl Served {
    fn by(open: impl AsyncFnOnce() -> Store) -> Served {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Served { store: runtime.block_on(open()), runtime }
    }

    fn in_memory() -> Served {
        let serving =
            Serving { older: OlderDatabase::Refuse, keep_lost_days: 7, keep_removed_days: 30 };
        let serve = Use::Serve(serving);
        Served::by(async move || xfer_store::open(&Location::Memory, serve).await.unwrap())
    }

    fn on_disk(dir: &Path) -> Served {
        let rows = Arc::new(SqliteStore::open(dir).unwrap());
        let files = Arc::new(FileStore::open(dir).unwrap());
        Served::by(async move || over(rows, files))
    }

    fn get<T>(&self, answer: Answer<'_, T>) -> T {
        self.runtime.block_on(answer).unwrap()
    }

    /// Makes the user alice, with a session that has these numbers and the secret 1.
    fn begin(&self) -> (AccountId, IdRange) {
        let (quota, inbox) = (Quota::UNLIMITED, Quota::UNLIMITED);
        let (name, password, time) = (name("alice"), "hash".to_owned(), time(1));
        let new = NewAccount { name, password: Some(password), quota, inbox, time };
        let alice = self.get(self.store.accounts.create(new));
        self.get(self.store.trees.begin(alice, client(resumable(1, 1))));
        (alice, self.get(self.store.trees.grant_ids(alice, 100)))
    }

    fn resume(&self, account: AccountId) {
        let resumed = self.get(self.store.trees.resume(account, resumption(1, 1, 1)));
        assert!(resumed.is_some());
    }

    fn perform(&self, effects: Vec<Effect>) -> Result<(), StoreError> {
        let done = self.runtime.block_on(self.store.contents.perform(effects));
        done.map_err(|undone| undone.error)
    }

    /// The first 1000 bytes of a content that has so many.
    fn read(&self, content: ContentId) -> Result<Vec<u8>, StoreError> {
        self.runtime.block_on(self.store.contents.read(content, 0..LEN))
    }
}

const LEN: u64 = 1000;

fn write(content: ContentId, offset: u64, byte: u8) -> Effect {
    let data = Bytes::from(vec![byte; LEN as usize]);
    Effect::Write { content, offset, data }
}

/// The effects of four ops: a file is made, written and cloned, and the clone is written.
fn ops([one, other]: [ContentId; 2]) -> [Effect; 4] {
    let ranges: Vec<_> = std::iter::once(0..LEN).collect();
    [
        Effect::Create { content: one },
        write(one, 0, 1),
        Effect::Clone { from: one, to: other, ranges },
        write(other, LEN, 2),
    ]
}

#[test]
fn ops_that_were_performed_but_not_committed_can_be_performed_again() {
    let dir = tempfile::tempdir().unwrap();
    let crash = |served: Served| {
        drop(served);
        Served::on_disk(dir.path())
    };
    let same = |served: Served| served;
    let engines: [(Served, &dyn Fn(Served) -> Served); 2] =
        [(Served::in_memory(), &same), (Served::on_disk(dir.path()), &crash)];
    for (mut served, crash) in engines {
        let (alice, range) = served.begin();
        let contents = [ContentId(range.first), ContentId(range.first + 1)];
        // More was done to the contents than the first ops that are sent again.
        served.perform(ops(contents).to_vec()).unwrap();
        served.perform(vec![write(contents[0], 5000, 9)]).unwrap();
        served = crash(served);
        served.resume(alice);
        for some in 1..=4 {
            served.perform(ops(contents)[..some].to_vec()).unwrap();
        }
        assert_eq!(served.read(contents[0]).unwrap(), [1; LEN as usize]);
        assert_eq!(served.read(contents[1]).unwrap(), [1; LEN as usize]);
        let beyond = served.store.contents.read(contents[0], LEN..LEN + 1);
        let beyond = served.runtime.block_on(beyond);
        assert!(beyond.unwrap_or_default().is_empty(), "none of the rest");
        let synced = served.get(served.store.contents.make_durable(vec![contents.to_vec()]));
        assert!(synced[0].is_ok(), "{synced:?}");
    }
}

#[test]
fn a_content_that_a_committed_row_refers_to_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    for served in [Served::in_memory(), Served::on_disk(dir.path())] {
        let (alice, range) = served.begin();
        let [one, other] = [ContentId(range.first), ContentId(range.first + 1)];
        served.perform(ops([one, other]).to_vec()).unwrap();
        let mut made = Batch { epoch: Epoch(1), ..batch(alice, 1) };
        for content in [one, other] {
            made.nodes.push((Ino(content.0), Some(Arc::new(file(content.0, LEN)))));
            made.references.push((content, 1));
        }
        let committed = served.get(served.store.trees.commit(vec![made]));
        assert!(matches!(committed[..], [Ok(Committed::Durable(_))]));
        let ranges: Vec<_> = std::iter::once(0..LEN).collect();
        for again in [
            Effect::Create { content: one },
            Effect::Clone { from: other, to: one, ranges: ranges.clone() },
            Effect::Clone { from: one, to: one, ranges },
        ] {
            served.perform(vec![again]).unwrap_err();
        }
        assert_eq!(served.read(one).unwrap(), [1; LEN as usize]);
    }
}

#[test]
fn contents_that_a_session_may_create_again_are_not_swept() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::on_disk(dir.path());
    let (alice, range) = served.begin();
    let rows = SqliteStore::open(dir.path()).unwrap();
    let of_none = ContentId(rows.grant_ids(1).unwrap().first);
    let [one, other] = [ContentId(range.first), ContentId(range.end - 1)];
    let create = |content| Effect::Create { content };
    served.perform([one, other, of_none].map(create).to_vec()).unwrap();
    drop(served);
    let served = Served::on_disk(dir.path());
    let read =
        |content: ContentId| served.runtime.block_on(served.store.contents.read(content, 0..0));
    while read(of_none).is_ok() {
        std::thread::yield_now();
    }
    assert!(read(one).is_ok() && read(other).is_ok());
    served.resume(alice);
}

#[test]
fn a_late_end_takes_nothing_that_the_session_has_created_again() {
    let dir = tempfile::tempdir().unwrap();
    for served in [Served::in_memory(), Served::on_disk(dir.path())] {
        let (alice, range) = served.begin();
        let content = ContentId(range.first);
        served.perform(vec![Effect::Create { content }]).unwrap();
        served.resume(alice);
        served.perform(vec![Effect::Create { content }, write(content, 0, 1)]).unwrap();
        let left = Left { created: vec![content], written: Vec::new() };
        served.get(served.store.trees.end(alice, Epoch(1), left.clone(), Fate::Resumable));
        assert_eq!(served.read(content).unwrap(), [1; LEN as usize]);
        served.get(served.store.trees.end(alice, Epoch(2), left, Fate::Over));
        let gone = served.read(content).map_or(true, |bytes| bytes.is_empty());
        assert!(gone, "the last session created it, and nobody will again");
    }
}
