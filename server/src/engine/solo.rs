//! A session without a client: a tree that somebody on this machine changes, who has the store
//! itself. It works in a process beside the server's, or when none runs.
//!
//! It begins as any session does, so whichever session begins later fences it: nothing that it had
//! not committed by then ever shows.
//!
//! It does not know whether a client has a session; whoever begins it claims the account and asks.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::tree::{Action, Need, Node, Op};
use xfer_protocol::{Epoch, Errno, IdRange, Ino, Name, Timestamp};
use xfer_store::{AccountId, Beginner, Committed, Store, StoreError};

use crate::engine::clock::SystemClock;
use crate::engine::session::begin::without_orphans;
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;
use crate::engine::tree::halt::Halt;
use crate::engine::tree::holding::{self, HasTree, Unmade, make_room};
use crate::engine::tree::{Tree, Unplanned, Work};
use crate::program::waiting::Waiter;

/// Memory for the rows of the one tree, in bytes.
const ROWS_BYTES: usize = 64 << 20;

/// Why a tree could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoloError {
    /// The rules refuse the op; nothing was changed by it.
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
            // Its data is beside each op that it makes.
            Halt::Protocol(_) => SoloError::Refused(Errno::EINVAL),
            Halt::Storage(error) => SoloError::Storage(error),
        }
    }
}

/// A tree, for its one user in this process, who waits for all that it does.
pub(crate) struct Solo<'a> {
    waiter: &'a Waiter,
    stores: Stores,
    account: AccountId,
    user: Name,
    epoch: Epoch,
    tree: Mutex<Tree>,
    /// What is left of the numbers granted last.
    ids: IdRange,
}

impl HasTree for Solo<'_> {
    fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        Ok(work(&mut self.tree.lock()))
    }
}

impl<'a> Solo<'a> {
    /// Begins a session of this account, which the caller has claimed.
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
            Ok::<_, StoreError>((account, trees.grant_ids(IDS_MAX).await?))
        })?;
        let tree = Mutex::new(Tree::new(&stores, &account, ids));
        let (epoch, user, account) = (account.epoch, account.name, account.id);
        Ok(Solo { waiter, stores, account, user, epoch, tree, ids })
    }

    /// A number that nothing has yet.
    ///
    /// # Errors
    /// If no more are granted.
    pub(crate) fn fresh(&mut self) -> Result<u64, SoloError> {
        if self.ids.first == self.ids.end {
            self.ids = self.waiter.wait(self.stores.store.trees.grant_ids(IDS_MAX))?;
            self.tree.lock().numbers_mut().grow(self.ids);
        }
        let id = self.ids.first;
        self.ids.first += 1;
        Ok(id)
    }

    /// Does something to the tree as of `time`, with the data it writes, and commits if much waits.
    ///
    /// # Errors
    /// If it is refused, or nothing can be changed any more.
    pub(crate) fn act(
        &mut self,
        time: Timestamp,
        action: Action,
        data: Bytes,
    ) -> Result<(), SoloError> {
        self.waiter.wait(self.apply(&Op { time, action }, &data))?;
        let is_large = self.tree.lock().is_large();
        if is_large { self.commit() } else { Ok(()) }
    }

    async fn apply(&self, op: &Op, data: &Bytes) -> Result<(), SoloError> {
        let mut extended = false;
        while let Some(wanted) = self.plan(op, data).await? {
            if std::mem::replace(&mut extended, true)
                || !make_room(&self.stores, self, wanted).await?
            {
                return Err(self.tree.lock().no_room().into());
            }
        }
        let effects = self.tree.lock().take_effects();
        if !effects.is_empty()
            && let Err(undone) = self.stores.store.contents.perform(effects).await
        {
            return Err(self.tree.lock().take_back(undone).into());
        }
        self.tree.lock().apply();
        Ok(())
    }

    /// Plans an op, unless that takes more room than was promised: then it says how much.
    async fn plan(
        &self,
        op: &Op,
        data: &Bytes,
    ) -> Result<Option<xfer_protocol::tree::Room>, SoloError> {
        let plan = |tree: &mut Tree| match tree.plan(op, data) {
            Ok(()) => Ok(Ok(None)),
            Err(Unplanned::Missing(needs)) => Err(needs),
            Err(Unplanned::Crowded(wanted)) => Ok(Ok(Some(wanted))),
            Err(Unplanned::Halted(halt)) => Ok(Err(halt)),
        };
        Ok(holding::attempt(&self.stores.store, self, plan).await??)
    }

    /// What an entry refers to.
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

    /// An entry that the table does not know. It is not kept, but its node is.
    fn stored_entry(&self, needs: Vec<Need>) -> Result<Option<(Ino, Arc<Node>)>, SoloError> {
        let mut found = self.waiter.wait(self.stores.store.trees.load(self.account, needs))?;
        let ino = found.entries.drain(..).find_map(|(_, _, ino)| ino);
        self.tree.lock().fill(found);
        let Some(ino) = ino else { return Ok(None) };
        Ok(self.node(ino)?.map(|node| (ino, node)))
    }

    /// A node.
    ///
    /// # Errors
    /// If the storage fails.
    pub(crate) fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, SoloError> {
        let node = holding::attempt(&self.stores.store, self, |tree| tree.node(ino));
        Ok(self.waiter.wait(node)?)
    }

    /// Makes sure that no later session owns the tree by now. To be asked before bytes are written
    /// where a committed node can reach them: those the next commit's fence would not take back.
    ///
    /// # Errors
    /// If one does, or the account was removed.
    pub(crate) fn must_own(&self) -> Result<(), SoloError> {
        let account = self.waiter.wait(self.stores.store.accounts.find(self.user.clone()))?;
        let owns = account.is_some_and(|now| now.id == self.account && now.epoch == self.epoch);
        if owns { Ok(()) } else { Err(SoloError::Fenced) }
    }

    /// Makes durable what was done so far.
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

    /// Takes over a quota that was set meanwhile.
    async fn note_quota(&self) -> Result<(), SoloError> {
        if let Some(account) = self.stores.store.accounts.find(self.user.clone()).await? {
            self.tree.lock().set_quota(account.quota);
        }
        Ok(())
    }

    /// Drops what was not committed.
    ///
    /// # Errors
    /// If its bytes could not be removed; they stay until the server's next start.
    pub(crate) fn abandon(self) -> Result<(), StoreError> {
        let left = self.tree.lock().left();
        self.waiter.wait(self.stores.store.trees.end(self.account, self.epoch, left))
    }
}
