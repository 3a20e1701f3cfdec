//! Ops, commits and the end of a link.

use std::time::Duration;

use xfer_protocol::limits::ID_RANGES_MAX;
use xfer_protocol::message::{Ask, EndReason, ToClient, ToServer};
use xfer_protocol::tree::{Action, FallocateMode, Op};
use xfer_protocol::{ContentId, Errno, IdRange, Ino, Seq};
use xfer_store::embedded::Files;

use crate::client::{Client, OWNER};
use crate::world::{World, name, time};

fn stored(world: &World, file: &str) -> Option<Ino> {
    let (meta, _) = world.reopen();
    let account = meta.account(&name("alice")).unwrap().unwrap().id;
    meta.entry(account, Ino::ROOT, &name(file)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_barrier_acknowledged_is_in_the_store() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"hello").await;
    alice.sync().await;
    let (meta, contents) = world.reopen();
    let account = meta.account(&name("alice")).unwrap().unwrap();
    assert_eq!(account.applied, alice.seq);
    assert_eq!(meta.node(account.id, ino).unwrap().unwrap().content(), Some(content));
    let mut data = [7; 9];
    assert_eq!(contents.read(content, 0, &mut data).unwrap(), 5);
    assert_eq!(&data[..5], b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_durable_within_seconds_all_the_same() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "file").await;
    let seq = alice.seq;
    let durable = alice.until(|message| match message {
        ToClient::Durable { seq, .. } => Some(*seq),
        _ => None,
    });
    assert_eq!(durable.await, seq);
    assert!(stored(&world, "file").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ops_share_a_commit() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    for file in 0..200 {
        alice.create(Ino::ROOT, &format!("file{file}")).await;
    }
    alice.sync().await;
    let counts = world.engine.counts(&name("alice")).unwrap();
    assert_eq!(counts.ops, 200);
    assert!(counts.commits < 20, "{} commits", counts.commits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_link_keeps_what_was_sent() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    for file in 0..50 {
        alice.create(Ino::ROOT, &format!("file{file}")).await;
    }
    let sent = alice.seq;
    drop(alice);
    world.until_away("alice").await;
    let alice = world.take("alice").await;
    assert_eq!(alice.grant.applied, sent);
    assert_eq!(alice.grant.usage.nodes, 3 + 50);
}

async fn check_refused_frame(message: impl FnOnce(&mut Client) -> ToServer, payload: &[u8]) {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "before").await;
    let message = message(&mut alice);
    alice.say(&message, payload).await;
    assert!(matches!(alice.ended().await, EndReason::Protocol(_)));
    assert!(stored(&world, "before").is_some(), "what came before stays");
}

pub fn truncate(ino: Ino, size: u64) -> Action {
    Action::SetAttr {
        ino,
        mode: None,
        uid: None,
        gid: None,
        size: Some(size),
        atime: None,
        mtime: None,
        clear_set_id: false,
        fresh: ContentId(0),
    }
}

fn write_op(client: &mut Client, len: u32) -> Op {
    let fresh = ContentId(client.id());
    let action = Action::Write { ino: Ino(5), offset: 0, len, clear_set_id: false, fresh };
    Op { time: time(), action }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_end_the_session() {
    check_refused_frame(
        |client| ToServer::Ops { first: Seq(client.seq.0 + 2), ops: vec![write_op(client, 0)] },
        &[],
    )
    .await;
    check_refused_frame(
        |client| ToServer::Ops { first: client.seq, ops: vec![write_op(client, 0)] },
        &[],
    )
    .await;
    check_refused_frame(|client| ToServer::Ops { first: client.seq.next(), ops: vec![] }, &[])
        .await;
    check_refused_frame(
        |client| ToServer::Ops { first: client.seq.next(), ops: vec![write_op(client, 3)] },
        b"four",
    )
    .await;
}

async fn check_refused_op(action: impl FnOnce(&mut Client) -> Action, expected: Errno) {
    let world = World::new();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "before").await;
    let action = action(&mut alice);
    alice.act(vec![action], &[]).await;
    let (seq, errno) = alice
        .until(|message| match message {
            ToClient::Diverged { seq, errno } => Some((*seq, *errno)),
            _ => None,
        })
        .await;
    assert_eq!((seq, errno), (alice.seq, expected));
    assert!(matches!(alice.ended().await, EndReason::Protocol(_)));
    assert!(stored(&world, "before").is_some(), "what came before stays");
    assert_eq!(world.login("alice").await.grant.applied, Seq(alice.seq.0 - 1));
}

fn create(ino: u64) -> Action {
    let name = name("new");
    Action::Create { parent: Ino::ROOT, name, ino: Ino(ino), mode: 0o644, owner: OWNER }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_were_not_granted_or_are_used_are_refused() {
    check_refused_op(|client| create(client.grant.ids[0].end), Errno::EINVAL).await;
    check_refused_op(|client| create(client.grant.ids[0].first - 1), Errno::EINVAL).await;
    check_refused_op(|client| create(client.grant.ids[0].first), Errno::EINVAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ops_against_the_rules_are_refused() {
    let unlink = Action::Unlink { parent: Ino::ROOT, name: name("nothing") };
    check_refused_op(|_| unlink, Errno::ENOENT).await;
    let mode = xfer_protocol::tree::XattrMode::Either;
    let xattr = Action::SetXattr {
        ino: Ino::ROOT,
        name: "user.xfer.from".into(),
        value: "me".into(),
        mode,
    };
    check_refused_op(|_| xattr, Errno::EPERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_a_session_are_gone_with_the_next() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, &[7; 10_000]).await;
    alice.unlink(Ino::ROOT, "file").await;
    assert_eq!(alice.logout().await, EndReason::LoggedOut);
    let again = world.login("alice").await;
    assert_eq!((again.grant.usage.nodes, again.grant.usage.bytes), (3, 0));
    assert_eq!(again.grant.applied, Seq(3), "that was no op");
    let (meta, contents) = world.reopen();
    assert!(!meta.content_exists(content).unwrap());
    while contents.read(content, 0, &mut [0; 1]).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freed_space_that_is_used_again_keeps_its_bytes() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, &[1; 3 * 4096]).await;
    alice.sync().await;
    let punch = |fresh| Action::Fallocate {
        ino,
        offset: 0,
        len: 2 * 4096,
        mode: FallocateMode::PunchHole,
        fresh: ContentId(fresh),
    };
    let fresh = alice.id();
    alice.act(vec![punch(fresh)], &[]).await;
    alice.write(ino, 4096, &[2; 4096]).await;
    alice.sync().await;
    alice.logout().await;
    let (_, contents) = world.reopen();
    let mut data = vec![9; 3 * 4096];
    assert_eq!(contents.read(content, 0, &mut data).unwrap(), data.len());
    assert!(data[4096..8192].iter().all(|byte| *byte == 2), "used again");
    assert!(data[8192..].iter().all(|byte| *byte == 1), "never freed");
}

#[tokio::test(flavor = "multi_thread")]
async fn freed_space_that_a_copy_shares_by_now_keeps_its_bytes() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let copy = alice.create(Ino::ROOT, "copy").await;
    let content = alice.write(ino, 0, &[1; 3 * 4096]).await;
    alice.sync().await;
    let mode = FallocateMode::PunchHole;
    let fresh = ContentId(alice.id());
    let punch = Action::Fallocate { ino, offset: 4096, len: 2 * 4096, mode, fresh };
    alice.act(vec![punch], &[]).await;
    alice.write(ino, 4096, &[2; 2 * 4096]).await;
    let fresh = ContentId(alice.id());
    let (from, from_offset, to, to_offset, len) = (ino, 0, copy, 0, 3 * 4096);
    let share = Action::CopyRange { from, from_offset, to, to_offset, len, fresh };
    alice.act(vec![share, truncate(ino, 4096)], &[]).await;
    alice.sync().await;
    alice.logout().await;
    let (_, contents) = world.reopen();
    let mut data = vec![9; 3 * 4096];
    assert_eq!(contents.read(content, 0, &mut data).unwrap(), data.len());
    assert!(data[4096..].iter().all(|byte| *byte == 2), "the copy has them");
}

/// Makes a durable file of ten letters and `changes` to it that are applied but not committed.
/// Returns the file's size and bytes in the store, as a killed server would leave them.
async fn after_a_crash(changes: impl AsyncFn(&mut Client, Ino)) -> (u64, Vec<u8>) {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    alice.write(ino, 0, b"abcdefghij").await;
    alice.sync().await;
    changes(&mut alice, ino).await;
    // The answer shows that all changes are applied. There is no barrier, so they need not be
    // durable.
    let mut reads = world.reads(&alice.grant).await;
    assert!(reads.ask(alice.seq, Ask::Node(ino)).await.0.is_ok());
    let (meta, contents) = world.reopen();
    let account = meta.account(&name("alice")).unwrap().unwrap();
    assert_eq!(account.applied, Seq(2), "a commit came too early to see anything");
    let data = meta.node(account.id, ino).unwrap().unwrap().file().unwrap().clone();
    let mut bytes = vec![0; data.size as usize];
    let count = contents.read(data.content.unwrap(), 0, &mut bytes).unwrap();
    (data.size, bytes[..count].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_finds_what_a_truncation_cut_off() {
    let before = (10, b"abcdefghij".to_vec());
    let cut = async |alice: &mut Client, ino| alice.act(vec![truncate(ino, 4)], &[]).await;
    assert_eq!(after_a_crash(cut).await, before);
    // Most programs save a file like this: they truncate it to zero and write it again.
    let saved = async |alice: &mut Client, ino| {
        alice.act(vec![truncate(ino, 0)], &[]).await;
        alice.write(ino, 0, b"new").await;
    };
    assert_eq!(after_a_crash(saved).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_come_and_go_between_commits_leave_nothing() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"soon gone").await;
    alice.unlink(Ino::ROOT, "file").await;
    alice.act(vec![Action::ForgetOrphan { ino }], &[]).await;
    alice.sync().await;
    alice.logout().await;
    let (_, contents) = world.reopen();
    assert!(contents.read(content, 0, &mut [0; 1]).is_err());
}

async fn granted(client: &mut Client) -> IdRange {
    client.say(&ToServer::MoreIds, &[]).await;
    let pick = |message: &ToClient| match message {
        ToClient::Ids(range) => Some(*range),
        _ => None,
    };
    client.until(pick).await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_numbers_are_granted_when_asked_for() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let range = granted(&mut alice).await;
    assert!(range.first >= alice.grant.ids[0].end);
    alice.act(vec![create(range.first)], &[]).await;
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_granted_for_as_long_as_a_session_lives() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    for _ in 0..1_100 {
        let range = granted(&mut alice).await;
        alice.act(vec![create(range.end - 1)], &[]).await;
        alice.unlink(Ino::ROOT, "new").await;
    }
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_not_used_are_not_granted_without_end() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    for _ in 1..ID_RANGES_MAX {
        granted(&mut alice).await;
    }
    alice.say(&ToServer::MoreIds, &[]).await;
    assert!(matches!(alice.ended().await, EndReason::Protocol(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_not_used_again_even_when_its_node_is_gone() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    alice.unlink(Ino::ROOT, "file").await;
    alice.act(vec![Action::ForgetOrphan { ino }], &[]).await;
    alice.sync().await;
    alice.act(vec![create(ino.0)], &[]).await;
    let errno = alice.until(|message| match message {
        ToClient::Diverged { errno, .. } => Some(*errno),
        _ => None,
    });
    assert_eq!(errno.await, Errno::EINVAL);
}
