//! What a client is granted while its session runs: room on the disk, and numbers.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use xfer_protocol::IdRange;
use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::tree::{Limit, Room};
use xfer_store::StoreError;

use crate::engine::driver::over::{Over, no_tree, panicked};
use crate::engine::durable::garbage::collect;
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::Session;
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;

/// Grants to one session, from the stores.
pub(crate) struct Granting {
    session: Arc<Session>,
    stores: Stores,
}

impl Granting {
    pub(crate) fn new(session: Arc<Session>, stores: Stores) -> Granting {
        Granting { session, stores }
    }

    /// More numbers, for a client whose numbers are running out.
    pub(crate) async fn more_ids(&self) -> Result<IdRange, Over> {
        let (session, stores) = (self.session.clone(), self.stores.clone());
        let granted = spawn_blocking(move || {
            if !session.tree.with(|tree| tree.ids_mut().may_grow()).map_err(no_tree)? {
                return Err(Over::Protocol("more numbers asked for than are used".to_owned()));
            }
            let range =
                stores.meta.grant_ids(IDS_MAX).map_err(|e| Over::Failed(Trouble::from(&e)))?;
            session.tree.with(|tree| tree.ids_mut().grow(range)).map_err(no_tree)?;
            Ok(range)
        });
        granted.await.map_err(panicked)?
    }

    /// A client that is quiet gives room back. Others begin sessions too: its tree gets smaller.
    pub(crate) async fn take_back(&self, limit: Limit) -> Result<(), Over> {
        let session = self.session.clone();
        let taken = spawn_blocking(move || {
            session.tree.with(|tree| {
                tree.room_mut().give_back(limit);
                tree.trim();
            })
        });
        taken.await.map_err(panicked)?.map_err(no_tree)
    }

    /// What the disk can take and the session's limit, if the disk says so; the limit is raised, if
    /// possible to what is wanted.
    pub(crate) async fn room(&self, wanted: Option<Room>) -> Result<Option<(Room, Limit)>, Over> {
        let (session, stores) = (self.session.clone(), self.stores.clone());
        let asked = spawn_blocking(move || extend(&session, &stores, wanted));
        let asked = asked.await.map_err(panicked)?.map_err(no_tree)?;
        Ok(asked.inspect_err(|error| tracing::warn!(%error, "the disk's room is not known")).ok())
    }
}

/// Raises a session's limit, and says what the disk can take.
fn extend(
    session: &Session,
    stores: &Stores,
    wanted: Option<Room>,
) -> Result<Result<(Room, Limit), StoreError>, NoTree> {
    let raise = || {
        session.tree.with(|tree| {
            let room = tree.room_mut();
            let free = wanted.map_or_else(|| stores.space.free(), |wanted| room.extend(wanted))?;
            Ok((free, room.limit()))
        })
    };
    let raised = raise()?;
    let is_short =
        |(_, limit): &(Room, Limit)| wanted.is_some_and(|wanted| !limit.room.covers(wanted));
    if !raised.as_ref().is_ok_and(is_short) {
        return Ok(raised);
    }
    // What nothing needs any more must not stand in the way.
    if let Err(error) = collect(stores) {
        tracing::warn!(%error, "garbage stays for now");
    }
    raise()
}
