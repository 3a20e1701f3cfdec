//! Sessions that are resumed over a new link: what a client finds again, and whom it keeps out.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};
use xfer_protocol::message::{
    Answer, Ask, Binding, EndReason, Grant, Purpose, Refusal, Secret, Signature, Terms, ToClient,
    ToServer, Wish,
};
use xfer_protocol::tree::{Action, Quota};
use xfer_protocol::{ContentId, Ino, Seq};
use xfer_server::engine::Engine;
use xfer_store::embedded;

use crate::client::{Lost, Reads};
use crate::storage::faulty_world;
use crate::world::{World, name};

/// The same world after the server has crashed and started again.
pub async fn restarted(world: World) -> World {
    let (meta, files) = world.reopen();
    let store = embedded::over(Arc::new(meta), Arc::new(files));
    let engine = Engine::new(store, 64 << 20);
    world.over_again(engine)
}

/// A client of alice's whose session has left the server's memory.
async fn away(world: &World) -> Lost {
    let mut alice = world.login("alice").await;
    alice.greet().await;
    let lost = alice.lose_link();
    world.until_away("alice").await;
    lost
}

async fn refused(world: &World, lost: &Lost) -> Refusal {
    world.try_resume(lost.request(), lost.binding).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_the_last_op_that_was_applied() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let file = alice.create(Ino::ROOT, "file").await;
    alice.sync().await;
    alice.unlink(Ino::ROOT, "file").await;
    alice.create(Ino::ROOT, "not acknowledged").await;
    let (last, before) = (alice.seq, alice.grant.clone());
    alice.say(&ToServer::Barrier { upto: last }, &[]).await;
    let lost = alice.lose_link();
    world.until_away("alice").await;
    let mut alice = world.resume(lost).await;
    assert_eq!((alice.grant.applied, alice.grant.session), (last, before.session));
    assert!(alice.grant.epoch > before.epoch);
    assert_ne!(alice.grant.resume, before.resume);
    // A program may still have the file open.
    let mut reads = world.reads(&alice.grant).await;
    let (answer, _) = reads.ask(Seq::default(), Ask::Node(file)).await;
    assert!(matches!(answer, Ok(Answer::Node(Some(_)))), "{answer:?}");
    // Its numbers are still granted, and the next ones too.
    alice.create(Ino::ROOT, "next").await;
    alice.sync().await;
    assert_eq!(alice.logout().await, EndReason::LoggedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_after_a_crash_of_the_server() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "file").await;
    alice.sync().await;
    let (last, ids) = (alice.seq, alice.grant.ids.clone());
    let lost = alice.lose_link();
    let world = restarted(world).await;
    // Nobody else gets the seat in the meantime.
    let other = world.try_login("alice", Purpose::Mount).await.err();
    assert!(matches!(other, Some(Refusal::InUse { .. })), "{other:?}");
    let mut alice = world.resume(lost).await;
    assert_eq!(alice.grant.applied, last);
    assert_eq!(alice.grant.ids.last().unwrap().end, ids.last().unwrap().end);
    alice.create(Ino::ROOT, "next").await;
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_after_its_op_found_the_disk_full() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let file = alice.create(Ino::ROOT, "file").await;
    *faulty.fail_write.lock().unwrap() = Some(ErrorKind::StorageFull);
    let fitting = alice.seq;
    alice.write(file, 0, b"data").await;
    assert_eq!(alice.ended().await, EndReason::DiskFull);
    let lost = alice.lose_link();
    world.until_away("alice").await;
    let mut alice = world.resume(lost).await;
    assert_eq!(alice.grant.applied, fitting);
    alice.write(file, 0, b"data").await;
    alice.sync().await;
    assert_eq!(alice.logout().await, EndReason::LoggedOut);
}

/// The ops of a copy from one file to another, and of a write to the first after that.
fn copy_and_write(from: Ino, to: Ino, numbers: [u64; 2]) -> (Vec<Action>, &'static [u8]) {
    let [copied, written] = numbers.map(ContentId);
    let (from_offset, to_offset, len) = (0, 0, 3);
    let copy = Action::CopyRange { from, from_offset, to, to_offset, len, fresh: copied };
    let clear_set_id = false;
    let write = Action::Write { ino: from, offset: 0, len: 3, clear_set_id, fresh: written };
    (vec![copy, write], b"new")
}

async fn content_of(reads: &mut Reads, after: Seq, ino: Ino) -> Vec<u8> {
    let (Ok(Answer::Node(Some(node))), _) = reads.ask(after, Ask::Node(ino)).await else {
        panic!("there is no such file")
    };
    let content = node.content().unwrap();
    let (answer, bytes) = reads.ask(after, Ask::Read { ino, content, offset: 0, len: 3 }).await;
    assert_eq!(answer, Ok(Answer::Data));
    bytes
}

/// The server crashes between a copy and the commit of a write to the file that was copied.
#[test]
fn a_copy_that_is_made_again_copies_what_it_copied_before() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = runtime();
    let (world, lost, [from, to], numbers) = first.block_on(async {
        let (world, faulty) = faulty_world();
        let mut alice = world.login("alice").await;
        let from = alice.create(Ino::ROOT, "from").await;
        let to = alice.create(Ino::ROOT, "to").await;
        // Only a part of it is copied, so the two share nothing.
        alice.write(from, 0, b"old and more").await;
        alice.write(to, 0, b"???").await;
        alice.sync().await;
        // This is never reset, so nothing more is committed.
        let syncs = faulty.syncs.load(Ordering::Relaxed);
        faulty.hold_sync.store(true, Ordering::Relaxed);
        let numbers = [alice.id(), alice.id()];
        let (ops, data) = copy_and_write(from, to, numbers);
        alice.act(ops, data).await;
        while faulty.syncs.load(Ordering::Relaxed) == syncs {
            tokio::task::yield_now().await;
        }
        (world, alice.lose_link(), [from, to], numbers)
    });
    first.shutdown_background();
    runtime().block_on(async {
        let world = restarted(world).await;
        let mut alice = world.resume(lost).await;
        assert_eq!(alice.seq, Seq(4));
        let (ops, data) = copy_and_write(from, to, numbers);
        alice.act(ops, data).await;
        alice.sync().await;
        let mut reads = world.reads(&alice.grant).await;
        assert_eq!(content_of(&mut reads, alice.seq, from).await, b"new");
        assert_eq!(content_of(&mut reads, alice.seq, to).await, b"old");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_does_no_harm_and_a_secret_that_was_used_up_is_worthless() {
    let world = World::new();
    let mut lost = world.login("alice").await.lose_link();
    let first = lost.request();
    for _ in 0..3 {
        // The answer gets lost, so the client shows the same secret again.
        let (grant, stream) = world.try_resume(lost.request(), lost.binding).await.unwrap();
        drop(stream);
        lost.grant.epoch = grant.epoch;
    }
    let lost = world.resume(lost).await.lose_link();
    let lost = world.resume(lost).await.lose_link();
    let used_up = world.try_resume(first, lost.binding).await.unwrap_err();
    assert_eq!(used_up, Refusal::NoSession);
    world.resume(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_secret_is_useless_without_the_key_and_on_another_connection() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let bob = world.login("bob").await.lose_link();
    let key = bob.key;
    let stolen =
        Lost { key, ..world.login_after_crash("bob", bob.grant.session).await.lose_link() };
    assert_eq!(refused(&world, &stolen).await, Refusal::NoSession);
    // The same, while the session is running: it is not disturbed.
    let binding = Binding([1; 32]);
    let mut request = stolen.request();
    request.user = "alice".to_owned();
    request.session = alice.grant.session;
    request.secret = alice.grant.resume.clone();
    (request.epoch, request.durable) = (alice.grant.epoch, Seq::default());
    let attempt = world.try_resume(request.clone(), binding).await;
    assert_eq!(attempt.unwrap_err(), Refusal::NoSession);
    request.proof = alice.key.prove_session(alice.grant.session, Binding([2; 32]));
    let attempt = world.try_resume(request.clone(), binding).await;
    assert_eq!(attempt.unwrap_err(), Refusal::NoSession);
    request.proof = alice.key.prove_session(alice.grant.session, binding);
    request.secret = Secret([0; 32]);
    let attempt = world.try_resume(request.clone(), binding).await;
    assert_eq!(attempt.unwrap_err(), Refusal::NoSession);
    request.proof = Signature::default();
    let attempt = world.try_resume(request, binding).await;
    assert_eq!(attempt.unwrap_err(), Refusal::NoSession);
    alice.create(Ino::ROOT, "file").await;
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_link_of_a_session_that_goes_on_is_closed() {
    let world = World::new();
    let mut old = world.login("alice").await;
    old.create(Ino::ROOT, "file").await;
    old.sync().await;
    // The client has lost the link, but the server has not noticed.
    let binding = Binding([7; 32]);
    let request = xfer_protocol::message::Resume {
        user: "alice".to_owned(),
        session: old.grant.session,
        secret: old.grant.resume.clone(),
        epoch: old.grant.epoch,
        durable: old.durable,
        attempt: 1,
        wish: Wish::Now,
        terms: Terms::default(),
        proof: old.key.prove_session(old.grant.session, binding),
    };
    let (grant, _stream) = world.try_resume(request, binding).await.unwrap();
    assert_eq!(old.ended().await, EndReason::Continued);
    assert_eq!(grant.applied, old.seq);
    assert_eq!(world.engine.sessions().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_late_ends_neither_the_link_of_a_later_one_nor_its_secret() {
    let world = World::new();
    let lost = world.login("alice").await.lose_link();
    let late = lost.request();
    let binding = lost.binding;
    let mut alice = world.resume(lost).await;
    assert_eq!(world.try_resume(late.clone(), binding).await.unwrap_err(), Refusal::Busy);
    alice.create(Ino::ROOT, "file").await;
    alice.sync().await;
    let lost = alice.lose_link();
    world.until_away("alice").await;
    assert_eq!(world.try_resume(late, binding).await.unwrap_err(), Refusal::Busy);
    world.resume(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_were_checked_against_a_higher_quota_are_taken_after_a_resume() {
    let world = World::new();
    let lost = away(&world).await;
    let account = world.meta.account(&name("alice")).unwrap().unwrap().id;
    world.meta.set_quota(account, Quota { bytes: 1, nodes: 3 }).unwrap();
    let mut alice = world.resume(lost).await;
    assert_eq!(alice.grant.quota.nodes, 3);
    // As one that the client made before it could know.
    alice.create(Ino::ROOT, "file").await;
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_resumed_ends_with_its_password() {
    let world = World::new();
    let lost = world.login("alice").await.lose_link();
    let mut alice = world.resume(lost).await;
    let account = world.meta.account(&name("alice")).unwrap().unwrap().id;
    world.meta.set_password(account, "another").unwrap();
    world.engine.account_changed(&name("alice")).await;
    assert_eq!(alice.ended().await, EndReason::Administrator);
    assert_eq!(refused(&world, &alice.lose_link()).await, Refusal::NoSession);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_being_ended_is_over_though_its_link_is_lost_meanwhile() {
    let world = Arc::new(World::new());
    let mut alice = world.login("alice").await;
    let there = world.clone();
    let ending =
        tokio::spawn(
            async move { there.engine.end(&name("alice"), EndReason::Administrator).await },
        );
    assert!(matches!(alice.next().await, ToClient::Drain { .. }));
    let lost = alice.lose_link();
    assert!(ending.await.unwrap());
    assert_eq!(refused(&world, &lost).await, Refusal::NoSession);
    world.login("alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_leaves_the_seat_to_the_client_that_is_away() {
    let world = World::new();
    let lost = away(&world).await;
    let (beside, _) = world.reopen();
    let account = beside.account(&name("alice")).unwrap().unwrap().id;
    let claim = beside.claim(account, xfer_store::Purpose::Read).unwrap().unwrap();
    let taken = world.try_login("alice", Purpose::TakeOver).await.err();
    assert_eq!(taken, Some(Refusal::Claimed));
    assert_eq!(refused(&world, &lost).await, Refusal::Claimed);
    drop(claim);
    let other = world.try_login("alice", Purpose::Mount).await.err();
    assert!(matches!(other, Some(Refusal::InUse { .. })), "{other:?}");
    world.resume(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_away_keeps_others_out_but_for_a_takeover() {
    let world = World::new();
    let lost = away(&world).await;
    let other = world.try_login("alice", Purpose::Mount).await.err();
    assert!(matches!(other, Some(Refusal::InUse { .. })), "{other:?}");
    let taken = world.take("alice").await;
    let refusal = refused(&world, &lost).await;
    assert!(matches!(refusal, Refusal::InUse { .. }), "{refusal}");
    taken.logout().await;
    world.resume(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_client_never_spoke_gives_way_and_is_forgotten() {
    let world = World::new();
    let lost = world.login("alice").await.lose_link();
    world.until_away("alice").await;
    let next = world.login("alice").await;
    assert_eq!(refused(&world, &lost).await, Refusal::NoSession);
    next.logout().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_crashed_makes_way_for_the_next_on_its_machine() {
    let world = World::new();
    let lost = away(&world).await;
    let next = world.login_after_crash("alice", lost.grant.session).await;
    // Even one that the server believes to be there still.
    let crashed = next.grant.session;
    let third = world.login_after_crash("alice", crashed).await;
    assert!(third.grant.epoch > next.grant.epoch);
    assert_eq!(refused(&world, &lost).await, Refusal::NoSession);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_over_once_its_password_was_changed_or_an_administrator_ended_it() {
    let world = World::new();
    let lost = away(&world).await;
    let account = world.meta.account(&name("alice")).unwrap().unwrap().id;
    world.meta.set_password(account, "another").unwrap();
    world.engine.account_changed(&name("alice")).await;
    assert_eq!(refused(&world, &lost).await, Refusal::NoSession);
    assert!(world.engine.sessions().is_empty());
    let lost = away(&world).await;
    assert!(world.engine.end(&name("alice"), EndReason::Administrator).await);
    assert_eq!(refused(&world, &lost).await, Refusal::NoSession);
    world.login("alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_store_that_was_put_back_is_told_so() {
    let world = World::new();
    let mut lost = world.login("alice").await.lose_link();
    world.until_away("alice").await;
    lost.durable = Seq(9);
    assert_eq!(refused(&world, &lost).await, Refusal::RolledBack);
    (lost.durable, lost.grant.epoch.0) = (Seq(0), lost.grant.epoch.0 + 1);
    assert_eq!(refused(&world, &lost).await, Refusal::RolledBack);
    lost.grant.epoch.0 -= 1;
    world.resume(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_stopping_server_ended_goes_on_at_the_next() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "file").await;
    let (engine, last) = (world.engine.clone(), alice.seq);
    let stopped = tokio::spawn(async move { engine.stop(std::time::Duration::from_secs(3)).await });
    assert_eq!(alice.ended().await, EndReason::Stopping);
    stopped.await.unwrap();
    let lost = alice.lose_link();
    assert_eq!(refused(&world, &lost).await, Refusal::Stopping);
    let world = restarted(world).await;
    assert_eq!(world.resume(lost).await.grant.applied, last);
}

/// Fails the test unless the store's files have the hash of a session's secret, and not the secret.
fn is_kept_hashed(world: &World, grant: &Grant) {
    let (resume, reads) = (grant.resume.0, grant.secret.0);
    assert!(world.has_on_disk(&Sha256::digest(resume)), "the hash is not there");
    for (of, secret) in [("resuming", resume), ("reading", reads)] {
        assert!(!world.has_on_disk(&secret), "the secret for {of} is there");
        assert!(!world.has_on_disk(hex::encode(secret).as_bytes()), "the secret for {of} is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_has_the_secrets_of_a_session_only_as_hashes() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "a name that is on the disk").await;
    alice.sync().await;
    assert!(world.has_on_disk(b"a name that is on the disk"), "nothing is found there");
    is_kept_hashed(&world, &alice.grant);
    let first = alice.grant.clone();
    let lost = alice.lose_link();
    world.until_away("alice").await;
    is_kept_hashed(&world, &first);
    let mut alice = world.resume(lost).await;
    alice.greet().await;
    assert_ne!(alice.grant.resume, first.resume);
    for grant in [&first, &alice.grant] {
        is_kept_hashed(&world, grant);
    }
    // Others may change the tree meanwhile, and a dormant session is kept elsewhere.
    let second = alice.grant.clone();
    drop(alice.lose_link());
    let mut other = world.take("alice").await;
    other.create(Ino::ROOT, "other").await;
    other.sync().await;
    is_kept_hashed(&world, &second);
    is_kept_hashed(&world, &other.grant);
}
