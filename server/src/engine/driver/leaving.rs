//! The last work for a session, before its seat is left.

use xfer_store::Fate;

use crate::engine::session::Session;
use crate::engine::stores::Stores;

/// Takes the session's tree away, and removes all data that it wrote and did not commit. If it is
/// over for good, or gives its seat up, also releases the room that it reserved in inboxes.
pub(crate) async fn leave(stores: &Stores, session: &Session, fate: Fate) {
    let (tree, account) = (session.tree.take(), session.account());
    let left = session.position.epoch().zip(tree.map(|tree| tree.left()));
    if let Some((epoch, left)) = left
        && let Err(error) = stores.store.trees.end(account, epoch, left, fate).await
    {
        tracing::warn!(%error, "what was never committed stays for now");
    }
    if fate != Fate::Resumable
        && let Err(error) = stores.store.deliveries.release(account).await
    {
        tracing::warn!(%error, "room in inboxes stays reserved for now");
    }
}
