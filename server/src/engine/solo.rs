//! A session without a client: a tree that somebody on this machine changes, who has the store
//! itself. It works in a process beside the server's, or when none runs.
//!
//! It begins as any session does, so whichever session begins later fences it: nothing that it had
//! not committed by then ever shows.
//!
//! It does not know whether a client has a session; whoever begins it claims the account and asks.

use std::sync::Arc;
use std::time::SystemTime;

use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::tree::{Action, Node, Op};
use xfer_protocol::{Epoch, Errno, IdRange, Ino, Name, Timestamp};
use xfer_store::{AccountId, Committed, ContentStore, MetaStore, StoreError};

use super::stores::Stores;
use super::tree::{Tree, Work};
use crate::engine::durable::leftovers::tidy_after;
use crate::engine::session::begin::tidy;
use crate::engine::tree::halt::Halt;
use crate::engine::tree::rows_budget::RowsBudget;
use crate::engine::tree::space::Space;

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

/// A tree, for its one user in this process.
pub(crate) struct Solo {
    stores: Stores,
    account: AccountId,
    user: Name,
    epoch: Epoch,
    tree: Tree,
    /// What is left of the numbers granted last.
    ids: IdRange,
}

impl Solo {
    /// Begins a session of this account.
    ///
    /// # Errors
    /// If the storage fails, or the account was removed.
    pub(crate) fn begin(
        meta: Arc<dyn MetaStore>,
        contents: Arc<dyn ContentStore>,
        account: AccountId,
    ) -> Result<Solo, StoreError> {
        let (rows, space) = (RowsBudget::new(ROWS_BYTES), Space::new(contents.clone()));
        let stores = Stores { meta, contents, rows, space };
        let mut account = stores.meta.begin_session(account)?;
        account.usage = tidy(&stores, &account)?;
        let ids = stores.meta.grant_ids(IDS_MAX)?;
        let tree = Tree::new(stores.clone(), &account, ids);
        Ok(Solo {
            stores,
            account: account.id,
            user: account.name,
            epoch: account.epoch,
            tree,
            ids,
        })
    }

    /// A number that nothing has yet.
    ///
    /// # Errors
    /// If no more are granted.
    pub(crate) fn fresh(&mut self) -> Result<u64, SoloError> {
        if self.ids.first == self.ids.end {
            self.ids = self.stores.meta.grant_ids(IDS_MAX)?;
            self.tree.ids_mut().grow(self.ids);
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
        data: &[u8],
    ) -> Result<(), SoloError> {
        match self.tree.apply(&Op { time, action }, data) {
            Ok(()) => {}
            Err(Halt::Refused { seq: _, errno }) => return Err(SoloError::Refused(errno)),
            Err(Halt::Protocol(what)) => return Err(StoreError::Refused(what).into()),
            Err(Halt::Storage(error)) => return Err(error.into()),
        }
        if self.tree.is_large() { self.commit() } else { Ok(()) }
    }

    /// What an entry refers to.
    ///
    /// # Errors
    /// If the storage fails.
    pub(crate) fn entry(
        &mut self,
        parent: Ino,
        name: &Name,
    ) -> Result<Option<(Ino, Arc<Node>)>, SoloError> {
        let Some(ino) = self.tree.entry(parent, name)? else { return Ok(None) };
        Ok(self.node(ino)?.map(|node| (ino, node)))
    }

    /// A node.
    ///
    /// # Errors
    /// If the storage fails.
    pub(crate) fn node(&mut self, ino: Ino) -> Result<Option<Arc<Node>>, SoloError> {
        Ok(self.tree.node(ino)?)
    }

    /// Makes sure that no later session owns the tree by now. To be asked before bytes are written
    /// where a committed node can reach them: those the next commit's fence would not take back.
    ///
    /// # Errors
    /// If one does, or the account was removed.
    pub(crate) fn must_own(&self) -> Result<(), SoloError> {
        let account = self.stores.meta.account(&self.user)?;
        let owns = account.is_some_and(|now| now.id == self.account && now.epoch == self.epoch);
        if owns { Ok(()) } else { Err(SoloError::Fenced) }
    }

    /// Makes durable what was done so far.
    ///
    /// # Errors
    /// If a later session owns the tree, or the storage fails.
    pub(crate) fn commit(&mut self) -> Result<(), SoloError> {
        let seq = self.tree.applied();
        let Some(Work { batch, contents }) = self.tree.take_batch(SystemTime::now().into()) else {
            return Ok(());
        };
        self.stores.contents.make_durable(&contents)?;
        match self.stores.meta.commit(&[batch])?.first() {
            Some(Committed::Durable) => {
                self.tree.settle(seq)?;
                self.note_quota()
            }
            Some(Committed::Fenced) | None => {
                self.tree.withdraw();
                Err(SoloError::Fenced)
            }
        }
    }

    /// Takes over a quota that was set meanwhile.
    fn note_quota(&mut self) -> Result<(), SoloError> {
        if let Some(account) = self.stores.meta.account(&self.user)? {
            self.tree.set_quota(account.quota);
        }
        Ok(())
    }

    /// Drops what was not committed.
    ///
    /// # Errors
    /// If its bytes could not be removed; they stay until the server's next start.
    pub(crate) fn abandon(self) -> Result<(), StoreError> {
        tidy_after(&self.stores, self.account, self.epoch, self.tree.left())
    }
}
