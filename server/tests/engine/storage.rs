//! Storage that fails, and servers that die.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use xfer_protocol::limits::XATTR_VALUE_BYTES_MAX;
use xfer_protocol::message::{Ask, EndReason, ToServer};
use xfer_protocol::tree::{Action, Quota, XattrMode};
use xfer_protocol::{ContentId, Ino, Seq};
use xfer_server::engine::Engine;
use xfer_store::embedded::{self, Files};
use xfer_store::{Disk, Stop, StoreError};

use crate::client::{Client, OWNER};
use crate::world::{World, name, time};

/// A content store that can be told to fail, or to panic.
pub struct Faulty {
    inner: Arc<dyn Files>,
    pub fail_sync: AtomicBool,
    /// A content that can't be removed.
    stuck: AtomicU64,
    /// Contents for which a sync fails.
    lost: Mutex<Vec<ContentId>>,
    /// Writes wait as long as this is set.
    hold_write: AtomicBool,
    held_writes: AtomicUsize,
    pub panic_write: AtomicBool,
    /// The next write is done, but reported as failed with this error.
    pub fail_write: Mutex<Option<ErrorKind>>,
    /// Writes take long.
    slow_write: AtomicBool,
    /// Syncs wait as long as this is set.
    pub hold_sync: AtomicBool,
    pub syncs: AtomicUsize,
    /// A listing of all contents waits until this is set.
    may_list: AtomicBool,
    listed: AtomicBool,
}

impl Files for Faulty {
    fn create(&self, content: ContentId) -> Result<(), StoreError> {
        self.inner.create(content)
    }

    fn write(&self, content: ContentId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        assert!(!self.panic_write.swap(false, Ordering::Relaxed), "told to");
        if self.hold_write.load(Ordering::Relaxed) {
            self.held_writes.fetch_add(1, Ordering::Relaxed);
        }
        while self.hold_write.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.slow_write.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.inner.write(content, offset, data)?;
        match self.fail_write.lock().unwrap().take() {
            Some(kind) => Err(StoreError::io("writing", kind.into())),
            None => Ok(()),
        }
    }

    fn read(&self, content: ContentId, offset: u64, data: &mut [u8]) -> Result<usize, StoreError> {
        self.inner.read(content, offset, data)
    }

    fn zero(
        &self,
        content: ContentId,
        offset: u64,
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        self.inner.zero(content, offset, len, stop)
    }

    fn duplicate(
        &self,
        from: ContentId,
        to: ContentId,
        ranges: &[Range<u64>],
        stop: &Stop,
    ) -> Result<(), StoreError> {
        self.inner.duplicate(from, to, ranges, stop)
    }

    fn copy(
        &self,
        from: (ContentId, u64),
        to: (ContentId, u64),
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        self.inner.copy(from, to, len, stop)
    }

    fn free(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError> {
        self.inner.free(content, offset, len)
    }

    fn keep(&self, content: ContentId, ranges: &[Range<u64>]) -> Result<(), StoreError> {
        self.inner.keep(content, ranges)
    }

    fn make_each_durable(
        &self,
        contents: &[ContentId],
    ) -> Result<HashMap<ContentId, StoreError>, StoreError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        while self.hold_sync.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.fail_sync.load(Ordering::Relaxed) {
            let error = std::io::Error::from(rustix::io::Errno::IO);
            return Err(StoreError::io("syncing /var/lib/xfer/contents/00/01", error));
        }
        let mut failures = self.inner.make_each_durable(contents)?;
        for content in self.lost.lock().unwrap().iter().filter(|lost| contents.contains(lost)) {
            let failed = std::io::Error::from(rustix::io::Errno::IO);
            failures.insert(*content, StoreError::io("syncing", failed));
        }
        Ok(failures)
    }

    fn remove(&self, content: ContentId) -> Result<(), StoreError> {
        if content.0 == self.stuck.load(Ordering::Relaxed) {
            return Err(StoreError::io("removing", std::io::Error::other("told to")));
        }
        self.inner.remove(content)
    }

    fn set_aside(&self, content: ContentId) -> Result<Option<u64>, StoreError> {
        self.inner.set_aside(content)
    }

    fn each(&self, visit: &mut dyn FnMut(ContentId)) -> Result<(), StoreError> {
        for _ in 0..5_000 {
            if self.may_list.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.inner.each(visit)?;
        self.listed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn offer_freed(&self) -> Result<(), StoreError> {
        self.inner.offer_freed()
    }

    fn disk(&self) -> Result<Disk, StoreError> {
        self.inner.disk()
    }
}

pub fn faulty_world() -> (World, Arc<Faulty>) {
    faulty_world_that_lists(AtomicBool::new(true))
}

fn faulty_world_that_lists(may_list: AtomicBool) -> (World, Arc<Faulty>) {
    let mut faulty = None;
    let world = World::over(|inner| {
        let store = Arc::new(Faulty {
            inner,
            fail_sync: AtomicBool::new(false),
            stuck: AtomicU64::new(0),
            lost: Mutex::default(),
            panic_write: AtomicBool::new(false),
            hold_write: AtomicBool::new(false),
            held_writes: AtomicUsize::new(0),
            fail_write: Mutex::default(),
            slow_write: AtomicBool::new(false),
            hold_sync: AtomicBool::new(false),
            syncs: AtomicUsize::new(0),
            may_list,
            listed: AtomicBool::new(false),
        });
        faulty = Some(store.clone());
        store
    });
    (world, faulty.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_session_and_acknowledges_nothing() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    alice.create(Ino::ROOT, "before").await;
    alice.sync().await;
    faulty.fail_sync.store(true, Ordering::Relaxed);
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"lost").await;
    alice.say(&ToServer::Barrier { upto: alice.seq }, &[]).await;
    let EndReason::Storage(told) = alice.ended().await else { panic!("it was told otherwise") };
    // The client is not told which part of the host failed; that is only logged.
    assert_eq!(told, "its disk failed (Input/output error (os error 5))");
    assert!(faulty.read(content, 0, &mut [0; 1]).is_ok(), "it may be durable all the same");
    faulty.fail_sync.store(false, Ordering::Relaxed);
    assert_eq!(world.login("alice").await.grant.applied, Seq(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_beside_a_commit_takes_nothing_from_what_the_commit_holds() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    faulty.hold_sync.store(true, Ordering::Relaxed);
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"kept").await;
    let committed = alice.seq;
    alice.say(&ToServer::Barrier { upto: committed }, &[]).await;
    until(|| faulty.syncs.load(Ordering::Relaxed) == 1).await;
    faulty.panic_write.store(true, Ordering::Relaxed);
    alice.write(ino, 0, b"panic").await;
    until(|| !faulty.panic_write.load(Ordering::Relaxed)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let held = world.engine.sessions().len();
    faulty.hold_sync.store(false, Ordering::Relaxed);
    assert_eq!(held, 1, "the seat is kept until the commit is over");
    assert!(matches!(alice.ended().await, EndReason::Storage(_)));
    assert_eq!(world.login("alice").await.grant.applied, committed);
    let mut data = [0; 4];
    assert_eq!(faulty.read(content, 0, &mut data).unwrap(), 4);
    assert_eq!(&data, b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_op_that_the_disk_refuses_takes_its_part_of_the_log_with_it_and_nothing_before() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "kept").await;
    let mut reads = world.reads(&alice.grant).await;
    assert!(reads.ask(alice.seq, Ask::Node(ino)).await.0.is_ok(), "it is applied");
    *faulty.fail_write.lock().unwrap() = Some(ErrorKind::StorageFull);
    let (parent, directory, fresh) = (Ino::ROOT, Ino(alice.id()), ContentId(alice.id()));
    let frame = vec![
        Action::Mkdir { parent, name: name("made"), ino: directory, mode: 0o755, owner: OWNER },
        Action::Unlink { parent, name: name("kept") },
        Action::Write { ino, offset: 0, len: 4, clear_set_id: false, fresh },
        Action::Rmdir { parent, name: name("made") },
    ];
    alice.act(frame, b"lost").await;
    assert_eq!(alice.ended().await, EndReason::DiskFull);
    let account = world.meta.account(&name("alice")).unwrap().unwrap();
    assert_eq!((account.applied, account.usage.nodes), (Seq(1), 4));
    let entry = |text| world.meta.entry(account.id, Ino::ROOT, &name(text)).unwrap();
    assert_eq!((entry("kept"), entry("made")), (Some(ino), None));
    assert_eq!(world.meta.node(account.id, directory).unwrap(), None);
    let kept = world.meta.node(account.id, ino).unwrap().unwrap();
    assert_eq!((kept.nlink, kept.content()), (1, None));
    until(|| world.on_disk().0 == 0).await;
    world.take("alice").await.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_session() {
    let (world, faulty) = faulty_world();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let ino = alice.create(Ino::ROOT, "file").await;
    faulty.panic_write.store(true, Ordering::Relaxed);
    alice.write(ino, 0, b"panic").await;
    assert!(matches!(alice.ended().await, EndReason::Storage(_)));
    let ino = bob.create(Ino::ROOT, "file").await;
    bob.write(ino, 0, b"fine").await;
    bob.sync().await;
    world.login("alice").await;
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_wait_for_a_commit_share_the_next() {
    let (world, faulty) = faulty_world();
    let carol = name("carol");
    world.meta.create_account(&carol, "hash", Quota::UNLIMITED, Quota::UNLIMITED, time()).unwrap();
    let mut first = world.login("alice").await;
    let mut others = [world.login("bob").await, world.login("carol").await];
    faulty.hold_sync.store(true, Ordering::Relaxed);
    first.create(Ino::ROOT, "file").await;
    first.say(&ToServer::Barrier { upto: first.seq }, &[]).await;
    until(|| faulty.syncs.load(Ordering::Relaxed) == 1).await;
    for client in &mut others {
        client.create(Ino::ROOT, "file").await;
        client.say(&ToServer::Barrier { upto: client.seq }, &[]).await;
    }
    until(|| world.engine.waiting() == 2).await;
    faulty.hold_sync.store(false, Ordering::Relaxed);
    first.sync().await;
    for client in &mut others {
        client.sync().await;
    }
    assert_eq!(world.engine.transactions(), 2);
}

/// Holds up the committer with a commit of carol's, so that all batches that come meanwhile share
/// the next transaction.
async fn hold_up(world: &World, faulty: &Faulty) -> Client {
    let carol = name("carol");
    world.meta.create_account(&carol, "hash", Quota::UNLIMITED, Quota::UNLIMITED, time()).unwrap();
    let mut first = world.login("carol").await;
    let syncs = faulty.syncs.load(Ordering::Relaxed);
    faulty.hold_sync.store(true, Ordering::Relaxed);
    first.create(Ino::ROOT, "file").await;
    first.say(&ToServer::Barrier { upto: first.seq }, &[]).await;
    until(|| faulty.syncs.load(Ordering::Relaxed) > syncs).await;
    first
}

/// Lets the committer go on, with one batch of each client waiting for it.
async fn commit_together(world: &World, faulty: &Faulty, users: [&mut Client; 2]) {
    for client in users {
        client.say(&ToServer::Barrier { upto: client.seq }, &[]).await;
    }
    until(|| world.engine.waiting() == 2).await;
    faulty.hold_sync.store(false, Ordering::Relaxed);
}

/// Checks that alice's files are lost or refused, and that bob's are there, also for the next
/// server.
async fn check_only_alice_ends(
    world: &World,
    mut alice: Client,
    mut bob: Client,
    content: ContentId,
) {
    assert!(matches!(alice.ended().await, EndReason::Storage(_)));
    bob.sync().await;
    assert_eq!(world.engine.transactions(), 2, "both were in one group");
    bob.create(Ino::ROOT, "after").await;
    bob.sync().await;
    let (meta, contents) = world.reopen();
    let account = |user| meta.account(&name(user)).unwrap().unwrap();
    assert_eq!(account("alice").applied, Seq(0));
    assert_eq!(meta.entry(account("alice").id, Ino::ROOT, &name("0")).unwrap(), None);
    assert_eq!(account("bob").applied, bob.seq);
    assert!(meta.entry(account("bob").id, Ino::ROOT, &name("0")).unwrap().is_some());
    assert!(meta.content_exists(content).unwrap());
    let mut data = [0; 4];
    assert_eq!(contents.read(content, 0, &mut data).unwrap(), 4);
    assert_eq!(&data, b"data");
    world.login("alice").await.sync().await;
}

/// Writes files with data, and returns the content of the last one.
async fn write_files(client: &mut Client, count: usize) -> ContentId {
    let mut last = None;
    for file in 0..count {
        let ino = client.create(Ino::ROOT, &file.to_string()).await;
        last = Some(client.write(ino, 0, b"data").await);
    }
    last.unwrap()
}

async fn check_a_lost_content_ends_one_session(files: usize) {
    let (world, faulty) = faulty_world();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let _carol = hold_up(&world, &faulty).await;
    let lost = write_files(&mut alice, files).await;
    let kept = write_files(&mut bob, files).await;
    faulty.lost.lock().unwrap().push(lost);
    commit_together(&world, &faulty, [&mut alice, &mut bob]).await;
    check_only_alice_ends(&world, alice, bob, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_fails_ends_only_the_session_that_has_it() {
    check_a_lost_content_ends_one_session(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_contents_that_fails_ends_only_the_session_that_has_it() {
    check_a_lost_content_ends_one_session(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fails_ends_only_the_session_that_has_it() {
    let (world, faulty) = faulty_world();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let _carol = hold_up(&world, &faulty).await;
    write_files(&mut alice, 1).await;
    let kept = write_files(&mut bob, 1).await;
    world.refuse_rows("entries", "account", "alice");
    commit_together(&world, &faulty, [&mut alice, &mut bob]).await;
    check_only_alice_ends(&world, alice, bob, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_fails_ends_only_the_session_that_sends_it() {
    let (world, faulty) = faulty_world();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let _carol = hold_up(&world, &faulty).await;
    let mailbox = alice.mailbox("bob").await;
    let sent = alice.send_file("bob", mailbox, "0").await;
    let kept = write_files(&mut bob, 1).await;
    world.refuse_rows("deliveries", "from_account", "alice");
    commit_together(&world, &faulty, [&mut alice, &mut bob]).await;
    check_only_alice_ends(&world, alice, bob, kept).await;
    let bob = world.meta.account(&name("bob")).unwrap().unwrap();
    assert_eq!(world.meta.waiting_after(bob.id, 0, 1).unwrap(), [], "{sent} is not there");
    assert_eq!(bob.waiting.nodes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_cannot_be_removed_keeps_no_other() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let kept = write_files(&mut alice, 3).await;
    alice.sync().await;
    let stuck = ContentId(kept.0 - 2 * 2);
    faulty.stuck.store(stuck.0, Ordering::Relaxed);
    for file in 0..2 {
        alice.unlink(Ino::ROOT, &file.to_string()).await;
        alice.act(vec![Action::ForgetOrphan { ino: Ino(stuck.0 - 1 + 2 * file) }], &[]).await;
    }
    alice.sync().await;
    until(|| world.on_disk().0 == 2).await;
    faulty.stuck.store(0, Ordering::Relaxed);
    alice.create(Ino::ROOT, "later").await;
    alice.sync().await;
    until(|| world.on_disk().0 == 1).await;
}

/// The store is as a killed server leaves it, because no client that disconnects has its changes
/// committed.
#[test]
fn a_dead_server_leaves_a_prefix_and_the_next_sweeps_what_is_left() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = runtime();
    // The client must stay connected: the end of its link would commit its changes.
    let (world, _alice, kept, lost) = first.block_on(async {
        let world = World::new();
        let mut alice = world.login("alice").await;
        let ino = alice.create(Ino::ROOT, "kept").await;
        let kept = alice.write(ino, 0, b"kept").await;
        alice.sync().await;
        let ino = alice.create(Ino::ROOT, "lost").await;
        let lost = alice.write(ino, 0, b"lost").await;
        let mut reads = world.reads(&alice.grant).await;
        let ask = Ask::Node(ino);
        assert!(reads.ask(alice.seq, ask).await.0.is_ok(), "it is applied");
        (world, alice, kept, lost)
    });
    first.shutdown_background();
    let (meta, contents) = world.reopen();
    let account = meta.account(&name("alice")).unwrap().unwrap();
    assert_eq!(account.applied, Seq(2));
    assert!(contents.read(lost, 0, &mut [0; 4]).is_ok(), "it was written at once");
    // Until then, her client might resume its session and write it again.
    meta.set_password(account.id, "other").unwrap();
    let contents = Arc::new(contents);
    let second = runtime();
    second.block_on(async {
        let _engine = Engine::new(embedded::over(Arc::new(meta), contents.clone()), 64 << 20);
        while contents.read(lost, 0, &mut [0; 4]).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(contents.read(kept, 0, &mut [0; 4]).unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_spares_what_sessions_write_meanwhile() {
    let (world, faulty) = faulty_world_that_lists(AtomicBool::new(false));
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    alice.write(ino, 0, b"new").await;
    let mut reads = world.reads(&alice.grant).await;
    let ask = Ask::Node(ino);
    assert!(reads.ask(alice.seq, ask).await.0.is_ok(), "it is applied");
    faulty.may_list.store(true, Ordering::Relaxed);
    until(|| faulty.listed.load(Ordering::Relaxed)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_in_the_midst_of_a_frame() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    faulty.slow_write.store(true, Ordering::Relaxed);
    let fresh = ContentId(alice.id());
    let write = Action::Write { ino, offset: 0, len: 1, clear_set_id: false, fresh };
    alice.act(vec![write; 1_000], &[1; 1_000]).await;
    until(|| world.engine.counts(&name("alice")).unwrap().ops > 10).await;
    let account = world.meta.account(&name("alice")).unwrap().unwrap().id;
    world.meta.set_password(account, "other").unwrap();
    world.engine.account_changed(&name("alice")).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), alice.ended()).await;
    faulty.slow_write.store(false, Ordering::Relaxed);
    assert_eq!(ended, Ok(EndReason::Administrator));
    let applied = world.login("alice").await.grant.applied;
    assert!(Seq(10) < applied && applied < alice.seq, "what was applied is kept: {applied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_wait_for_long_ops_keep_nobody_elses_from_being_answered() {
    const OTHERS: usize = 12;
    const QUESTIONS: u64 = 40;
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"here").await;
    alice.sync().await;
    faulty.hold_write.store(true, Ordering::Relaxed);
    let mut waiting = Vec::new();
    for other in 0..OTHERS {
        let user = format!("other{other}");
        let quota = Quota::UNLIMITED;
        world.meta.create_account(&name(&user), "hash", quota, quota, time()).unwrap();
        let mut client = world.login(&user).await;
        let ino = client.create(Ino::ROOT, "file").await;
        client.write(ino, 0, b"held").await;
        until(|| faulty.held_writes.load(Ordering::Relaxed) == other + 1).await;
        let mut reads = world.reads(&client.grant).await;
        for _ in 0..QUESTIONS {
            reads.say(Seq(1), Ask::Node(ino)).await;
        }
        until(|| world.engine.counts(&name(&user)).unwrap().reads == QUESTIONS).await;
        waiting.push((client, reads));
    }
    let mut reads = world.reads(&alice.grant).await;
    for _ in 0..QUESTIONS {
        assert!(reads.ask(alice.seq, Ask::Node(ino)).await.0.is_ok());
        let read = Ask::Read { ino, content, offset: 0, len: 4 };
        assert_eq!(reads.ask(alice.seq, read).await.1, b"here");
    }
    faulty.hold_write.store(false, Ordering::Relaxed);
    for (client, reads) in &mut waiting {
        for _ in 0..QUESTIONS {
            assert!(reads.next().await.0.answer.is_ok());
        }
        client.sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_commit_holds_back_what_comes() {
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    faulty.hold_sync.store(true, Ordering::Relaxed);
    alice.create(Ino::ROOT, "file").await;
    alice.say(&ToServer::Barrier { upto: alice.seq }, &[]).await;
    until(|| faulty.syncs.load(Ordering::Relaxed) == 1).await;
    for frame in 0..5 {
        let create = |file| Action::Create {
            parent: Ino::ROOT,
            name: name(&format!("{frame}-{file}")),
            ino: Ino(alice.id()),
            mode: 0o644,
            owner: OWNER,
        };
        let creates = (0..4_096).map(create).collect();
        alice.act(creates, &[]).await;
    }
    until(|| world.engine.counts(&name("alice")).unwrap().ops > 2 * 4_096).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ops = world.engine.counts(&name("alice")).unwrap().ops;
    faulty.hold_sync.store(false, Ordering::Relaxed);
    assert_eq!(ops, 1 + 2 * 4_096, "two frames make a large batch");
    alice.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_commit_holds_back_attributes_by_their_bytes() {
    const FILES: u64 = 1_600;
    const FILES_OF_A_FRAME: u64 = 16;
    let (world, faulty) = faulty_world();
    let mut alice = world.login("alice").await;
    let mut files = Vec::new();
    for file in 0..FILES {
        files.push(alice.create(Ino::ROOT, &file.to_string()).await);
    }
    alice.sync().await;
    faulty.hold_sync.store(true, Ordering::Relaxed);
    let syncs = faulty.syncs.load(Ordering::Relaxed);
    let value = Bytes::from(vec![1; XATTR_VALUE_BYTES_MAX]);
    let all = tokio::spawn(async move {
        for frame in files.chunks(FILES_OF_A_FRAME as usize) {
            let set = |ino: &Ino| Action::SetXattr {
                ino: *ino,
                name: Bytes::from_static(b"user.large"),
                value: value.clone(),
                mode: XattrMode::Either,
            };
            alice.act(frame.iter().map(set).collect(), &[]).await;
        }
        alice
    });
    until(|| faulty.syncs.load(Ordering::Relaxed) > syncs).await;
    let set = || world.engine.counts(&name("alice")).unwrap().ops - FILES;
    let mut before = 0;
    while set() > before || before == 0 {
        before = set();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let held = before * XATTR_VALUE_BYTES_MAX as u64;
    faulty.hold_sync.store(false, Ordering::Relaxed);
    assert!(held < 48 << 20, "{held} bytes of attributes are held");
    all.await.unwrap().sync().await;
}
