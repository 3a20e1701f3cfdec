//! Accounts that were removed: what is kept of them, for how long, and what a restored one has lost.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Instant, SystemTime};

use support::{
    account, batch, client, delivery, device_id, device_key, file_batch, name, record, resumable,
    resumption, time,
};
use tokio::runtime::Runtime;
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{DeliveryEffect, Need, Quota};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino, Timestamp};
use xfer_store::embedded::{OlderDatabase, Serving, SqliteStore};
use xfer_store::{
    Account, AccountId, Answer, Batch, Change, CodeHash, Committed, Enrolment, Invitation,
    Location, NewAccount, Removed, Resumable, Store, StoreError, Use,
};

const DAY: i64 = 24 * 60 * 60;

/// A time so late that the store itself, by this machine's clock, deletes nothing.
const LATE: i64 = 1 << 40;

struct World {
    store: Store,
    runtime: Runtime,
}

impl World {
    fn open(location: &Location) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving =
            Serving { older: OlderDatabase::Refuse, keep_lost_days: 7, keep_removed_days: 30 };
        let opened = xfer_store::open(location, Use::Serve(serving));
        let store = runtime.block_on(opened).unwrap();
        World { store, runtime }
    }

    fn ask<T>(&self, answer: Answer<'_, T>) -> Result<T, StoreError> {
        self.runtime.block_on(answer)
    }

    fn get<T>(&self, answer: Answer<'_, T>) -> T {
        self.ask(answer).unwrap()
    }

    fn create(&self, user: &str) -> AccountId {
        let (name, password, time) = (name(user), Some("hash".to_owned()), time(1));
        let (quota, inbox) = (Quota { bytes: 9000, nodes: 90 }, Quota { bytes: 9001, nodes: 91 });
        self.get(self.store.accounts.create(NewAccount { name, password, quota, inbox, time }))
    }

    fn find(&self, user: &str) -> Option<Account> {
        self.get(self.store.accounts.find(name(user)))
    }

    fn commit(&self, batch: Batch) -> Committed {
        self.get(self.store.trees.commit(vec![batch])).pop().unwrap().unwrap()
    }

    fn has_file(&self, account: AccountId, ino: u64) -> bool {
        let found = self.get(self.store.trees.load(account, vec![Need::Node(Ino(ino))]));
        found.nodes.iter().any(|(found, node)| found.0 == ino && node.is_some())
    }

    fn removed(&self) -> Vec<Removed> {
        self.get(self.store.accounts.removed())
    }

    fn state(&self, from: AccountId, id: u64) -> DeliveryState {
        self.get(self.store.deliveries.state(from, DeliveryId(id)))
    }

    fn waits(&self, to: AccountId) -> Vec<u64> {
        let waiting = self.get(self.store.deliveries.waiting(to, 0, 10));
        waiting.into_iter().map(|(_, head)| head.id.0).collect()
    }
}

/// Runs a check on a store of each kind.
fn on_both(check: impl Fn(&World)) {
    let dir = tempfile::tempdir().unwrap();
    for location in [Location::Memory, Location::Sqlite(dir.path().into())] {
        check(&World::open(&location));
    }
}

/// A batch that sends a delivery to a user.
fn sending(from: AccountId, id: u64, to: &str) -> Batch {
    let mut sending = batch(from, id);
    sending.nodes.push((Ino(id), Some(record(id).into())));
    sending.references.push((ContentId(100 + id), 1));
    let (to, root, delivery) = (name(to), Ino(id), delivery(id, 100 + id).into());
    sending.deliveries.push(DeliveryEffect::Sent { to, root, delivery });
    sending
}

#[test]
fn a_restored_account_is_what_it_was_without_its_keys_invitation_and_sessions() {
    on_both(|world| {
        let accounts = &world.store.accounts;
        let alice = world.create("alice");
        world.get(accounts.change(alice, Change::TakesPasswords(false)));
        world.get(accounts.change(alice, Change::DisabledFrom(Some(time(5000)))));
        world.get(world.store.keys.enrol(alice, device_key(1, 10)));
        let begun = world.get(world.store.trees.begin(alice, client(resumable(1, 1))));
        let mut file = file_batch(alice, 1, 2000);
        file.epoch = begun.account.epoch;
        assert!(matches!(world.commit(file.clone()), Committed::Durable(_)));
        let invitation = Invitation { code: CodeHash([7; 32]), expires: time(900) };
        world.get(world.store.keys.invite(alice, invitation));
        let before = world.find("alice").unwrap();

        world.get(accounts.remove(alice, time(LATE + 100)));
        assert_eq!(world.find("alice"), None);
        assert_eq!(world.get(accounts.list()), []);
        let after = Account { epoch: Epoch(before.epoch.0 + 1), ..before };
        let (at, until) = (time(LATE + 100), time(LATE + 100 + 30 * DAY));
        assert_eq!(world.removed(), [Removed { account: after.clone(), at, until }]);
        // What its session and its machines still want is refused.
        file.applied.0 += 1;
        assert_eq!(world.commit(file), Committed::Fenced);
        let refused = |answer: Result<(), StoreError>| {
            assert!(matches!(answer, Err(StoreError::NoAccount)), "{answer:?}");
        };
        refused(world.ask(world.store.trees.begin(alice, client(resumable(2, 1)))).map(drop));
        refused(world.ask(world.store.keys.enrol(alice, device_key(2, 20))).map(drop));
        refused(world.ask(world.store.keys.invite(alice, invitation)));
        refused(world.ask(accounts.change(alice, Change::Password("other".to_owned()))));
        refused(world.ask(accounts.remove(alice, time(LATE + 200))));
        let resumed = world.ask(world.store.trees.resume(alice, resumption(1, 1, 2)));
        assert!(!matches!(resumed, Ok(Some(_))), "{resumed:?}");

        world.get(accounts.restore(alice, name("alice")));
        assert_eq!(world.find("alice"), Some(after));
        assert!(world.has_file(alice, 2000));
        assert_eq!(world.removed(), []);
        assert_eq!(world.get(world.store.keys.of(alice)), []);
        assert_eq!(world.get(accounts.sessions()), []);
        let with = Resumable { device: Some(device_id(3)), ..resumable(3, 1) };
        let redeemed = world.store.keys.redeem(alice, CodeHash([7; 32]), device_key(3, 300), None);
        assert_eq!(world.get(redeemed), Enrolment::NotInvited);
        let begun = world.get(world.store.trees.begin(alice, client(with)));
        assert_eq!(begun.account.applied.0, 1);
        refused(world.ask(accounts.restore(alice, name("other"))));
    });
}

#[test]
fn a_name_is_free_once_its_account_is_removed_and_each_of_that_name_is_kept_apart() {
    on_both(|world| {
        let accounts = &world.store.accounts;
        let first = world.create("alice");
        world.get(accounts.remove(first, time(LATE + 100)));
        let second = world.create("alice");
        world.get(accounts.remove(second, time(LATE + 100)));
        let third = world.create("alice");
        let removed: Vec<_> = world.removed().iter().map(|one| one.account.id).collect();
        assert_eq!(removed, [second, first]);
        let taken = world.ask(accounts.restore(first, name("alice")));
        assert!(matches!(taken, Err(StoreError::Exists(_))), "{taken:?}");
        assert_eq!(world.removed().len(), 2);
        world.get(accounts.restore(first, name("al")));
        assert_eq!(world.find("al").unwrap().id, first);
        assert_eq!(world.find("alice").unwrap().id, third);
        // One that was removed can be deleted before its time.
        world.get(accounts.give_up(second));
        assert_eq!(world.removed(), []);
        let gone = world.ask(accounts.restore(second, name("alices")));
        assert!(matches!(gone, Err(StoreError::NoAccount)), "{gone:?}");
        // One that is there can't: it has to be removed first.
        let there = world.ask(accounts.give_up(third));
        assert!(matches!(there, Err(StoreError::NoAccount)), "{there:?}");
    });
}

#[test]
fn a_removed_account_is_deleted_when_its_days_are_over_and_not_before() {
    on_both(|world| {
        let accounts = &world.store.accounts;
        let alice = world.create("alice");
        assert!(matches!(world.commit(file_batch(alice, 1, 2000)), Committed::Durable(_)));
        world.get(accounts.remove(alice, time(LATE + 100)));
        assert_eq!(world.get(accounts.days_kept()), 30);
        world.get(accounts.clear_deleted(time(LATE + 99 + 30 * DAY)));
        assert!(world.has_file(alice, 2000) && world.removed().len() == 1);
        world.get(accounts.keep_removed(31));
        world.get(accounts.clear_deleted(time(LATE + 100 + 30 * DAY)));
        assert_eq!(world.removed()[0].until, time(LATE + 100 + 31 * DAY));
        world.get(accounts.clear_deleted(time(LATE + 100 + 31 * DAY)));
        assert!(!world.has_file(alice, 2000) && world.removed().is_empty());
        // No days at all: it goes with the next look.
        let bob = world.create("bob");
        world.get(accounts.keep_removed(0));
        world.get(accounts.remove(bob, time(LATE + 200)));
        assert_eq!(world.removed()[0].until, time(LATE + 200));
        world.get(accounts.clear_deleted(time(LATE + 200)));
        assert_eq!(world.removed(), []);
    });
}

#[test]
fn what_a_removed_account_was_sent_waits_for_it_and_is_refused_when_it_is_deleted() {
    on_both(|world| {
        let accounts = &world.store.accounts;
        let (alice, bob) = (world.create("alice"), world.create("bob"));
        world.commit(sending(alice, 2001, "bob"));
        world.commit(sending(bob, 2002, "alice"));
        world.get(accounts.remove(bob, time(LATE + 100)));
        // It waits, and what comes now finds nobody.
        assert_eq!(world.waits(bob), [2001]);
        assert!(matches!(world.state(alice, 2001), DeliveryState::Sent(_)));
        world.commit(sending(alice, 2003, "bob"));
        assert!(matches!(world.state(alice, 2003), DeliveryState::Refused(_)));
        // What it sent itself is accepted, and its record tells it so when it is back.
        let mut accepting = batch(alice, 2004);
        accepting.deliveries.push(DeliveryEffect::Accepted(DeliveryId(2002)));
        assert!(matches!(world.commit(accepting), Committed::Durable(_)));
        world.get(accounts.restore(bob, name("robert")));
        assert!(matches!(world.state(bob, 2002), DeliveryState::Received(_)));
        assert_eq!(world.waits(bob), [2001]);
        assert_eq!(world.find("robert").unwrap().waiting.nodes, 3);
        world.get(accounts.remove(bob, time(LATE + 200)));
        world.get(accounts.clear_deleted(time(LATE + 200 + 30 * DAY)));
        assert!(matches!(world.state(alice, 2001), DeliveryState::Refused(_)));
        assert_eq!(world.waits(bob), []);
    });
}

#[test]
fn a_removed_account_is_kept_by_a_store_that_is_opened_again_and_deleted_by_the_server_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::from(SystemTime::now());
    let alice = {
        let rows = SqliteStore::open(dir.path()).unwrap();
        let (alice, bob) = (account(&rows, "alice"), account(&rows, "bob"));
        rows.remove_account(alice, now).unwrap();
        // Longer ago than the server keeps it.
        rows.remove_account(bob, time(100)).unwrap();
        alice
    };
    let rows = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(rows.removed_accounts().unwrap().len(), 2);
    drop(rows);
    let world = World::open(&Location::Sqlite(dir.path().into()));
    let start = Instant::now();
    while world.removed().len() > 1 {
        assert!(start.elapsed().as_secs() < 50, "{:?}", world.removed());
        std::thread::yield_now();
    }
    let left = world.removed().remove(0).account;
    assert_eq!((left.id, left.name), (alice, name("alice")));
}
