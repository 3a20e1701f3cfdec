//! Grants to a client while its session runs: room on the disk, and numbers.

use std::sync::Arc;

use xfer_protocol::IdRange;
use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::tree::{Limit, Room};

use crate::engine::driver::over::{Over, no_tree};
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::Session;
use crate::engine::stores::Stores;

/// The grants to one session.
pub(crate) struct Granting {
    session: Arc<Session>,
    stores: Stores,
}

impl Granting {
    pub(crate) fn new(session: Arc<Session>, stores: Stores) -> Granting {
        Granting { session, stores }
    }

    /// Grants more numbers to a client whose numbers are running out.
    pub(crate) async fn more_ids(&self) -> Result<IdRange, Over> {
        let may_grow = self.session.tree.with(|tree| tree.numbers_mut().may_grow());
        if !may_grow.map_err(no_tree)? {
            return Err(Over::Protocol("more numbers asked for than are used".to_owned()));
        }
        let granted = self.stores.store.trees.grant_ids(self.session.account(), IDS_MAX).await;
        let range = granted.map_err(|error| Over::Failed(Trouble::from(&error)))?;
        self.session.tree.with(|tree| tree.numbers_mut().grow(range)).map_err(no_tree)?;
        Ok(range)
    }

    /// Lowers the limit as a quiet client offers. Also trims the tree, whose share of memory
    /// shrinks when other sessions begin.
    pub(crate) async fn take_back(&self, limit: Limit) -> Result<(), Over> {
        let _turn = self.session.tree.turn().await.map_err(no_tree)?;
        let taken = self.session.tree.with(|tree| {
            tree.room_mut().give_back(limit);
            tree.trim();
        });
        taken.map_err(no_tree)
    }

    /// Raises the session's limit if `wanted` is given, to that much if possible. Returns the room
    /// on the disk and the new limit, or `None` if the disk can't be asked.
    pub(crate) async fn room(&self, wanted: Option<Room>) -> Result<Option<(Room, Limit)>, Over> {
        let raised = self.extend(wanted).await?;
        let is_short =
            |(_, limit): &(Room, Limit)| wanted.is_some_and(|wanted| !limit.room.covers(wanted));
        if !raised.as_ref().is_some_and(is_short) {
            return Ok(raised);
        }
        // Garbage may hold the room that is missing.
        if let Err(error) = self.stores.store.contents.reclaim().await {
            tracing::warn!(%error, "garbage stays for now");
        }
        self.extend(wanted).await
    }

    /// Raises the session's limit if `wanted` is given, and returns it with the room on the disk.
    async fn extend(&self, wanted: Option<Room>) -> Result<Option<(Room, Limit)>, Over> {
        let seen = match self.stores.space.look().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "the free space of the store's disk is not known");
                return Ok(None);
            }
        };
        let limit = self.session.tree.with(|tree| {
            let room = tree.room_mut();
            if let Some(wanted) = wanted {
                room.extend(wanted, seen);
            }
            room.limit()
        });
        Ok(Some((seen.free, limit.map_err(no_tree)?)))
    }
}
