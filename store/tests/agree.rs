//! Both engines, in memory and for one machine, give the same answers to random calls.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Debug;
use std::mem::discriminant;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use support::{
    batch, client, delivery, device_id, device_key, name, node, record, resumable, resumption,
    session_id, time,
};
use tokio::runtime::Runtime;
use xfer_protocol::tree::{DeliveryEffect, FileData, Kind, Need, Node, Quota, SpecialKind, Usage};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino};
use xfer_store::embedded::{Beside, OlderDatabase, Serving};
use xfer_store::{
    Account, AccountId, Batch, Beginner, Change, CodeHash, Effect, Fate, ForgottenBefore,
    Invitation, Left, ListMax, Location, NewAccount, Pair, Part, Purpose, Removed, Reservation,
    Resumable, Resumed, Revoked, Store, StoreError, Use, WrongPasswords,
};

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const CONTENTS: u64 = 5;
const SESSIONS: u8 = 5;
const DELIVERIES: u64 = 5;
const DEVICES: u8 = 4;

/// A call, or several that belong together. Numbers are small, so that calls collide.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(usize, u64, Vec<Row>)>),
    /// With a session for its client to resume (0 for a command's session), the secret, and a
    /// session to be replaced (0 for none). Odd ones are begun with the key of a device.
    Begin(usize, u8, u8, u8),
    /// With the session, the secret shown and the next one.
    Resume(usize, u8, [u8; 2]),
    End(usize, Vec<u64>, Fate),
    /// Of the session that has no client.
    ForgetSession(usize),
    /// Of one that is dormant.
    GiveUp(usize, u8),
    /// All that are dormant.
    ForgetDormant(usize),
    Create(usize),
    Remove(usize),
    /// One of those that were removed, under a name.
    Restore(usize, usize),
    /// One of those that were removed.
    GiveUpRemoved(usize),
    /// With the days that removed accounts are kept, and those that have passed.
    ClearDeleted(u16, i64),
    Change(usize, u64),
    Perform(Vec<Effect>),
    Reserve {
        from: usize,
        to: usize,
        ino: u64,
        bytes: u64,
        secs: i64,
    },
    Release(usize),
    Claim(usize, bool),
    Fail(usize, u32),
    Forget(i64),
    Enrol(usize, u8),
    Revoke(usize, Revoked),
    Expire(usize, u8, i64),
    /// With the code, and for how long it is good.
    Invite(usize, u8, i64),
    Redeem(usize, u8, u8, bool),
    Grant(usize, u64),
}

/// A change within a batch.
#[derive(Clone, Debug)]
enum Row {
    Node(u64, u64),
    Name(u64, u64, u64),
    Unname(u64, u64),
    Refer(u64, i64),
    Send(usize, u64, u64),
    Accept(u64),
    Decline(u64),
    Unrecord(u64),
}

fn row() -> impl Strategy<Value = Row> {
    prop_oneof![
        3 => (10..16u64, 0..1000u64).prop_map(|(ino, size)| Row::Node(ino, size)),
        3 => (1..4u64, 0..4u64, 10..16u64).prop_map(|(at, name, ino)| Row::Name(at, name, ino)),
        1 => (1..4u64, 0..4u64).prop_map(|(at, name)| Row::Unname(at, name)),
        2 => (0..CONTENTS, -1..3i64).prop_map(|(content, by)| Row::Refer(content, by)),
        3 => (0..4usize, 0..DELIVERIES, 0..CONTENTS).prop_map(|(to, id, c)| Row::Send(to, id, c)),
        2 => (0..DELIVERIES).prop_map(Row::Accept),
        1 => (0..DELIVERIES).prop_map(Row::Decline),
        1 => (0..DELIVERIES).prop_map(Row::Unrecord),
    ]
}

fn effect() -> impl Strategy<Value = Effect> {
    let content = || (0..CONTENTS).prop_map(|id| ContentId(200 + id));
    let place = || prop_oneof![0..10_000u64, (0..40u64).prop_map(|block| block * 4096)];
    prop_oneof![
        2 => content().prop_map(|content| Effect::Create { content }),
        4 => (content(), place(), any::<u8>(), 0..9000usize).prop_map(|(content, offset, byte, len)| {
            Effect::Write { content, offset, data: Bytes::from(vec![byte | 1; len]) }
        }),
        2 => (content(), place(), place()).prop_map(|(content, offset, len)| {
            Effect::Zero { content, range: offset..offset + len }
        }),
        1 => (content(), content(), place()).prop_map(|(from, to, len)| {
            Effect::Clone { from, to, ranges: std::iter::once(0..len).collect() }
        }),
        2 => (content(), place(), content(), place(), place()).prop_map(|(from, at, to, offset, len)| {
            Effect::Copy { from: (from, at), to: (to, offset), len }
        }),
        1 => content().prop_map(|content| Effect::Remove { content }),
    ]
}

fn key_step() -> impl Strategy<Value = Step> {
    let user = || 0..USERS.len();
    let device = || 0..DEVICES;
    let some = prop::option::of(device()).prop_map(|kept| Revoked::AllBut(kept.map(device_id)));
    let revoked =
        prop_oneof![3 => device().prop_map(|key| Revoked::Key(device_id(key))), 1 => some];
    prop_oneof![
        4 => (user(), device()).prop_map(|(user, key)| Step::Enrol(user, key)),
        2 => (user(), revoked).prop_map(|(user, which)| Step::Revoke(user, which)),
        1 => (user(), device(), 0..3i64).prop_map(|(user, key, at)| Step::Expire(user, key, at)),
        2 => (user(), 0..3u8, -10..30i64)
            .prop_map(|(user, code, good)| Step::Invite(user, code, good)),
        3 => (user(), 0..3u8, device(), any::<bool>())
            .prop_map(|(user, code, key, sets)| Step::Redeem(user, code, key, sets)),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![1 => Just(Fate::Over), 1 => Just(Fate::Resumable), 2 => Just(Fate::Yielded)]
}

fn step() -> impl Strategy<Value = Step> {
    let user = || 0..USERS.len();
    let batch = (user(), 0..8u64, prop::collection::vec(row(), 0..5));
    prop_oneof![
        8 => prop::collection::vec(batch, 1..4).prop_map(Step::Commit),
        4 => (user(), 0..SESSIONS, 0..3u8, 0..2 * SESSIONS).prop_map(
            |(user, session, secret, replaced)| Step::Begin(user, session, secret, replaced)
        ),
        5 => (user(), 0..SESSIONS, [0..3u8, 0..3u8])
            .prop_map(|(user, session, secrets)| Step::Resume(user, session, secrets)),
        2 => (user(), prop::collection::vec(200..200 + CONTENTS, 0..2), fate())
            .prop_map(|(user, created, fate)| Step::End(user, created, fate)),
        1 => user().prop_map(Step::ForgetSession),
        1 => (user(), 0..SESSIONS).prop_map(|(user, session)| Step::GiveUp(user, session)),
        1 => user().prop_map(Step::ForgetDormant),
        1 => user().prop_map(Step::Create),
        1 => user().prop_map(Step::Remove),
        2 => (0..3usize, user()).prop_map(|(which, name)| Step::Restore(which, name)),
        1 => (0..3usize).prop_map(Step::GiveUpRemoved),
        1 => (0..3u16, 0..3i64).prop_map(|(kept, passed)| Step::ClearDeleted(kept, passed)),
        1 => (user(), 0..12u64).prop_map(|(user, items)| Step::Change(user, items)),
        4 => prop::collection::vec(effect(), 1..5).prop_map(Step::Perform),
        3 => (user(), 0..4usize, 10..14u64, 0..40_000u64, 0..2000i64).prop_map(
            |(from, to, ino, bytes, secs)| Step::Reserve { from, to, ino, bytes, secs }
        ),
        1 => user().prop_map(Step::Release),
        1 => (user(), any::<bool>()).prop_map(|(user, alone)| Step::Claim(user, alone)),
        1 => (user(), 0..3u32).prop_map(|(user, count)| Step::Fail(user, count)),
        1 => (0..40i64).prop_map(Step::Forget),
        6 => key_step(),
        1 => (user(), 1..9u64).prop_map(|(user, count)| Step::Grant(user, count)),
    ]
}

/// A step in which sessions of one account follow each other, and some change its tree.
fn turn() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec(row(), 0..4);
    prop_oneof![
        4 => (1..8u64, rows).prop_map(|(late, rows)| Step::Commit(vec![(0, late, rows)])),
        3 => (0..SESSIONS, 0..2u8, 0..3 * SESSIONS)
            .prop_map(|(session, secret, replaced)| Step::Begin(0, session, secret, replaced)),
        6 => (1..SESSIONS, [0..2u8, 0..2u8])
            .prop_map(|(session, secrets)| Step::Resume(0, session, secrets)),
        2 => fate().prop_map(|fate| Step::End(0, Vec::new(), fate)),
        1 => Just(Step::ForgetSession(0)),
        1 => (1..SESSIONS).prop_map(|session| Step::GiveUp(0, session)),
        1 => Just(Step::ForgetDormant(0)),
        1 => (0..12u64).prop_map(|items| Step::Change(0, items)),
        2 => (1..9u64).prop_map(|count| Step::Grant(0, count)),
    ]
}

/// Both engines, and the state that a server would keep about them.
struct Pairing {
    runtime: Runtime,
    stores: [Store; 2],
    accounts: [AccountId; USERS.len()],
    epochs: [u64; USERS.len()],
    applied: u64,
    secs: i64,
    _dir: tempfile::TempDir,
}

/// An answer in a form to compare: of an error only its variant.
fn told<T: Debug>(answer: &Result<T, StoreError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{:?}", discriminant(error)),
    }
}

/// Asks both engines, fails the test unless their answers are equal, and returns both answers.
macro_rules! both {
    ($pairing:expr, |$store:ident| $ask:expr) => {{
        let answers = [0, 1].map(|engine| {
            let $store = &$pairing.stores[engine];
            $pairing.runtime.block_on(async { $ask.await })
        });
        assert_eq!(told(&answers[0]), told(&answers[1]), "{}", stringify!($ask));
        let [answer, _] = answers;
        answer
    }};
}

/// A file without a content. Some have no name.
fn plain(size: u64) -> Node {
    let data = FileData { size, ..FileData::default() };
    Node { nlink: (size % 3) as u32, ..node(Kind::File(data)) }
}

fn to(user: usize) -> xfer_protocol::Name {
    name(USERS.get(user).unwrap_or(&"nobody"))
}

impl Pairing {
    fn new() -> Pairing {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving =
            Serving { older: OlderDatabase::Refuse, keep_lost_days: 7, keep_removed_days: 30 };
        let open = |location: Location| {
            runtime.block_on(xfer_store::open(&location, Use::Serve(serving))).unwrap()
        };
        let stores = [open(Location::Memory), open(Location::Sqlite(dir.path().into()))];
        let ids = stores
            .each_ref()
            .map(|store| runtime.block_on(store.trees.grant_ids(AccountId(0), 1)).unwrap());
        assert!(ids[0].first <= ids[1].first, "the other one has counted on");
        let none = [AccountId(0); USERS.len()];
        // So late that the store on disk, by this machine's clock, deletes no removed account itself.
        let (epochs, applied, secs) = ([0; USERS.len()], 0, 1 << 40);
        let mut pairing =
            Pairing { runtime, stores, accounts: none, epochs, applied, secs, _dir: dir };
        (0..USERS.len()).for_each(|user| pairing.create(user));
        pairing
    }

    fn create(&mut self, user: usize) {
        let new = || NewAccount {
            name: to(user),
            password: (user > 0).then(|| "hash".to_owned()),
            quota: Quota::UNLIMITED,
            inbox: Quota { bytes: 30_000, nodes: 7 },
            time: time(1),
        };
        if let Ok(id) = both!(self, |store| store.accounts.create(new())) {
            (self.accounts[user], self.epochs[user]) = (id, 0);
        }
    }

    /// One of the removed accounts.
    fn removed(&self, which: usize) -> Option<Removed> {
        let removed = self.runtime.block_on(self.stores[0].accounts.removed()).unwrap();
        removed.into_iter().nth(which)
    }

    /// Restores one of the removed accounts, or tries to restore one that is not.
    fn restore(&mut self, which: usize, user: usize) {
        let removed = self.removed(which);
        let account = removed.as_ref().map_or(self.accounts[user], |one| one.account.id);
        let restored = both!(self, |store| store.accounts.restore(account, to(user)));
        if let (Ok(()), Some(removed)) = (restored, removed) {
            (self.accounts[user], self.epochs[user]) = (account, removed.account.epoch.0);
        }
    }

    /// A batch as a session would send it: each row once, and no entry without its node.
    fn batch(&mut self, user: usize, late: u64, rows: &[Row]) -> Batch {
        self.applied += 1;
        let mut made = batch(self.accounts[user], self.applied);
        // Sometimes the epoch of an earlier session.
        made.epoch = Epoch(self.epochs[user].saturating_sub(u64::from(late == 0)));
        made.time = time(self.secs);
        for row in rows {
            self.add(&mut made, row);
        }
        made
    }

    fn add(&self, made: &mut Batch, row: &Row) {
        let put = |made: &mut Batch, ino: u64, node: Node| {
            if made.nodes.iter().all(|(there, _)| there.0 != ino) {
                made.nodes.push((Ino(ino), Some(Arc::new(node))));
            }
        };
        let refer = |made: &mut Batch, content: u64, by: i64| {
            let content = ContentId(content);
            match made.references.iter_mut().find(|(id, _)| *id == content) {
                Some((_, sum)) => *sum += by,
                None => made.references.push((content, by)),
            }
        };
        match *row {
            Row::Node(ino, size) => put(made, ino, plain(size)),
            Row::Name(at, number, ino) => {
                let is_new = made.entries.iter().all(|(there, other, _)| {
                    there.0 != at || *other != name(&format!("n{number}"))
                });
                if is_new {
                    put(made, ino, node(Kind::Special(SpecialKind::Fifo)));
                    made.entries.push((Ino(at), name(&format!("n{number}")), Some(Ino(ino))));
                }
            }
            Row::Unname(at, number) => {
                let name = name(&format!("n{number}"));
                if made.entries.iter().all(|(there, other, _)| there.0 != at || *other != name) {
                    made.entries.push((Ino(at), name, None));
                }
            }
            Row::Refer(content, by) => refer(made, 200 + content, by),
            Row::Send(user, id, content) => {
                let sent = |effect: &DeliveryEffect| matches!(effect, DeliveryEffect::Sent { delivery, .. } if delivery.id.0 == id);
                if made.deliveries.iter().any(sent) {
                    return;
                }
                put(made, 1000 + id, record(id));
                refer(made, 100 + content, 1);
                let (root, delivery) = (Ino(10 + id), Arc::new(delivery(id, 100 + content)));
                made.deliveries.push(DeliveryEffect::Sent { to: to(user), root, delivery });
            }
            Row::Accept(id) => made.deliveries.push(DeliveryEffect::Accepted(DeliveryId(id))),
            Row::Decline(id) => made.deliveries.push(DeliveryEffect::Declined(DeliveryId(id))),
            Row::Unrecord(id) => {
                if made.nodes.iter().all(|(there, _)| there.0 != 1000 + id) {
                    made.nodes.push((Ino(1000 + id), None));
                    made.unrecorded.push(DeliveryId(id));
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        self.secs += 7;
        match step {
            Step::Commit(batches) => {
                let made: Vec<Batch> = batches
                    .iter()
                    .map(|(user, late, rows)| self.batch(*user, *late, rows))
                    .collect();
                let each = |answer: Result<Vec<Result<_, StoreError>>, StoreError>| {
                    answer.map(|each| each.iter().map(told).collect::<Vec<_>>())
                };
                let _ = both!(self, |store| async { each(store.trees.commit(made.clone()).await) });
            }
            Step::Begin(user, session, secret, replaced) => {
                let account = self.accounts[*user];
                let replaces = (1..SESSIONS).contains(replaced).then(|| session_id(*replaced));
                let by = || match session {
                    0 => Beginner::Claimant,
                    session => {
                        let device = (session % 2 == 1).then(|| device_id(session % DEVICES));
                        let session = Resumable { device, ..resumable(*session, *secret) };
                        Beginner::Client { session, replaces }
                    }
                };
                let begun = both!(self, |store| async {
                    let begun = store.trees.begin(account, by()).await;
                    begun.map(|begun| (untidied(begun.account), begun.orphans))
                });
                if let Ok((account, _)) = begun {
                    self.epochs[*user] = account.epoch.0;
                }
            }
            Step::Resume(user, session, [shown, next]) => {
                let (account, with) = (self.accounts[*user], resumption(*session, *shown, *next));
                let resumed = both!(self, |store| async {
                    let resumed = store.trees.resume(account, with.clone()).await;
                    // The two engines grant other numbers.
                    let told = |one: Resumed| {
                        let lens = one.granted.iter().map(|range| range.end - range.first);
                        (
                            untidied(one.account),
                            lens.collect::<Vec<_>>(),
                            one.next_id,
                            one.quota,
                            one.missed,
                        )
                    };
                    resumed.map(|one| one.map(told))
                });
                if let Ok(Some((account, ..))) = resumed {
                    self.epochs[*user] = account.epoch.0;
                }
            }
            Step::End(user, created, fate) => {
                let (account, epoch) = (self.accounts[*user], Epoch(self.epochs[*user]));
                let created: Vec<_> = created.iter().copied().map(ContentId).collect();
                let left = || Left { created: created.clone(), written: Vec::new() };
                both!(self, |store| store.trees.end(account, epoch, left(), *fate)).unwrap();
            }
            Step::ForgetSession(user) => {
                let (account, epoch) = (self.accounts[*user], Epoch(self.epochs[*user]));
                both!(self, |store| store.trees.forget(account, epoch)).unwrap();
            }
            Step::GiveUp(user, session) => {
                let (account, session) = (self.accounts[*user], session_id(*session));
                both!(self, |store| store.trees.give_up(account, session)).unwrap();
            }
            Step::ForgetDormant(user) => {
                let account = self.accounts[*user];
                both!(self, |store| store.trees.forget_dormant(account)).unwrap();
            }
            Step::Create(user) => self.create(*user),
            Step::Remove(user) => {
                let (account, now) = (self.accounts[*user], time(self.secs));
                let _ = both!(self, |store| store.accounts.remove(account, now));
            }
            Step::Restore(which, user) => self.restore(*which, *user),
            Step::GiveUpRemoved(which) => {
                let account = self.removed(*which).map_or(AccountId(1), |one| one.account.id);
                let _ = both!(self, |store| store.accounts.give_up(account));
            }
            Step::ClearDeleted(kept, passed) => {
                both!(self, |store| store.accounts.keep_removed(*kept)).unwrap();
                let now = time(self.secs + passed * 24 * 60 * 60);
                both!(self, |store| store.accounts.clear_deleted(now)).unwrap();
            }
            Step::Change(user, items) => {
                let account = self.accounts[*user];
                let inbox = Quota { bytes: 5_000 * items, nodes: *items };
                let _ = both!(self, |store| store.accounts.change(account, Change::Inbox(inbox)));
                let quota = Quota { bytes: *items, nodes: 5 };
                let _ = both!(self, |store| store.accounts.change(account, Change::Quota(quota)));
                let password = || Change::Password(format!("hash {items}"));
                if *items == 0 {
                    let _ = both!(self, |store| store.accounts.change(account, password()));
                }
                let takes = || Change::TakesPasswords(*items > 1);
                let _ = both!(self, |store| store.accounts.change(account, takes()));
            }
            Step::Perform(effects) => {
                let effects = &self.within(effects);
                let at = |done: Result<(), xfer_store::Undone>| {
                    Ok(done.map_err(|undone| (undone.at, discriminant(&undone.error))))
                };
                let _ = both!(self, |store| async {
                    at(store.contents.perform(effects.clone()).await)
                });
            }
            Step::Reserve { from, to: user, ino, bytes, secs } => {
                self.secs += secs;
                let reservation = || Reservation {
                    from: self.accounts[*from],
                    epoch: Epoch(self.epochs[*from]),
                    to: to(*user),
                    ino: Ino(*ino),
                    size: Usage { bytes: *bytes, nodes: 3 },
                };
                both!(self, |store| store.deliveries.reserve(reservation())).unwrap();
            }
            Step::Release(user) => {
                let account = self.accounts[*user];
                both!(self, |store| store.deliveries.release(account)).unwrap();
            }
            Step::Claim(user, alone) => self.claim(self.accounts[*user], *alone),
            Step::Fail(user, count) => {
                let wrong = || WrongPasswords {
                    user: if *user == 0 { String::new() } else { USERS[*user].to_owned() },
                    address: "::1".to_owned(),
                    count: *count,
                    last: time(i64::from(*count) * 10),
                    blocked_until: time(5),
                };
                both!(self, |store| store.failures.set(vec![wrong()])).unwrap();
            }
            Step::Forget(secs) => {
                let before = ForgottenBefore { users: time(*secs), sources: time(secs / 2) };
                both!(self, |store| store.failures.forget(before)).unwrap();
            }
            Step::Enrol(user, key) => {
                let (account, key) = (self.accounts[*user], device_key(*key, self.secs));
                let _ = both!(self, |store| store.keys.enrol(account, key.clone()));
            }
            Step::Revoke(user, which) => {
                let account = self.accounts[*user];
                both!(self, |store| store.keys.revoke(account, *which)).unwrap();
            }
            Step::Expire(user, key, at) => {
                let (account, key) = (self.accounts[*user], device_id(*key));
                let at = (*at > 0).then(|| time(*at));
                both!(self, |store| store.keys.set_expiry(account, key, at)).unwrap();
            }
            Step::Invite(user, code, good) => {
                let account = self.accounts[*user];
                let (code, expires) = (CodeHash([*code; 32]), time(self.secs + good));
                let invitation = Invitation { code, expires };
                let _ = both!(self, |store| store.keys.invite(account, invitation));
            }
            Step::Redeem(user, code, key, sets) => {
                let (account, key) = (self.accounts[*user], device_key(*key, self.secs));
                let (code, password) = (CodeHash([*code; 32]), sets.then(|| "new".to_owned()));
                let _ = both!(self, |store| {
                    store.keys.redeem(account, code, key.clone(), password.clone())
                });
            }
            Step::Grant(user, count) => {
                let account = self.accounts[*user];
                for store in &self.stores {
                    let granted = store.trees.grant_ids(account, *count);
                    let range = self.runtime.block_on(granted).unwrap();
                    assert_eq!(range.end - range.first, *count);
                }
            }
        }
    }

    /// The length of a content, or `None` if it does not exist. A read past the end fails.
    fn len(&self, content: ContentId) -> Option<u64> {
        let can_read =
            |len: u64| self.runtime.block_on(self.stores[0].contents.read(content, 0..len)).is_ok();
        if !can_read(0) {
            return None;
        }
        let (mut least, mut beyond) = (0, 1 << 20);
        while least + 1 < beyond {
            let middle = (least + beyond) / 2;
            if can_read(middle) { least = middle } else { beyond = middle }
        }
        Some(least)
    }

    /// The same effects, but with sources of copies cut to the content's present length.
    fn within(&self, effects: &[Effect]) -> Vec<Effect> {
        let fit = |effect: &Effect| match effect {
            Effect::Copy { from: (from, at), to, len } => {
                let end = self.len(*from).unwrap_or(0);
                let at = at % (end + 1);
                Effect::Copy { from: (*from, at), to: *to, len: (*len).min(end - at) }
            }
            Effect::Clone { from, to, ranges } => {
                let end = self.len(*from).unwrap_or(0);
                let fit = |range: &std::ops::Range<u64>| 0..range.end.min(end);
                Effect::Clone { from: *from, to: *to, ranges: ranges.iter().map(fit).collect() }
            }
            other => other.clone(),
        };
        effects.iter().map(fit).collect()
    }

    /// Checks the answers to claims, and that a client's session can't begin meanwhile.
    fn claim(&self, account: AccountId, alone: bool) {
        let purpose = if alone { Purpose::Change } else { Purpose::Read };
        let [held, others]: [Vec<_>; 2] = [Purpose::Read, Purpose::Change].map(|other| {
            let claim = |store: &Store| {
                self.runtime.block_on(async {
                    let _held = store.accounts.claim(account, purpose).await.unwrap();
                    let beside = store.accounts.claim(account, other).await;
                    let begun = store.trees.begin(account, client(resumable(1, 1))).await;
                    assert!(matches!(begun, Err(StoreError::Claimed)));
                    let resumed = store.trees.resume(account, resumption(1, 1, 1)).await;
                    assert!(matches!(resumed, Err(StoreError::Claimed)));
                    beside.is_ok()
                })
            };
            self.stores.iter().map(claim).collect()
        });
        assert_eq!((held, others), (vec![!alone; 2], vec![false; 2]));
    }

    fn check_equal(&self) {
        let max = ListMax { count: 3, bytes: 1 << 20 };
        for account in self.accounts {
            let nodes = (1..16).map(|ino| Need::Node(Ino(ino)));
            let names = (0..4).map(|number| Need::Entry(Ino(2), name(&format!("n{number}"))));
            let waits = (0..DELIVERIES).map(|id| Need::Delivery(DeliveryId(id)));
            let children = (1..4).map(|ino| Need::Children(Ino(ino)));
            let needs: Vec<Need> = nodes.chain(names).chain(waits).chain(children).collect();
            both!(self, |store| store.trees.load(account, needs.clone())).unwrap();
            let part = |directory| Part { directory: Ino(directory), after: Some(name("n0")), max };
            let parts = || (1..4).map(part).collect();
            both!(self, |store| store.trees.list(account, parts())).unwrap();
            both!(self, |store| store.trees.resumable(account)).unwrap();
            both!(self, |store| store.keys.of(account)).unwrap();
            for session in (0..SESSIONS).map(session_id) {
                both!(self, |store| store.trees.session_of(account, session)).unwrap();
            }
            let waiting = both!(self, |store| async {
                let waiting = store.deliveries.waiting(account, 0, 10).await;
                // Only the order must agree, not the arrival numbers.
                waiting.map(|all| all.into_iter().map(|(_, head)| head).collect::<Vec<_>>())
            });
            waiting.unwrap();
            both!(self, |store| store.deliveries.without_room(account)).unwrap();
            for id in 0..DELIVERIES {
                both!(self, |store| store.deliveries.state(account, DeliveryId(id))).unwrap();
            }
        }
        both!(self, |store| store.deliveries.count_waiting()).unwrap();
        both!(self, |store| store.keys.count_good(time(self.secs))).unwrap();
        let accounts = both!(self, |store| async {
            let accounts = store.accounts.list().await;
            accounts.map(|all| all.into_iter().map(untidied).collect::<Vec<_>>())
        });
        accounts.unwrap();
        both!(self, |store| store.accounts.sessions()).unwrap();
        let removed = both!(self, |store| async {
            let untidied = |one: Removed| Removed { account: untidied(one.account), ..one };
            let removed = store.accounts.removed().await;
            removed.map(|all| all.into_iter().map(untidied).collect::<Vec<_>>())
        });
        removed.unwrap();
        both!(self, |store| store.failures.list()).unwrap();
        let pair = || Pair { user: "bob".to_owned(), address: "::1".to_owned() };
        both!(self, |store| store.failures.of(vec![pair()])).unwrap();
        // Engines remove garbage in their own time; this makes both do it now.
        both!(self, |store| store.contents.reclaim()).unwrap();
        for content in (0..CONTENTS).map(|content| ContentId(200 + content)) {
            let end = self.len(content).unwrap_or(0);
            let _ = both!(self, |store| store.contents.read(content, 0..end));
            let _ = both!(self, |store| store.contents.read(content, end / 2..end + 1));
            let synced = both!(self, |store| async {
                let each = store.contents.make_durable(vec![vec![content]]).await;
                each.map(|each| each.iter().map(told).collect::<Vec<_>>())
            });
            synced.unwrap();
        }
    }
}

/// An account without what an engine has tidied, which each does in its own time.
fn untidied(account: Account) -> Account {
    Account { tidied: Epoch(0), ..account }
}

fn check(steps: &[Step]) {
    let mut pairing = Pairing::new();
    for step in steps {
        pairing.step(step);
        pairing.check_equal();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_calls_have_the_same_answers_from_both_engines(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        check(&steps);
    }

    #[test]
    fn sessions_that_take_turns_learn_the_same_from_both_engines(
        steps in prop::collection::vec(turn(), 1..60),
    ) {
        check(&steps);
    }
}

#[test]
fn a_store_in_memory_is_a_new_one_each_time() {
    let pairing = Pairing::new();
    let command = Use::Command(Beside::Keeping);
    let other = pairing.runtime.block_on(xfer_store::open(&Location::Memory, command)).unwrap();
    assert_eq!(pairing.runtime.block_on(other.accounts.list()).unwrap(), []);
}
