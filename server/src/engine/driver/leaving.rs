//! The last work for a session, before its seat is free.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::engine::deliveries::post::Post;
use crate::engine::durable::leftovers::tidy_after;
use crate::engine::session::Session;
use crate::engine::stores::Stores;

/// Takes the session's tree away, with all that it wrote and did not commit, and the room that it
/// reserved in inboxes.
pub(crate) async fn leave(stores: Stores, post: Arc<Post>, session: Arc<Session>) {
    let tidied = spawn_blocking(move || {
        let tree = session.tree.take();
        post.forget(session.account());
        match (session.position.epoch(), tree) {
            (Some(epoch), Some(tree)) => tidy_after(&stores, session.account(), epoch, tree.left()),
            (None, _) | (_, None) => Ok(()),
        }
    });
    if let Ok(Err(error)) = tidied.await {
        tracing::warn!(%error, "what was never committed stays for now");
    }
}
