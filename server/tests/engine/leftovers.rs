//! Data that a session wrote into existing contents and never committed: it is removed from the
//! disk, whichever side ended, and no data that is written meanwhile goes with it.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use xfer_protocol::message::{Answer, Ask, EndReason, ToClient};
use xfer_protocol::tree::{Action, FallocateMode};
use xfer_protocol::{ContentId, Ino};
use xfer_store::Purpose;
use xfer_store::embedded::Files;

use crate::client::{Client, Lost};
use crate::log::truncate;
use crate::space::{check_disk, restarted};
use crate::storage::{Faulty, faulty_world};
use crate::world::{World, name};

const PART: usize = 256 << 10;

const PATIENCE: Duration = Duration::from_secs(60);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Makes a file of one byte that is durable.
async fn small_file(client: &mut Client) -> (Ino, ContentId) {
    let ino = client.create(Ino::ROOT, "file").await;
    let content = client.write(ino, 0, b"x").await;
    client.sync().await;
    (ino, content)
}

/// Appends a megabyte to the file, without a barrier.
async fn grow(client: &mut Client, ino: Ino) {
    for part in 0..4 {
        client.write(ino, 1 + part * PART as u64, &[1; PART]).await;
    }
}

/// Fails the test unless the file still has its one byte, in the same content.
async fn check_file(world: &World, user: &str, (ino, content): (Ino, ContentId)) {
    let client = world.take(user).await;
    let mut reads = world.reads(&client.grant).await;
    let ask = Ask::Read { ino, content, offset: 0, len: 1 };
    let (answer, bytes) = reads.ask(client.seq, ask).await;
    assert_eq!((answer, bytes), (Ok(Answer::Data), b"x".to_vec()));
    client.logout().await;
}

/// Ends a session that has grown a file, by a failure that `fail` sets up. No client logs in
/// afterwards.
async fn check_end(what: &str, fail: impl Fn(&Faulty), ends: impl Fn(&ToClient) -> Option<()>) {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let file = small_file(&mut alice).await;
    faulty.hold_sync.store(true, Ordering::Relaxed);
    fail(&faulty);
    grow(&mut alice, file.0).await;
    faulty.hold_sync.store(false, Ordering::Relaxed);
    alice.until(ends).await;
    check_disk(&world, what).await;
    check_file(&world, "alice", file).await;
}

fn storage_failed(message: &ToClient) -> Option<()> {
    matches!(message, ToClient::Ended(EndReason::Storage(_))).then_some(())
}

fn disk_full(message: &ToClient) -> Option<()> {
    matches!(message, ToClient::Ended(EndReason::DiskFull)).then_some(())
}

fn refused(message: &ToClient) -> Option<()> {
    matches!(message, ToClient::Diverged { .. }).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_wrote_and_did_not_commit_goes_when_it_ends() {
    check_end(
        "a failed sync",
        |faulty| faulty.fail_sync.store(true, Ordering::Relaxed),
        storage_failed,
    )
    .await;
    check_end(
        "a panic",
        |faulty| faulty.panic_write.store(true, Ordering::Relaxed),
        storage_failed,
    )
    .await;
    let fail_write = |kind| move |faulty: &Faulty| *faulty.fail_write.lock().unwrap() = Some(kind);
    check_end("a failed write", fail_write(ErrorKind::Other), storage_failed).await;
    check_end("a full disk", fail_write(ErrorKind::StorageFull), disk_full).await;
    check_end("a file too large", fail_write(ErrorKind::FileTooLarge), refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_rows_fail_leaves_nothing_either() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let file = small_file(&mut alice).await;
    faulty.hold_sync.store(true, Ordering::Relaxed);
    grow(&mut alice, file.0).await;
    alice.create(Ino::ROOT, "refused").await;
    world.refuse_rows("entries", "account", "alice");
    faulty.hold_sync.store(false, Ordering::Relaxed);
    alice.until(storage_failed).await;
    check_disk(&world, "a failed row").await;
    check_file(&world, "alice", file).await;
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A world whose server was killed after these users had grown files, before any of that was
/// committed; and their clients.
fn killed(users: &[&str]) -> (World, Vec<(Ino, ContentId)>, Vec<Lost>) {
    let first = runtime();
    let done = first.block_on(async {
        let (world, faulty) = faulty_world();
        let (mut clients, mut files) = (Vec::new(), Vec::new());
        for user in users {
            let mut client = world.login(user).await;
            files.push(small_file(&mut client).await);
            clients.push(client);
        }
        // This is never reset, so the following ops are never committed.
        faulty.hold_sync.store(true, Ordering::Relaxed);
        for (client, (ino, _)) in clients.iter_mut().zip(&files) {
            grow(client, *ino).await;
        }
        let grown = (users.len() * 4 * PART) as u64;
        until("the server to write", || world.on_disk().1 >= grown).await;
        (world, files, clients.into_iter().map(Client::lose_link).collect())
    });
    first.shutdown_background();
    done
}

#[test]
fn what_a_killed_server_did_not_commit_goes_though_nobody_logs_in() {
    let (world, files, _) = killed(&["alice", "bob"]);
    runtime().block_on(async {
        let world = restarted(world);
        check_disk(&world, "a start").await;
        let is_tidy = |user| {
            let account = world.meta.account(&name(user)).unwrap().unwrap();
            account.tidied == account.epoch
        };
        until("all to be tidied", || is_tidy("alice") && is_tidy("bob")).await;
        check_file(&world, "alice", files[0]).await;
        check_file(&world, "bob", files[1]).await;
        until("well-ended sessions to count as tidy", || is_tidy("alice") && is_tidy("bob")).await;
    });
}

#[test]
fn what_is_written_right_after_a_crash_stays() {
    let (world, files, _) = killed(&["alice"]);
    runtime().block_on(async {
        let world = restarted(world);
        let mut alice = world.take("alice").await;
        grow(&mut alice, files[0].0).await;
        alice.sync().await;
        let mut reads = world.reads(&alice.grant).await;
        let (ino, content) = files[0];
        for part in 0..4 {
            let offset = 1 + part * PART as u64;
            let ask = Ask::Read { ino, content, offset, len: PART as u32 };
            let (answer, bytes) = reads.ask(alice.seq, ask).await;
            assert_eq!(answer, Ok(Answer::Data));
            assert!(bytes == [1; PART], "part {part}");
        }
        check_disk(&world, "a start with a login").await;
    });
}

/// A restarted server that has passed alice's account over, since a command works on it. Returns the
/// bytes on the disk.
async fn passing_alice_over(world: World) -> (World, u64) {
    let (beside, _) = world.reopen();
    let id = |user| beside.account(&name(user)).unwrap().unwrap().id;
    let claim = beside.claim(id("alice"), Purpose::Change).unwrap().unwrap();
    let before = world.on_disk().1;
    let world = restarted(world);
    // Bob's account is tidied after alice's.
    let is_tidied = || {
        let bob = beside.account(&name("bob")).unwrap().unwrap();
        bob.tidied == bob.epoch
    };
    until("bob to be tidied", is_tidied).await;
    let left = world.on_disk().1;
    assert!(left < before && left > (4 * PART) as u64, "{left} of {before}");
    drop(claim);
    (world, left)
}

/// Fails the test unless nothing was looked through when a session began, and all is at its end.
async fn check_looked_through_after(world: &World, client: Client, left: u64) {
    // A filesystem may count a little differently later.
    let gone = left.saturating_sub(world.on_disk().1);
    assert!(gone < PART as u64, "its beginning waited for all files to be looked through");
    client.logout().await;
    check_disk(world, "the end of the session").await;
}

#[test]
fn a_session_that_begins_after_a_crash_waits_for_no_look_through_all_files() {
    let (world, files, _) = killed(&["alice", "bob"]);
    runtime().block_on(async {
        let (world, left) = passing_alice_over(world).await;
        check_looked_through_after(&world, world.take("alice").await, left).await;
        check_file(&world, "alice", files[0]).await;
    });
}

#[test]
fn a_session_that_goes_on_after_a_crash_waits_for_no_look_through_all_files() {
    let (world, files, lost) = killed(&["alice", "bob"]);
    runtime().block_on(async {
        let (world, left) = passing_alice_over(world).await;
        let alice = world.resume(lost.into_iter().next().unwrap()).await;
        check_looked_through_after(&world, alice, left).await;
        check_file(&world, "alice", files[0]).await;
    });
}

#[test]
fn what_a_crash_left_in_a_content_goes_though_the_content_is_shared_by_then() {
    let (world, files, _) = killed(&["alice", "bob"]);
    runtime().block_on(async {
        let (world, _) = passing_alice_over(world).await;
        let mut alice = world.take("alice").await;
        let to = alice.create(Ino::ROOT, "copy").await;
        let (from, fresh) = (files[0].0, ContentId(alice.id()));
        let copy = Action::CopyRange { from, from_offset: 0, to, to_offset: 0, len: 1, fresh };
        alice.act(vec![copy], &[]).await;
        alice.sync().await;
        alice.logout().await;
        check_disk(&world, "the end of the session").await;
        check_file(&world, "alice", files[0]).await;
    });
}

#[test]
fn what_a_crash_left_in_reserved_blocks_is_not_shown_by_a_file_that_grows_over_them() {
    let first = runtime();
    let (world, (ino, content)) = first.block_on(async {
        let (world, faulty) = faulty_world();
        let mut alice = world.login("alice").await;
        let (ino, content) = small_file(&mut alice).await;
        let (mode, fresh) = (FallocateMode::AllocateKeepSize, ContentId(alice.id()));
        let len = 8 * PART as u64;
        alice.act(vec![Action::Fallocate { ino, offset: 0, len, mode, fresh }], &[]).await;
        alice.sync().await;
        faulty.hold_sync.store(true, Ordering::Relaxed);
        grow(&mut alice, ino).await;
        let mut byte = [0];
        while byte != [1] {
            faulty.read(content, 4 * PART as u64, &mut byte).unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        (world, (ino, content))
    });
    first.shutdown_background();
    runtime().block_on(async {
        let world = restarted(world);
        let mut alice = world.take("alice").await;
        alice.act(vec![truncate(ino, 2 * PART as u64)], &[]).await;
        alice.sync().await;
        let ask = Ask::Read { ino, content, offset: PART as u64, len: PART as u32 };
        let (answer, bytes) = world.reads(&alice.grant).await.ask(alice.seq, ask).await;
        assert_eq!(answer, Ok(Answer::Data));
        assert!(bytes.iter().all(|byte| *byte == 0), "it shows what was never committed");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_another_process_goes_though_nobody_commits() {
    let world = World::new();
    let mut bob = world.login("bob").await;
    small_file(&mut bob).await;
    bob.logout().await;
    until("the session to end", || world.engine.sessions().is_empty()).await;
    assert_eq!(world.on_disk().0, 1);
    let beside = world.reopen().0;
    let id = beside.account(&name("bob")).unwrap().unwrap().id;
    beside.remove_account(id, crate::world::time()).unwrap();
    beside.give_up_account(id).unwrap();
    assert!(beside.clear_deleted(crate::world::time()).unwrap());
    until("the content to go", || world.on_disk().0 == 0).await;
}
