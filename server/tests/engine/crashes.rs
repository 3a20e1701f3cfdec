//! Servers that die at any step of their changes to contents. No row misses its content afterwards,
//! and the next server removes the contents that no row refers to.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use xfer_protocol::tree::{Action, FallocateMode, ItemKind, Node};
use xfer_protocol::{ContentId, Ino};
use xfer_server::engine::Engine;
use xfer_store::embedded::{self, FileStore, Files, SqliteStore};
use xfer_store::{AccountId, Disk, Stop, StoreError};

use crate::client::Client;
use crate::log::truncate;
use crate::world::{World, name};

const BLOCK: usize = 4096;

const PATIENCE: Duration = Duration::from_secs(20);

/// The change to contents at which a server dies, and whether that change is still made.
#[derive(Clone, Copy, Debug)]
struct Death {
    step: usize,
    done: bool,
}

impl Death {
    const NEVER: Death = Death { step: usize::MAX, done: true };
}

/// The content store of a server that dies.
struct Mortal {
    inner: Arc<dyn Files>,
    steps: AtomicUsize,
    death: Death,
}

impl Mortal {
    fn step<T>(&self, change: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        if step < self.death.step {
            return change();
        }
        if step == self.death.step && self.death.done {
            change()?;
        }
        Err(StoreError::io("a dead server's store", std::io::Error::other("told to")))
    }

    fn is_dead(&self) -> bool {
        self.steps.load(Ordering::SeqCst) > self.death.step
    }
}

impl Files for Mortal {
    fn create(&self, content: ContentId) -> Result<(), StoreError> {
        self.step(|| self.inner.create(content))
    }

    fn write(&self, content: ContentId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        self.step(|| self.inner.write(content, offset, data))
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
        self.step(|| self.inner.zero(content, offset, len, stop))
    }

    fn duplicate(
        &self,
        from: ContentId,
        to: ContentId,
        ranges: &[Range<u64>],
        stop: &Stop,
    ) -> Result<(), StoreError> {
        self.step(|| self.inner.duplicate(from, to, ranges, stop))
    }

    fn copy(
        &self,
        from: (ContentId, u64),
        to: (ContentId, u64),
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        self.step(|| self.inner.copy(from, to, len, stop))
    }

    fn free(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError> {
        self.step(|| self.inner.free(content, offset, len))
    }

    fn keep(&self, content: ContentId, ranges: &[Range<u64>]) -> Result<(), StoreError> {
        self.step(|| self.inner.keep(content, ranges))
    }

    fn make_each_durable(
        &self,
        contents: &[ContentId],
    ) -> Result<HashMap<ContentId, StoreError>, StoreError> {
        self.step(|| self.inner.make_each_durable(contents))
    }

    fn remove(&self, content: ContentId) -> Result<(), StoreError> {
        self.step(|| self.inner.remove(content))
    }

    fn set_aside(&self, content: ContentId) -> Result<Option<u64>, StoreError> {
        self.inner.set_aside(content)
    }

    fn each(&self, visit: &mut dyn FnMut(ContentId)) -> Result<(), StoreError> {
        self.inner.each(visit)
    }

    fn offer_freed(&self) -> Result<(), StoreError> {
        self.inner.offer_freed()
    }

    fn disk(&self) -> Result<Disk, StoreError> {
        self.inner.disk()
    }
}

/// Creates, shares, changes and drops contents in every way. It writes no zero bytes, and
/// overwrites and frees only whole blocks, so a zero in a file is a byte that was reclaimed too
/// early.
async fn live(mut alice: Client) {
    let shared = alice.create(Ino::ROOT, "shared").await;
    alice.write(shared, 0, &[1; 4 * BLOCK]).await;
    let copy = alice.create(Ino::ROOT, "copy").await;
    let fresh = ContentId(alice.id());
    let (from, to, len) = (shared, copy, 4 * BLOCK as u64);
    let share = Action::CopyRange { from, from_offset: 0, to, to_offset: 0, len, fresh };
    alice.act(vec![share], &[]).await;
    alice.sync().await;
    // The copy is unshared, punched and truncated. Then the other file is dropped.
    alice.write(copy, 0, &[2; BLOCK]).await;
    alice.sync().await;
    let (ino, mode, fresh) = (copy, FallocateMode::PunchHole, ContentId(alice.id()));
    let (offset, len) = (BLOCK as u64, BLOCK as u64);
    let punch = Action::Fallocate { ino, offset, len, mode, fresh };
    alice.act(vec![punch, truncate(copy, 3 * BLOCK as u64)], &[]).await;
    alice.sync().await;
    alice.unlink(Ino::ROOT, "shared").await;
    alice.sync().await;
    alice.act(vec![Action::ForgetOrphan { ino: shared }], &[]).await;
    alice.sync().await;
    // A file is sent, and its record removed before the delivery is accepted.
    let mailbox = alice.mailbox("bob").await;
    alice.send_file("bob", mailbox, "letter").await;
    alice.sync().await;
    alice.unlink(mailbox, "letter").await;
    alice.act(vec![truncate(copy, 0)], &[]).await;
    alice.write(copy, 0, &[3; BLOCK]).await;
    alice.sync().await;
    // No barrier waits for this.
    let last = alice.create(Ino::ROOT, "last").await;
    alice.write(last, 0, &[4; 2 * BLOCK]).await;
    alice.logout().await;
}

/// All committed nodes of an account, including orphans.
fn nodes(meta: &SqliteStore, account: AccountId) -> Vec<Node> {
    let mut found = Vec::new();
    let mut waiting = vec![Ino::ROOT];
    while let Some(directory) = waiting.pop() {
        for (_, ino, node) in meta.page(account, directory, None, 1_000).unwrap() {
            if node.is_directory() {
                waiting.push(ino);
            }
            found.push(node);
        }
    }
    let orphans = meta.orphans(account).unwrap().into_iter();
    found.extend(orphans.map(|ino| meta.node(account, ino).unwrap().unwrap()));
    found
}

/// The contents that committed rows refer to. If `contents` is given, checks that all their bytes
/// are there.
fn referred(meta: &SqliteStore, contents: Option<&FileStore>) -> BTreeSet<ContentId> {
    let mut found = BTreeSet::new();
    for account in meta.accounts().unwrap() {
        for node in nodes(meta, account.id) {
            let Some(data) = node.file() else { continue };
            let runs = data.extents.data_in(data.size, 0..data.size);
            found.extend(data.content);
            for run in runs {
                let mut bytes = vec![0; (run.end - run.start) as usize];
                let Some(contents) = contents else { continue };
                let read = contents.read(data.content.unwrap(), run.start, &mut bytes).unwrap();
                assert_eq!(read, bytes.len(), "{:?} is cut off", data.content);
                assert!(!bytes.contains(&0), "{:?} lacks bytes", data.content);
            }
        }
        for (_, head) in meta.waiting_after(account.id, 0, usize::MAX).unwrap() {
            let delivery = meta.delivery(account.id, head.id).unwrap().unwrap();
            for item in &delivery.items {
                let ItemKind::File { content: Some(content), .. } = item.kind else { continue };
                found.insert(content);
                if let Some(contents) = contents {
                    let mut bytes = [0; 7];
                    assert_eq!(contents.read(content, 0, &mut bytes).unwrap(), 7);
                    assert_eq!(&bytes, b"for you");
                }
            }
        }
    }
    found
}

fn listed(contents: &dyn Files) -> BTreeSet<ContentId> {
    let mut found = BTreeSet::new();
    contents
        .each(&mut |content| {
            found.insert(content);
        })
        .unwrap();
    found
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a server until its death, or until it has no more to do. Checks the store that it leaves,
/// before and after the next server runs. Returns the number of steps.
fn check_death(death: Death) -> usize {
    let first = runtime();
    let (world, mortal) = first.block_on(async {
        let mut mortal = None;
        let world = World::over(|inner| {
            let store = Arc::new(Mortal { inner, steps: AtomicUsize::new(0), death });
            mortal = Some(store.clone());
            store
        });
        let mortal = mortal.unwrap();
        let alice = world.login("alice").await;
        // A client fails when its server dies. Only the store that is left counts.
        let lived = tokio::spawn(live(alice)).await;
        assert!(lived.is_ok() || mortal.is_dead(), "the client failed under a living server");
        until("the server to die, or to have nothing to do", || {
            mortal.is_dead() || listed(&*mortal) == referred(&world.meta, None)
        })
        .await;
        (world, mortal)
    });
    first.shutdown_timeout(PATIENCE);
    let (meta, contents) = world.reopen();
    let kept = referred(&meta, Some(&contents));
    check_next(world, meta, contents, kept);
    mortal.steps.load(Ordering::SeqCst)
}

/// Checks that the next server keeps exactly the contents that rows refer to, and that a login
/// removes orphans too.
fn check_next(world: World, meta: SqliteStore, contents: FileStore, kept: BTreeSet<ContentId>) {
    let (meta, contents) = (Arc::new(meta), Arc::new(contents));
    let next = runtime();
    next.block_on(async {
        let engine = Engine::new(embedded::over(meta.clone(), contents.clone()), 64 << 20);
        until("what no row has to be swept", || listed(&*contents) == kept).await;
        let world = world.over_again(engine);
        world.login("alice").await.logout().await;
        assert_eq!(meta.orphans(meta.account(&name("alice")).unwrap().unwrap().id).unwrap(), []);
        until("what orphans had to go", || listed(&*contents) == referred(&meta, Some(&contents)))
            .await;
    });
}

#[test]
fn a_crash_at_any_step_leaves_rows_with_their_contents_and_the_next_start_removes_the_rest() {
    let steps = check_death(Death::NEVER);
    assert!(steps > 20, "{steps} steps are too few to be all");
    for step in 0..steps {
        for done in [false, true] {
            println!("dies at step {step} of {steps}, done: {done}");
            check_death(Death { step, done });
        }
    }
}
