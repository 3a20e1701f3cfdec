//! A session without a client: a process on this machine changes the tree, directly in the store.
//! The process may run beside a server or without one.
//!
//! It begins like any other session, so the next session to begin fences it: changes that it has
//! not committed by then never show.
//!
//! It does not know whether a client has a session. The caller claims the account and asks before
//! it begins one.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::tree::{Action, Need, Node, Op, Room};
use xfer_protocol::{Epoch, Errno, IdRange, Ino, Name, Timestamp};
use xfer_store::{AccountId, Beginner, Committed, Fate, Store, StoreError};

use crate::engine::clock::SystemClock;
use crate::engine::session::begin::without_orphans;
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;
use crate::engine::tree::halt::Halt;
use crate::engine::tree::holding::{self, HasTree, Unmade, make_room};
use crate::engine::tree::numbers::Numbers;
use crate::engine::tree::{Tree, Unplanned, Work};
use crate::program::waiting::Waiter;

/// The memory for the rows of the one tree, in bytes.
const ROWS_BYTES: usize = 64 << 20;

/// Why a tree could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoloError {
    /// The rules refuse the op, which changed nothing.
    #[error("{0}")]
    Refused(Errno),
    /// A later session owns the tree.
    #[error("a session began")]
    Fenced,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
}

impl From<Unmade> for SoloError {
    fn from(error: Unmade) -> SoloError {
        match error {
            Unmade::NoTree => SoloError::Fenced,
            Unmade::Storage(error) => SoloError::Storage(error),
        }
    }
}

impl From<Halt> for SoloError {
    fn from(halt: Halt) -> SoloError {
        match halt {
            Halt::Refused { seq: _, errno } => SoloError::Refused(errno),
            Halt::Full { seq: _ } => SoloError::Storage(StoreError::Full),
            // Can't happen: each op is passed together with its data.
            Halt::Protocol(_) => SoloError::Refused(Errno::EINVAL),
            Halt::Storage(error) => SoloError::Storage(error),
        }
    }
}

/// How far an op got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    /// It takes this much room, more than the session's limit.
    Crowded(Room),
    /// All earlier ops must be durable first.
    Unsettled,
}

/// A tree with one caller in this process, which waits for each of its operations.
pub(crate) struct Solo<'a> {
    waiter: &'a Waiter,
    stores: Stores,
    account: AccountId,
    user: Name,
    epoch: Epoch,
    tree: Mutex<Tree>,
    /// The rest of the numbers granted last.
    ids: IdRange,
}

impl HasTree for Solo<'_> {
    fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        Ok(work(&mut self.tree.lock()))
    }
}

impl<'a> Solo<'a> {
    /// Begins a session of an account that the caller has claimed.
    ///
    /// # Errors
    /// If the storage fails, or the account was removed.
    pub(crate) fn begin(
        waiter: &'a Waiter,
        store: Store,
        account: AccountId,
    ) -> Result<Solo<'a>, StoreError> {
        let stores = Stores::new(store, ROWS_BYTES, Arc::new(SystemClock));
        let trees = &stores.store.trees;
        let (account, ids) = waiter.wait(async {
            let begun = trees.begin(account, Beginner::Claimant).await?;
            let account = without_orphans(&**trees, begun, stores.now()).await?;
            let ids = trees.grant_ids(account.id, IDS_MAX).await?;
            Ok::<_, StoreError>((account, ids))
        })?;
        let tree = Mutex::new(Tree::new(&stores, &account, Numbers::new(ids)));
        let (epoch, user, account) = (account.epoch, account.name, account.id);
        Ok(Solo { waiter, stores, account, user, epoch, tree, ids })
    }

    /// Returns a number that was never used.
    ///
    /// # Errors
    /// If the store can't grant more numbers.
    pub(crate) fn fresh(&mut self) -> Result<u64, SoloError> {
        if self.ids.first == self.ids.end {
            self.ids =
                self.waiter.wait(self.stores.store.trees.grant_ids(self.account, IDS_MAX))?;
            self.tree.lock().numbers_mut().grow(self.ids);
        }
        let id = self.ids.first;
        self.ids.first += 1;
        Ok(id)
    }

    /// Applies an action as of `time`, with the data that it writes, and commits if the batch has
    /// become large.
    ///
    /// # Errors
    /// If the action is refused, or the tree can't be changed any more.
    pub(crate) fn act(
        &mut self,
        time: Timestamp,
        action: Action,
        data: Bytes,
    ) -> Result<(), SoloError> {
        let op = Op { time, action };
        while self.waiter.wait(self.apply(&op, &data))? == Step::Unsettled {
            self.commit()?;
        }
        let is_large = self.tree.lock().is_large();
        if is_large { self.commit() } else { Ok(()) }
    }

    async fn apply(&self, op: &Op, data: &Bytes) -> Result<Step, SoloError> {
        let mut extended = false;
        loop {
            match self.plan(op, data).await? {
                Step::Done => break,
                Step::Unsettled => return Ok(Step::Unsettled),
                Step::Crowded(wanted) => {
                    if std::mem::replace(&mut extended, true)
                        || !make_room(&self.stores, self, wanted).await?
                    {
                        return Err(self.tree.lock().no_room().into());
                    }
                }
            }
        }
        let effects = self.tree.lock().take_effects();
        if !effects.is_empty()
            && let Err(undone) = self.stores.store.contents.perform(effects).await
        {
            return Err(self.tree.lock().take_back(undone).into());
        }
        self.tree.lock().apply();
        Ok(Step::Done)
    }

    /// Plans an op.
    async fn plan(&self, op: &Op, data: &Bytes) -> Result<Step, SoloError> {
        let plan = |tree: &mut Tree| match tree.plan(op, data) {
            Ok(()) => Ok(Ok(Step::Done)),
            Err(Unplanned::Missing(needs)) => Err(needs),
            Err(Unplanned::Crowded(wanted)) => Ok(Ok(Step::Crowded(wanted))),
            Err(Unplanned::Unsettled) => Ok(Ok(Step::Unsettled)),
            Err(Unplanned::Halted(halt)) => Ok(Err(halt)),
        };
        Ok(holding::attempt(&self.stores.store, self, plan).await??)
    }

    /// Returns the node that an entry refers to.
    ///
    /// # Errors
    /// If the storage fails.
    pub(crate) fn entry(
        &self,
        parent: Ino,
        name: &Name,
    ) -> Result<Option<(Ino, Arc<Node>)>, SoloError> {
        let known = self.tree.lock().entry(parent, name);
        let ino = match known {
            Ok(ino) => ino,
            Err(needs) => return self.stored_entry(needs),
        };
        let Some(ino) = ino else { return Ok(None) };
        Ok(self.node(ino)?.map(|node| (ino, node)))
    }

    /// Looks up an entry that the table does not know. The table keeps its node, but not the entry.
    fn stored_entry(&self, needs: Vec<Need>) -> Result<Option<(Ino, Arc<Node>)>, SoloError> {
        let mut found = self.waiter.wait(self.stores.store.trees.load(self.account, needs))?;
        let ino = found.entries.drain(..).find_map(|(_, _, ino)| ino);
        self.tree.lock().fill(found);
        let Some(ino) = ino else { return Ok(None) };
        Ok(self.node(ino)?.map(|node| (ino, node)))
    }

    /// Returns a node, from the table or the store.
    ///
    /// # Errors
    /// If the storage fails.
    pub(crate) fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, SoloError> {
        let node = holding::attempt(&self.stores.store, self, |tree| tree.node(ino));
        Ok(self.waiter.wait(node)?)
    }

    /// Makes sure that no later session owns the tree yet. To be called before bytes are written
    /// where a committed node can reach them, because the fence at the next commit would not undo
    /// these writes.
    ///
    /// # Errors
    /// If a later session owns the tree, or the account was removed.
    pub(crate) fn must_own(&self) -> Result<(), SoloError> {
        let account = self.waiter.wait(self.stores.store.accounts.find(self.user.clone()))?;
        let owns = account.is_some_and(|now| now.id == self.account && now.epoch == self.epoch);
        if owns { Ok(()) } else { Err(SoloError::Fenced) }
    }

    /// Makes all changes so far durable.
    ///
    /// # Errors
    /// If a later session owns the tree, or the storage fails.
    pub(crate) fn commit(&mut self) -> Result<(), SoloError> {
        self.waiter.wait(self.commit_all())
    }

    async fn commit_all(&self) -> Result<(), SoloError> {
        let Store { trees, contents, .. } = &self.stores.store;
        let (seq, taken) = {
            let mut tree = self.tree.lock();
            (tree.applied(), tree.take_batch(SystemTime::now().into()))
        };
        let Some(Work { mut batch, contents: touched }) = taken else { return Ok(()) };
        for placements in contents.make_durable(vec![touched]).await? {
            batch.placements = placements?;
        }
        match trees.commit(vec![batch]).await?.pop().transpose()? {
            Some(Committed::Durable(_)) => {
                holding::reclaim(&self.stores.store, self, seq).await?;
                self.note_quota().await
            }
            Some(Committed::Fenced) | None => {
                self.tree.lock().withdraw();
                Err(SoloError::Fenced)
            }
        }
    }

    /// Adopts a quota that was set meanwhile.
    async fn note_quota(&self) -> Result<(), SoloError> {
        if let Some(account) = self.stores.store.accounts.find(self.user.clone()).await? {
            self.tree.lock().set_quota(account.quota);
        }
        Ok(())
    }

    /// Drops all changes that were not committed.
    ///
    /// # Errors
    /// If their bytes could not be removed. They then stay until the server's next start.
    pub(crate) fn abandon(self) -> Result<(), StoreError> {
        let left = self.tree.lock().left();
        self.waiter.wait(self.stores.store.trees.end(self.account, self.epoch, left, Fate::Over))
    }
}
