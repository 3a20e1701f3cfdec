//! The rows of a store that others use too: a commit takes a while, and one that is under way when
//! its server is killed still arrives, perhaps after the next server has begun its work. Only the
//! epochs keep it from harm.
//!
//! Bugs can be planted, to see that tests notice them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{DeliveryEffect, Need, Node};
use xfer_protocol::{DeliveryId, Epoch, IdRange, Ino, Name, Seq, SessionId};
use xfer_store::{
    AccountId, Answer, Batch, Beginner, Begun, Committed, Fate, Found, Left, Listing, Part,
    Resumable, Resumed, Resumption, StoreError, Trees,
};

/// How long a commit takes.
const COMMIT_TIME: Duration = Duration::from_millis(2);

/// How long after the start of the next server a commit of the last one arrives: after clients have
/// come back, or before. The number of its last op decides.
const LATE: [Duration; 2] = [Duration::from_millis(600), Duration::from_millis(1)];

/// The number of higher epochs that a forged batch tries.
const EPOCHS: usize = 1000;

/// The answer to a commit.
type Answered = Result<Vec<Result<Committed, StoreError>>, StoreError>;

/// A bug of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Commits are answered before they are made; a crash loses them.
    AcknowledgesEarly,
    /// A batch is committed even if a later session has the tree.
    ForgetsEpochs,
    /// A session goes on one op before the last that was applied, so that it is applied again.
    AppliesTwice,
    /// A node that was read before is read as it was then, so that its old row is followed over a newer
    /// one that was unloaded.
    ReadsOldNodes,
}

/// The rows of a store whose calls are answered at once.
pub struct Wayward {
    live: Arc<dyn Trees>,
    bug: Mutex<Option<Bug>>,
    /// Batches that were answered, and not committed.
    owed: Mutex<Vec<Batch>>,
    /// The deliveries that found no room in their inbox.
    refused: Arc<Mutex<BTreeSet<DeliveryId>>>,
    /// The deliveries whose records were gone when they were committed. The store does not say whether
    /// there was room for them.
    unrecorded: Arc<Mutex<BTreeSet<DeliveryId>>>,
    /// The nodes as they were first read.
    first_read: Mutex<BTreeMap<(AccountId, Ino), Option<Node>>>,
    servers: watch::Sender<Servers>,
    /// The number of commits under way.
    under_way: Arc<watch::Sender<usize>>,
}

/// The numbers of servers so far.
#[derive(Clone, Copy, Default)]
struct Servers {
    started: u64,
    killed: u64,
}

impl Wayward {
    /// The rows of a store, with a first server.
    pub fn over(live: Arc<dyn Trees>) -> Wayward {
        let servers = watch::Sender::new(Servers { started: 1, killed: 0 });
        let (bug, owed, first_read) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (refused, unrecorded, under_way) = (Arc::default(), Arc::default(), Arc::default());
        Wayward { live, bug, owed, refused, unrecorded, first_read, servers, under_way }
    }

    /// Plants a bug.
    pub fn plant(&self, bug: Bug) {
        *self.bug.lock().unwrap() = Some(bug);
    }

    /// The server that commits now is killed.
    pub fn kill(&self) {
        self.owed.lock().unwrap().clear();
        self.servers.send_modify(|servers| servers.killed = servers.started);
    }

    /// Another server begins its work.
    pub fn start(&self) {
        self.servers.send_modify(|servers| servers.started += 1);
    }

    /// The deliveries so far that found no room in their inbox.
    pub fn refused(&self) -> BTreeSet<DeliveryId> {
        self.refused.lock().unwrap().clone()
    }

    /// The deliveries so far of which the store has not said whether they found room.
    pub fn unrecorded(&self) -> BTreeSet<DeliveryId> {
        self.unrecorded.lock().unwrap().clone()
    }

    /// Waits until a commit is under way.
    pub async fn wait_for_commit(&self) {
        // The sender lives as long as this.
        let _ = self.under_way.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Waits until all commits have arrived, the late ones too.
    pub async fn wait_for_all(&self) {
        // The sender lives as long as this.
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }

    fn has(&self, bug: Bug) -> bool {
        *self.bug.lock().unwrap() == Some(bug)
    }

    /// Makes the commits that were answered early.
    async fn pay(&self) {
        let owed = std::mem::take(&mut *self.owed.lock().unwrap());
        if !owed.is_empty() {
            // The server never learns of an error: that is the bug.
            let _ = self.live.commit(owed).await;
        }
    }

    /// Puts nodes back to what they were when they were first read.
    fn age(&self, account: AccountId, nodes: &mut [(Ino, Option<Node>)]) {
        let mut first_read = self.first_read.lock().unwrap();
        for (ino, node) in nodes {
            *node = first_read.entry((account, *ino)).or_insert_with(|| node.clone()).clone();
        }
    }

    /// Does `commit` once it has arrived, whatever becomes of the server that asked for it.
    async fn arrive<T: Send + 'static>(
        &self,
        last: Seq,
        commit: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (mut servers, under_way) = (self.servers.subscribe(), self.under_way.clone());
        let own = servers.borrow().started;
        under_way.send_modify(|count| *count += 1);
        let arriving = async move {
            sleep(COMMIT_TIME).await;
            if servers.borrow().killed >= own {
                // It fails only once the store itself is gone.
                let _ = servers.wait_for(|servers| servers.started > own).await;
                sleep(LATE[last.0 as usize % LATE.len()]).await;
            }
            let committed = commit.await;
            under_way.send_modify(|count| *count -= 1);
            committed
        };
        tokio::spawn(arriving).await.expect("a commit does not panic")
    }

    /// Answers a commit that is not made yet. `None` if an answer needs the store.
    fn answer_early(&self, batches: &[Batch]) -> Option<Vec<Result<Committed, StoreError>>> {
        let is_plain = batches.iter().all(|batch| batch.deliveries.is_empty());
        if !is_plain || !self.has(Bug::AcknowledgesEarly) {
            return None;
        }
        self.owed.lock().unwrap().extend_from_slice(batches);
        Some(batches.iter().map(|_| Ok(Committed::Durable(Vec::new()))).collect())
    }
}

/// Commits batches with the epochs that they should have.
async fn forge(live: Arc<dyn Trees>, batches: Vec<Batch>) -> Answered {
    let mut all = Vec::new();
    for mut batch in batches {
        let mut committed = live.commit(vec![batch.clone()]).await?;
        for _ in 0..EPOCHS {
            if !matches!(committed[..], [Ok(Committed::Fenced)]) {
                break;
            }
            batch.epoch.0 += 1;
            committed = live.commit(vec![batch.clone()]).await?;
        }
        all.append(&mut committed);
    }
    Ok(all)
}

/// The deliveries of a batch whose records it removes.
fn unrecorded(batch: &Batch) -> impl Iterator<Item = DeliveryId> {
    let sent = batch.deliveries.iter().filter_map(|effect| match effect {
        DeliveryEffect::Sent { delivery, .. } => Some(delivery.id),
        DeliveryEffect::Accepted(_) | DeliveryEffect::Declined(_) => None,
    });
    sent.filter(|id| batch.unrecorded.contains(id))
}

/// The deliveries of a commit that found no room.
fn without_room(done: &Answered) -> impl Iterator<Item = DeliveryId> {
    let committed = done.iter().flatten().flatten();
    let decided = committed.flat_map(|committed| match committed {
        Committed::Durable(decided) => decided.as_slice(),
        Committed::Fenced => &[],
    });
    let refused = decided.filter(|one| matches!(one.state, DeliveryState::NoRoom(_)));
    refused.map(|one| one.delivery)
}

impl Trees for Wayward {
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun> {
        Box::pin(async move {
            self.pay().await;
            self.live.begin(account, by).await
        })
    }

    fn resumable(&self, account: AccountId) -> Answer<'_, Option<Resumable>> {
        self.live.resumable(account)
    }

    fn session_of(&self, account: AccountId, session: SessionId) -> Answer<'_, Option<Resumable>> {
        self.live.session_of(account, session)
    }

    fn give_up(&self, account: AccountId, session: SessionId) -> Answer<'_, ()> {
        self.live.give_up(account, session)
    }

    fn forget_dormant(&self, account: AccountId) -> Answer<'_, usize> {
        self.live.forget_dormant(account)
    }

    fn resume(&self, account: AccountId, with: Resumption) -> Answer<'_, Option<Resumed>> {
        Box::pin(async move {
            self.pay().await;
            let mut resumed = self.live.resume(account, with).await?;
            if let Some(resumed) = resumed.as_mut().filter(|_| self.has(Bug::AppliesTwice)) {
                resumed.account.applied = Seq(resumed.account.applied.0.saturating_sub(1));
            }
            Ok(resumed)
        })
    }

    fn load(&self, account: AccountId, needs: Vec<Need>) -> Answer<'_, Found> {
        Box::pin(async move {
            self.pay().await;
            let mut found = self.live.load(account, needs).await?;
            if self.has(Bug::ReadsOldNodes) {
                self.age(account, &mut found.nodes);
            }
            Ok(found)
        })
    }

    fn list(&self, account: AccountId, parts: Vec<Part>) -> Answer<'_, Vec<Listing>> {
        Box::pin(async move {
            self.pay().await;
            self.live.list(account, parts).await
        })
    }

    fn path(&self, account: AccountId, ino: Ino) -> Answer<'_, Option<Vec<Name>>> {
        self.live.path(account, ino)
    }

    fn grant_ids(&self, account: AccountId, count: u64) -> Answer<'_, IdRange> {
        self.live.grant_ids(account, count)
    }

    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>> {
        Box::pin(async move {
            self.pay().await;
            if let Some(answered) = self.answer_early(&batches) {
                return Ok(answered);
            }
            let last = batches.last().map_or(Seq(0), |batch| batch.applied);
            let (live, forges) = (self.live.clone(), self.has(Bug::ForgetsEpochs));
            let refused = self.refused.clone();
            self.unrecorded.lock().unwrap().extend(batches.iter().flat_map(unrecorded));
            let commit = async move {
                let done =
                    if forges { forge(live, batches).await } else { live.commit(batches).await };
                refused.lock().unwrap().extend(without_room(&done));
                done
            };
            self.arrive(last, commit).await
        })
    }

    fn end(&self, account: AccountId, epoch: Epoch, left: Left, fate: Fate) -> Answer<'_, ()> {
        Box::pin(async move {
            self.pay().await;
            self.live.end(account, epoch, left, fate).await
        })
    }

    fn forget(&self, account: AccountId, epoch: Epoch) -> Answer<'_, ()> {
        Box::pin(async move {
            self.pay().await;
            self.live.forget(account, epoch).await
        })
    }
}
