//! Working on a tree while the store is asked.
//!
//! What is done to a tree is an attempt, made while it is locked: it is done at once, or says which rows
//! it misses. Those are loaded while the tree is not locked, and the attempt is made again.
//!
//! **Invariant:** a tree is never locked across an await. Whoever loads rows has the tree's turn: nothing
//! is applied, settled or unloaded between a question to the store and its answer.

use xfer_protocol::Seq;
use xfer_protocol::tree::{Need, Room};
use xfer_store::{Store, StoreError};

use crate::engine::session::turn::{NoTree, TreeTurn};
use crate::engine::stores::Stores;
use crate::engine::tree::{Reclaimed, Tree};

/// Something that has a tree.
pub(crate) trait HasTree {
    /// Does something with the tree.
    fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree>;
}

impl HasTree for TreeTurn {
    fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        TreeTurn::with(self, work)
    }
}

/// Why an attempt on a tree was not made to its end.
#[derive(Debug)]
pub(crate) enum Unmade {
    /// The tree is not there.
    NoTree,
    /// The store failed.
    Storage(StoreError),
}

impl From<NoTree> for Unmade {
    fn from(_: NoTree) -> Unmade {
        Unmade::NoTree
    }
}

impl From<StoreError> for Unmade {
    fn from(error: StoreError) -> Unmade {
        Unmade::Storage(error)
    }
}

/// Makes an attempt until it misses no rows.
pub(crate) async fn attempt<T>(
    store: &Store,
    holder: &impl HasTree,
    mut attempt: impl FnMut(&mut Tree) -> Result<T, Vec<Need>>,
) -> Result<T, Unmade> {
    let mut loaded = None;
    loop {
        let needs = match holder.with_tree(&mut attempt)? {
            Ok(made) => return Ok(made),
            Err(needs) => needs,
        };
        let first = needs.first().cloned();
        if first == loaded {
            return Err(StoreError::Database(format!("{first:?} can't be loaded")).into());
        }
        load(store, holder, needs).await?;
        loaded = first;
    }
}

/// Loads rows into a tree.
pub(crate) async fn load(
    store: &Store,
    holder: &impl HasTree,
    needs: Vec<Need>,
) -> Result<(), Unmade> {
    let account = holder.with_tree(|tree| tree.account())?;
    let found = store.trees.load(account, needs).await?;
    Ok(holder.with_tree(|tree| tree.fill(found))?)
}

/// Asks the disk for more than the session was promised, which its ops take up. Says whether it has that.
pub(crate) async fn make_room(
    stores: &Stores,
    holder: &impl HasTree,
    wanted: Room,
) -> Result<bool, Unmade> {
    // A session without a client never asks.
    let seen = match stores.space.look().await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!(%error, "the disk's room is not known");
            return Ok(false);
        }
    };
    Ok(holder.with_tree(|tree| {
        tree.room_mut().extend(wanted, seen);
        tree.room_mut().limit().room.covers(wanted)
    })?)
}

/// Notes that all up to `seq` is durable, and gives back what that made unreachable. Says whether there
/// was anything. Needs the tree's turn.
///
/// What can't be given back is noted as such in rows, and tried again when the next session begins.
pub(crate) async fn reclaim(
    store: &Store,
    holder: &impl HasTree,
    seq: Seq,
) -> Result<bool, Unmade> {
    holder.with_tree(|tree| tree.mark_durable(seq))?;
    let mut reclaimed: Reclaimed = attempt(store, holder, Tree::unreachable).await?;
    if reclaimed.effects.is_empty() {
        holder.with_tree(|tree| tree.note_reclaimed(reclaimed))?;
        return Ok(false);
    }
    let effects = std::mem::take(&mut reclaimed.effects);
    store.contents.perform(effects).await.map_err(|undone| undone.error)?;
    holder.with_tree(|tree| tree.note_reclaimed(reclaimed))?;
    Ok(true)
}
