//! Sessions: logins, takeovers and endings.

use std::sync::Arc;
use std::time::Duration;

use xfer_protocol::message::{EndReason, Purpose, Refusal, ToClient, ToServer};
use xfer_protocol::tree::Limit;
use xfer_protocol::tree::Quota;
use xfer_protocol::{Ino, Seq};

use crate::world::{World, name};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_one_session() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.greet().await;
    match world.try_login("alice", Purpose::Mount).await {
        Err(Refusal::InUse { host, address, .. }) => {
            assert_eq!((&*host, &*address), ("host", "address"));
        }
        other => panic!("{:?}", other.err()),
    }
    let bob = world.login("bob").await;
    assert_eq!(bob.grant.users, [name("alice")]);
    assert_eq!(alice.logout().await, EndReason::LoggedOut);
    world.login("alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_lets_the_other_side_finish_first() {
    let world = Arc::new(World::new());
    let mut old = world.login("alice").await;
    let there = world.clone();
    let new = tokio::spawn(async move { there.try_login("alice", Purpose::TakeOver).await });
    let reason = old
        .until(|message| match message {
            ToClient::Drain { reason, deadline_ms } => {
                assert!((5_000..=10_000).contains(deadline_ms));
                Some(reason.clone())
            }
            _ => None,
        })
        .await;
    assert!(matches!(reason, EndReason::TakenOver { .. }));
    old.create(Ino::ROOT, "last").await;
    let (last, epoch) = (old.seq, old.grant.epoch);
    assert_eq!(old.logout().await, EndReason::LoggedOut);
    let new = new.await.unwrap().unwrap();
    assert_eq!(new.grant.applied, last);
    assert!(new.grant.epoch > epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_does_not_wait_for_ever() {
    let world = Arc::new(World::new());
    let mut old = world.login("alice").await;
    let there = world.clone();
    let new = tokio::spawn(async move { there.try_login("alice", Purpose::TakeOver).await });
    // The old client does not log out, but stays alive.
    let ended = loop {
        // The waits are out of step with the server's patience, which ends after ten seconds.
        let wait = tokio::time::timeout(Duration::from_secs(3), old.next()).await;
        match wait {
            Ok(ToClient::Ended(reason)) => break reason,
            Ok(_) => {}
            Err(_) => old.say(&ToServer::Ping { limit: Limit::default() }, &[]).await,
        }
    };
    assert!(matches!(ended, EndReason::TakenOver { .. }));
    assert!(new.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_session_changes_nothing_any_more() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "before").await;
    alice.sync().await;
    let account = world.meta.account(&name("alice")).unwrap().unwrap().id;
    world.meta.begin_session(account).unwrap();
    alice.create(Ino::ROOT, "after").await;
    alice.say(&ToServer::Barrier { upto: alice.seq }, &[]).await;
    assert!(matches!(alice.ended().await, EndReason::TakenOver { .. }));
    let (meta, _) = world.reopen();
    assert_eq!(meta.entry(account, Ino::ROOT, &name("after")).unwrap(), None);
    assert_eq!(world.login("alice").await.grant.applied, Seq(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_commits_and_lets_nobody_in() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "file").await;
    let sent = alice.seq;
    let engine = world.engine.clone();
    let stopped = tokio::spawn(async move { engine.stop(Duration::from_secs(4)).await });
    assert_eq!(alice.ended().await, EndReason::Stopping);
    stopped.await.unwrap();
    // Its client may come back to the next server.
    assert!(world.engine.sessions().iter().all(|session| session.away.is_some()));
    let refused = world.try_login("bob", Purpose::Mount).await.err();
    assert_eq!(refused, Some(Refusal::Stopping));
    let (meta, _) = world.reopen();
    assert_eq!(meta.account(&name("alice")).unwrap().unwrap().applied, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_hear_of_accounts_and_quotas() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let hash = "hash";
    let carol = name("carol");
    let quota = Quota { bytes: 1, nodes: 9 };
    world.meta.create_account(&carol, hash, quota, quota, crate::world::time()).unwrap();
    world.engine.account_changed(&carol).await;
    assert_eq!(alice.next().await, ToClient::Users(vec![name("bob"), carol]));
    world.meta.set_quota(world.meta.account(&name("alice")).unwrap().unwrap().id, quota).unwrap();
    world.engine.account_changed(&name("alice")).await;
    assert_eq!(alice.next().await, ToClient::Quota(quota));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_and_the_admin_end_a_session() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let account = world.meta.account(&name("alice")).unwrap().unwrap().id;
    world.meta.set_password(account, "other").unwrap();
    world.engine.account_changed(&name("alice")).await;
    assert_eq!(alice.ended().await, EndReason::Administrator);
    let mut bob = world.login("bob").await;
    let engine = world.engine.clone();
    let ending =
        tokio::spawn(async move { engine.end(&name("bob"), EndReason::Administrator).await });
    assert!(matches!(bob.next().await, ToClient::Drain { .. }));
    bob.logout().await;
    assert!(ending.await.unwrap());
    assert!(!world.engine.end(&name("bob"), EndReason::Administrator).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_with_a_password_that_was_changed_meanwhile_is_refused() {
    let world = Arc::new(World::new());
    let mut old = world.login("alice").await;
    let there = world.clone();
    let thief = tokio::spawn(async move { there.try_login("alice", Purpose::TakeOver).await });
    assert!(matches!(old.next().await, ToClient::Drain { .. }));
    world
        .meta
        .set_password(world.meta.account(&name("alice")).unwrap().unwrap().id, "new")
        .unwrap();
    world.engine.account_changed(&name("alice")).await;
    assert_eq!(old.ended().await, EndReason::Administrator);
    assert_eq!(thief.await.unwrap().err(), Some(Refusal::WrongPassword));
    assert!(world.engine.sessions().is_empty());
    world.login("alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_deadlines_the_earlier_holds() {
    let world = Arc::new(World::new());
    let mut alice = world.login("alice").await;
    let there = world.clone();
    let taking = tokio::spawn(async move { there.try_login("alice", Purpose::TakeOver).await });
    assert!(matches!(alice.next().await, ToClient::Drain { .. }));
    let engine = world.engine.clone();
    let stopped = tokio::spawn(async move { engine.stop(Duration::from_secs(3)).await });
    assert_eq!(alice.ended().await, EndReason::Stopping);
    stopped.await.unwrap();
    assert_eq!(taking.await.unwrap().err(), Some(Refusal::Stopping));
}
