//! Sessions that lost the seat to another one, and what they learn when they take it again.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use support::{
    batch, client, file, file_batch, name, node, resumable, resumption, session_id, time,
};
use tokio::runtime::Runtime;
use xfer_protocol::tree::{FileData, Kind, Node, Quota};
use xfer_protocol::{Epoch, IdRange, Ino, Seq};
use xfer_store::embedded::{OlderDatabase, Serving, SqliteStore};
use xfer_store::{
    AccountId, Answer, Batch, Beginner, Begun, CHANGES_MAX, Change, Changed, Committed,
    DORMANT_MAX, Fate, Left, Location, Missed, NewAccount, Resumable, Resumed, Store, Use,
};

/// An account, and how far its sessions have come.
struct World {
    store: Store,
    runtime: Runtime,
    alice: AccountId,
    epoch: Epoch,
    applied: u64,
}

impl World {
    fn open(location: Location) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving =
            Serving { older: OlderDatabase::Refuse, keep_lost_days: 7, keep_removed_days: 30 };
        let opened = xfer_store::open(&location, Use::Serve(serving));
        let store = runtime.block_on(opened).unwrap();
        let (quota, inbox) = (Quota { bytes: 1000, nodes: 1000 }, Quota::UNLIMITED);
        let (name, password, time) = (name("alice"), "hash".to_owned(), time(1));
        let new = NewAccount { name, password: Some(password), quota, inbox, time };
        let alice = runtime.block_on(store.accounts.create(new)).unwrap();
        World { store, runtime, alice, epoch: Epoch(0), applied: 0 }
    }

    fn get<T>(&self, answer: Answer<'_, T>) -> T {
        self.runtime.block_on(answer).unwrap()
    }

    /// Begins a session of a client; its secret is 1.
    fn begin(&mut self, session: u8) -> Begun {
        self.begin_by(client(resumable(session, 1)))
    }

    fn begin_in_place_of(&mut self, replaced: u8, session: u8) -> Begun {
        let replaces = Some(session_id(replaced));
        self.begin_by(Beginner::Client { session: resumable(session, 1), replaces })
    }

    fn begin_by(&mut self, by: Beginner) -> Begun {
        let begun = self.get(self.store.trees.begin(self.alice, by));
        self.epoch = begun.account.epoch;
        begun
    }

    /// Resumes a session, whose secret stays 1.
    fn resume(&mut self, session: u8) -> Option<Resumed> {
        self.resume_with(session, 1, 1)
    }

    fn resume_with(&mut self, session: u8, shown: u8, next: u8) -> Option<Resumed> {
        let with = resumption(session, shown, next);
        let resumed = self.get(self.store.trees.resume(self.alice, with));
        self.epoch = resumed.as_ref().map_or(self.epoch, |resumed| resumed.account.epoch);
        resumed
    }

    fn commit(&self, changes: Batch) -> Committed {
        let made = Batch { epoch: self.epoch, ..changes };
        self.get(self.store.trees.commit(vec![made])).remove(0).unwrap()
    }

    /// Commits an op of the session that runs, which makes a file in the root.
    fn make(&mut self, ino: u64) {
        self.applied += 1;
        let made = file_batch(self.alice, self.applied, ino);
        assert_eq!(self.commit(made), Committed::Durable(vec![]));
    }

    /// Commits an op that changes these nodes.
    fn touch(&mut self, nodes: impl IntoIterator<Item = (u64, Option<Node>)>) {
        self.applied += 1;
        let mut made = batch(self.alice, self.applied);
        made.nodes.extend(nodes.into_iter().map(|(ino, node)| (Ino(ino), node.map(Arc::new))));
        assert_eq!(self.commit(made), Committed::Durable(vec![]));
    }

    fn grant(&self, count: u64) -> IdRange {
        self.get(self.store.trees.grant_ids(self.alice, count))
    }

    fn end(&self, epoch: Epoch, fate: Fate) {
        self.get(self.store.trees.end(self.alice, epoch, Left::default(), fate));
    }

    fn present(&self) -> Option<Resumable> {
        self.get(self.store.trees.resumable(self.alice))
    }

    fn knows(&self, session: u8) -> bool {
        self.get(self.store.trees.session_of(self.alice, session_id(session))).is_some()
    }
}

/// Runs a test with both engines, each of which has the account alice.
fn with_both(test: impl Fn(&mut World)) {
    test(&mut World::open(Location::Memory));
    let dir = tempfile::tempdir().unwrap();
    test(&mut World::open(Location::Sqlite(dir.path().into())));
}

fn missed(base: u64, nodes: &[u64]) -> Option<Missed> {
    let changed = Changed::Nodes(nodes.iter().copied().map(Ino).collect());
    Some(Missed { base: Seq(base), changed })
}

fn file_of(len: u64) -> Option<Node> {
    Some(node(Kind::File(FileData { size: len, ..FileData::default() })))
}

#[test]
fn a_session_that_was_displaced_may_come_back_and_learns_which_nodes_changed() {
    with_both(|world| {
        world.begin(1);
        world.make(2000);
        let before = world.epoch;
        world.begin(2);
        world.touch([(3000, file_of(1)), (2500, file_of(1))]);
        world.touch([(3000, file_of(2)), (2000, None)]);
        // Its parent is not among the nodes of the batch.
        world.make(4000);
        assert_eq!(world.present(), Some(resumable(2, 1)));
        assert!(world.knows(1));
        let back = world.resume(1).unwrap();
        assert_eq!(back.missed, missed(1, &[1, 2000, 2500, 3000, 4000]));
        assert_eq!((back.account.applied, back.account.epoch), (Seq(4), Epoch(before.0 + 2)));
        assert_eq!(world.present().unwrap().session, session_id(1));
        // The other one is dormant now, and learns only of what came after it.
        world.make(5000);
        assert_eq!(world.resume(2).unwrap().missed, missed(4, &[1, 5000]));
        world.touch([(5000, None)]);
        assert_eq!(world.resume(1).unwrap().missed, missed(5, &[5000]));
    });
}

#[test]
fn the_session_before_is_fenced_when_a_dormant_one_comes_back() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        let other = world.epoch;
        world.resume(1).unwrap();
        let late = Batch { epoch: other, ..file_batch(world.alice, 1, 2000) };
        let committed = world.get(world.store.trees.commit(vec![late])).remove(0).unwrap();
        assert_eq!(committed, Committed::Fenced);
    });
}

#[test]
fn a_dormant_session_comes_back_only_with_its_secret() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        assert_eq!(world.resume_with(1, 9, 1), None);
        assert_eq!(world.resume(3), None);
        assert_eq!(world.present(), Some(resumable(2, 1)));
        assert!(world.resume_with(1, 1, 5).is_some());
        assert_eq!((world.present().unwrap().secret.0[0], world.knows(2)), (5, true));
    });
}

#[test]
fn one_that_missed_nothing_keeps_its_numbers() {
    with_both(|world| {
        world.begin(1);
        let ranges = [world.grant(10), world.grant(10)];
        world.applied += 1;
        let next_id = ranges[0].first + 4;
        world.commit(Batch { next_id, ..file_batch(world.alice, 1, 2000) });
        world.begin(2);
        // These numbers are the other one's.
        world.grant(10);
        let left = [IdRange { first: next_id, ..ranges[0] }, ranges[1]];
        let back = world.resume(1).unwrap();
        assert_eq!((back.missed, back.granted, back.next_id), (None, left.to_vec(), 0));
        // It goes on with them, and is resumed with them.
        let more = world.grant(10);
        let back = world.resume(1).unwrap();
        assert_eq!((back.missed, back.granted), (None, vec![left[0], left[1], more]));
    });
}

#[test]
fn one_that_missed_something_has_none_of_its_numbers_left() {
    with_both(|world| {
        world.begin(1);
        world.grant(10);
        world.begin(2);
        // Above all numbers that the first one has.
        world.applied += 1;
        world.commit(Batch { next_id: u64::MAX >> 1, ..file_batch(world.alice, 1, 2000) });
        let back = world.resume(1).unwrap();
        assert_eq!((back.granted, back.next_id), (vec![], 0));
        let new = world.grant(10);
        assert_eq!(world.resume(1).unwrap().granted, [new]);
    });
}

#[test]
fn an_answer_that_may_have_been_lost_is_given_again() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        world.make(2000);
        let told = missed(0, &[1, 2000]);
        assert_eq!(world.resume_with(1, 1, 3).unwrap().missed, told);
        let new = world.grant(10);
        // The client shows the secret that it had before.
        let again = world.resume_with(1, 1, 4).unwrap();
        assert_eq!((again.missed, again.granted), (told.clone(), vec![new]));
        // And so it does after it was dormant once more.
        world.begin(3);
        assert_eq!(world.resume_with(1, 1, 5).unwrap().missed, told);
        // Or it shows, only then, the one that it was given with the answer.
        world.begin(3);
        assert_eq!(world.resume_with(1, 5, 5).unwrap().missed, None);
    });
}

#[test]
fn an_answer_that_was_heard_is_not_given_again() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        world.make(2000);
        assert!(world.resume_with(1, 1, 5).unwrap().missed.is_some());
        // Now it shows the one that it was given with the answer.
        assert_eq!(world.resume_with(1, 5, 6).unwrap().missed, None);
        assert_eq!(world.resume_with(1, 5, 7).unwrap().missed, None);
        world.begin(4);
        assert_eq!(world.resume_with(1, 5, 8).unwrap().missed, None);
        world.begin(5);
        world.touch([(2000, None)]);
        assert_eq!(world.resume_with(1, 8, 9).unwrap().missed, missed(1, &[2000]));
    });
}

#[test]
fn a_session_that_has_applied_an_op_has_heard_what_it_missed() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        world.make(2000);
        assert_eq!(world.resume_with(1, 1, 3).unwrap().missed, missed(0, &[1, 2000]));
        world.make(3000);
        // The answer to a resume after that was lost.
        assert_eq!(world.resume_with(1, 1, 4).unwrap().missed, None);
        world.begin(3);
        world.touch([(3000, None)]);
        assert_eq!(world.resume_with(1, 1, 5).unwrap().missed, missed(2, &[3000]));
    });
}

#[test]
fn orphans_stay_while_a_dormant_session_may_have_them_open() {
    with_both(|world| {
        world.begin(1);
        world.touch([(2000, Some(Node { nlink: 0, ..file(1, 5) }))]);
        assert_eq!(world.begin(2).orphans, []);
        assert_eq!(world.begin_by(Beginner::Claimant).orphans, []);
        assert_eq!(world.begin_in_place_of(1, 3).orphans, []);
        // The second one was dormant still.
        world.end(world.epoch, Fate::Over);
        assert_eq!(world.begin_in_place_of(2, 4).orphans, [Ino(2000)]);
    });
}

#[test]
fn a_command_leaves_the_session_before_it_dormant() {
    with_both(|world| {
        world.begin(1);
        world.begin_by(Beginner::Claimant);
        world.make(2000);
        world.end(world.epoch, Fate::Over);
        assert_eq!((world.present(), world.knows(1)), (None, true));
        assert_eq!(world.resume(1).unwrap().missed, missed(0, &[1, 2000]));
    });
}

#[test]
fn a_session_that_yields_the_seat_may_take_it_again() {
    with_both(|world| {
        world.begin(1);
        let range = world.grant(10);
        world.make(2000);
        world.end(Epoch(world.epoch.0 - 1), Fate::Yielded);
        assert!(world.present().is_some(), "another session yields");
        world.end(world.epoch, Fate::Yielded);
        assert_eq!((world.present(), world.knows(1)), (None, true));
        let back = world.resume(1).unwrap();
        assert_eq!((back.missed, back.granted), (None, vec![range]));
        world.end(world.epoch, Fate::Yielded);
        world.begin(2);
        world.touch([(2000, None)]);
        assert_eq!(world.resume(1).unwrap().missed, missed(1, &[2000]));
    });
}

#[test]
fn an_end_and_a_forgotten_session_leave_the_dormant_ones() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        world.end(world.epoch, Fate::Over);
        assert_eq!((world.knows(1), world.knows(2)), (true, false));
        world.begin(3);
        world.get(world.store.trees.forget(world.alice, world.epoch));
        assert_eq!((world.knows(1), world.knows(3)), (true, false));
        assert!(world.resume(1).is_some());
    });
}

#[test]
fn a_password_change_ends_dormant_sessions_too() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        let change = Change::Password("another".to_owned());
        world.get(world.store.accounts.change(world.alice, change));
        assert!(!world.knows(1) && !world.knows(2));
        assert!(world.resume(1).is_none() && world.resume(2).is_none());
    });
}

#[test]
fn a_dormant_session_keeps_the_highest_quota_that_it_may_have_checked_against() {
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        for bytes in [5000, 10] {
            let quota = Quota { bytes, nodes: 10 };
            world.get(world.store.accounts.change(world.alice, Change::Quota(quota)));
        }
        let back = world.resume(1).unwrap();
        assert_eq!(back.quota, Quota { bytes: 5000, nodes: 1000 });
        assert_eq!(back.account.quota, Quota { bytes: 10, nodes: 10 });
    });
}

#[test]
fn too_many_changes_are_told_as_all() {
    let nodes = |count: usize| (0..count as u64).map(|ino| (100_000 + ino, file_of(1)));
    with_both(|world| {
        world.begin(1);
        world.begin(2);
        world.touch(nodes(CHANGES_MAX));
        let back = world.resume(1).unwrap().missed.unwrap();
        assert!(matches!(back.changed, Changed::Nodes(all) if all.len() == CHANGES_MAX));
        // The second one is dormant, and misses one more.
        world.touch(nodes(CHANGES_MAX + 1));
        world.begin(3);
        world.touch([(7000, file_of(1))]);
        let all = Some(Missed { base: Seq(1), changed: Changed::All });
        assert_eq!(world.resume_with(2, 1, 5).unwrap().missed, all);
        assert_eq!(world.resume_with(2, 1, 5).unwrap().missed, all, "also again");
        assert_eq!(world.resume_with(2, 5, 6).unwrap().missed, None, "it has heard");
        // The first one was there at that time, so it has missed only the last.
        assert_eq!(world.resume(1).unwrap().missed, missed(2, &[7000]));
        // And what is missed after that is told again.
        world.touch([(8000, file_of(1))]);
        assert_eq!(world.resume_with(2, 6, 6).unwrap().missed, missed(3, &[8000]));
    });
}

#[test]
fn a_session_that_is_replaced_can_not_come_back() {
    with_both(|world| {
        world.begin(1);
        world.begin_in_place_of(1, 2);
        assert!(!world.knows(1) && world.resume(1).is_none());
        world.begin(3);
        world.begin_in_place_of(2, 4);
        assert_eq!([2, 3, 4].map(|session| world.knows(session)), [false, true, true]);
    });
}

#[test]
fn the_oldest_dormant_sessions_go_first() {
    with_both(|world| {
        let count = DORMANT_MAX as u8 + 3;
        for session in 1..=count {
            world.begin(session);
            world.make(1000 + u64::from(session));
        }
        let known: Vec<u8> = (1..=count).filter(|session| world.knows(*session)).collect();
        assert_eq!(known, (3..=count).collect::<Vec<_>>());
        // One that comes back makes room for the one that goes.
        world.resume(3).unwrap();
        assert!((3..=count).all(|session| world.knows(session)));
        // It has the highest base now, so it is the youngest.
        world.begin(100);
        assert_eq!((world.knows(3), world.knows(4)), (true, false));
    });
}

#[test]
fn of_those_that_missed_nothing_the_one_that_began_first_goes_first() {
    with_both(|world| {
        let since = |session: u8| time(if session == 5 { 1 } else { 100 - i64::from(session) });
        let count = DORMANT_MAX as u8 + 2;
        for session in 1..=count {
            world.begin_by(client(Resumable { since: since(session), ..resumable(session, 1) }));
        }
        let gone: Vec<u8> = (1..=count).filter(|session| !world.knows(*session)).collect();
        assert_eq!(gone, [5]);
    });
}

/// The rows of a table.
fn count(dir: &Path, table: &str) -> i64 {
    let db = Connection::open(dir.join("xfer.db")).unwrap();
    let sql = format!("SELECT count(*) FROM {table}");
    db.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn changes_are_kept_only_for_dormant_sessions_that_missed_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::open(Location::Sqlite(dir.path().into()));
    let changes = || count(dir.path(), "changes");
    world.begin(1);
    world.make(2000);
    assert_eq!(changes(), 0, "none is dormant");
    world.begin(2);
    world.touch([(2000, file_of(1))]);
    world.begin(3);
    world.touch([(3000, file_of(1))]);
    assert_eq!(changes(), 2);
    // The first one can't come back, and the second has missed only one.
    world.begin_in_place_of(1, 4);
    assert_eq!(changes(), 1);
    world.resume_with(2, 1, 5).unwrap();
    assert_eq!(changes(), 1, "the answer may be lost");
    world.resume_with(2, 5, 5).unwrap();
    assert_eq!(changes(), 0);
    for ends in [0, 1] {
        world.touch([(3000, file_of(1))]);
        assert_eq!(changes(), 1);
        match ends {
            0 => {
                let change = Change::Password("another".to_owned());
                world.get(world.store.accounts.change(world.alice, change));
                world.begin(6);
                world.begin(7);
            }
            _ => world.get(world.store.accounts.remove(world.alice, time(1 << 40))),
        }
        assert_eq!(changes(), 0);
    }
    world.get(world.store.accounts.give_up(world.alice));
    world.get(world.store.accounts.clear_deleted(time(9)));
    assert_eq!((count(dir.path(), "sessions"), count(dir.path(), "accounts")), (0, 0));
}

#[test]
fn dormant_sessions_outlive_a_crash_and_the_server_sweeps_nothing_that_they_may_make_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::open(Location::Sqlite(dir.path().into()));
    world.begin(1);
    let range = world.grant(10);
    world.begin(2);
    let other = world.grant(10);
    let granted = || SqliteStore::open(dir.path()).unwrap().granted().unwrap();
    assert_eq!(granted(), [range, other]);
    // With a higher end of those that are used up, which is the other session's.
    world.applied += 1;
    world.commit(Batch { next_id: other.first + 4, ..file_batch(world.alice, 1, 2000) });
    assert_eq!(granted(), [IdRange { first: other.first + 4, ..other }], "the first missed an op");
    let alice = world.alice;
    drop(world);
    let store = SqliteStore::open(dir.path()).unwrap();
    let back = store.resume(alice, &resumption(1, 1, 2)).unwrap().unwrap();
    assert_eq!(back.missed, missed(0, &[1, 2000]));
}
