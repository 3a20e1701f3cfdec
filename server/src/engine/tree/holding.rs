//! Attempts on a tree, with calls to the store between them.
//!
//! Work on a tree is an attempt, made under the tree's lock. It is done at once, or names the rows
//! that it misses. These are loaded without the lock, and the attempt is made again.
//!
//! **Invariant:** a tree is never locked across an await. A task that loads rows has the tree's
//! turn, so no row is changed, marked durable or unloaded between a call to the store and its
//! answer.

use xfer_protocol::Seq;
use xfer_protocol::tree::{Need, Room};
use xfer_store::{Store, StoreError};

use crate::engine::session::turn::{NoTree, TreeTurn};
use crate::engine::stores::Stores;
use crate::engine::tree::{Reclaimed, Tree};

/// An owner of a tree: a session with a client, or one without.
pub(crate) trait HasTree {
    /// Runs `work` on the tree.
    fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree>;
}

impl HasTree for TreeTurn {
    fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        TreeTurn::with(self, work)
    }
}

/// Why an attempt on a tree could not be finished.
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
            return Err(StoreError::Database(format!("{first:?} cannot be loaded")).into());
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

/// Raises the session's limit to `wanted`, the room that its ops take up. Returns whether the disk
/// has that much.
pub(crate) async fn make_room(
    stores: &Stores,
    holder: &impl HasTree,
    wanted: Room,
) -> Result<bool, Unmade> {
    // A session without a client never asks for room, so the disk is asked here.
    let seen = match stores.space.look().await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!(%error, "the free space of the store's disk is not known");
            return Ok(false);
        }
    };
    Ok(holder.with_tree(|tree| {
        tree.room_mut().extend(wanted, seen);
        tree.room_mut().limit().room.covers(wanted)
    })?)
}

/// Notes that all ops up to `seq` are durable, and reclaims the space that this made unreachable.
/// Returns whether there was any. Needs the tree's turn.
///
/// Space that can't be reclaimed now is already noted in rows, and reclaimed when the next session
/// begins.
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
