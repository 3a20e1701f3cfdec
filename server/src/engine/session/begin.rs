//! How a session begins, or comes back into memory: the epoch rises, what the session before is known to
//! have left is given back, and the client gets a grant.

use std::collections::BTreeMap;

use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::message::{DeliveryState, Grant, Refusal};
use xfer_protocol::tree::{Need, Node, Room};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name, SessionId, Timestamp};
use xfer_store::{
    Account, Batch, Beginner, Committed, Fate, Left, Missed, Placements, Resumed, Resumption,
    Store, StoreError, Trees, Trims,
};

use crate::engine::seats::proof::{Proved, hash};
use crate::engine::session::Session;
use crate::engine::stores::Stores;
use crate::engine::tree::Tree;
use crate::engine::tree::numbers::Numbers;
use crate::login::authority::Authority;
use crate::login::opening::Authenticated;

/// The most orphans that are removed in one transaction.
const ORPHANS_COUNT: usize = 10_000;

/// The most orphans that are loaded at a time. The bound is small because they may have large
/// attributes.
const LOADED_COUNT: usize = 500;

/// The most deliveries that a grant names. The others are announced right after it.
const DELIVERIES_MAX: usize = 1_000;

/// The most users that a grant names.
const USERS_MAX: usize = 16_384;

/// A session that has begun, or is in memory again.
pub(crate) struct Begun {
    pub(crate) account: Account,
    pub(crate) tree: Tree,
    pub(crate) grant: Grant,
    /// The changes by other sessions since this one lost its seat, if there were any.
    pub(crate) missed: Option<Missed>,
    /// The place of the last delivery that the grant names, in the order of arrivals.
    pub(crate) last_named: u64,
    /// Whether more deliveries may wait than the grant names.
    pub(crate) more_deliveries: bool,
    /// Earlier deliveries from this account that found no room.
    pub(crate) without_room: Vec<(DeliveryId, DeliveryState)>,
}

/// Begins a session, once its seat is taken, and forgets the one that it replaces.
///
/// A takeover may wait long, so the client may have lost its right since that was checked. If it
/// loses it later, the session is found in the registry and ended.
pub(crate) async fn begin(
    stores: &Stores,
    session: &Session,
    auth: &Authenticated,
    replaces: Option<SessionId>,
) -> Result<Begun, Refusal> {
    let failed = |error| refusal_of(session, error);
    let trees = &stores.store.trees;
    let by = Beginner::Client { session: session.seat.resumable(auth), replaces };
    let begun = trees.begin(session.account(), by).await.map_err(failed)?;
    let (account, epoch) = (begun.account.id, begun.account.epoch);
    let started = match session.seat.who.may_be_of(&begun.account, &stores.store).await {
        Ok(true) => start_new(stores, session, begun).await.map_err(failed),
        Ok(false) => Err(match auth.authority {
            Authority::Password(_) => Refusal::WrongPassword,
            Authority::Device(_) => Refusal::UnknownKey,
        }),
        Err(error) => Err(failed(error)),
    };
    // A session that no client was granted can't be resumed, and must keep nobody out.
    if started.is_err()
        && let Err(error) = trees.end(account, epoch, Left::default(), Fate::Over).await
    {
        tracing::warn!(%error, "a session that did not begin is kept for now");
    }
    started
}

async fn start_new(
    stores: &Stores,
    session: &Session,
    begun: xfer_store::Begun,
) -> Result<Begun, StoreError> {
    let trees = &stores.store.trees;
    let account = without_orphans(&**trees, begun, stores.now()).await?;
    let numbers = Numbers::new(trees.grant_ids(account.id, IDS_MAX).await?);
    start(stores, session, account, numbers).await
}

/// Brings a session back into memory, once its seat is taken. Orphans stay, because programs may
/// have them open.
pub(crate) async fn resume(
    stores: &Stores,
    session: &Session,
    proved: &Proved,
) -> Result<Begun, Refusal> {
    let failed = |error| refusal_of(session, error);
    let with = Resumption {
        session: session.seat.id,
        shown: hash(&proved.request.secret),
        next: session.seat.resume_hash(),
        address: proved.address.clone(),
        attempt: proved.request.attempt,
    };
    let resumed = stores.store.trees.resume(session.account(), with).await.map_err(failed)?;
    let Some(Resumed { account, quota, granted, next_id, missed }) = resumed else {
        return Err(Refusal::NoSession);
    };
    let numbers = match &missed {
        None => Numbers::resumed(granted, next_id),
        // Its client begins with what others have left.
        Some(_) => {
            let ids = stores.store.trees.grant_ids(account.id, IDS_MAX).await.map_err(failed)?;
            Numbers::new(ids)
        }
    };
    let mut begun = start(stores, session, account, numbers).await.map_err(failed)?;
    // The client may have ops that it checked against it.
    begun.tree.raise_quota(quota);
    begun.missed = missed;
    Ok(begun)
}

fn refusal_of(session: &Session, error: StoreError) -> Refusal {
    if matches!(error, StoreError::Claimed) {
        return Refusal::Claimed;
    }
    tracing::error!(user = %session.user(), %error, "a session cannot begin");
    Refusal::Internal
}

async fn start(
    stores: &Stores,
    session: &Session,
    account: Account,
    numbers: Numbers,
) -> Result<Begun, StoreError> {
    let Store { deliveries, accounts, .. } = &stores.store;
    let ids = numbers.granted();
    let waiting = deliveries.waiting(account.id, 0, DELIVERIES_MAX).await?;
    let last_named = waiting.last().map_or(0, |(arrival, _)| *arrival);
    let more_deliveries = waiting.len() == DELIVERIES_MAX;
    let waiting = waiting.into_iter().map(|(_, head)| head).collect();
    let without_room = deliveries.without_room(account.id).await?;
    let mut tree = Tree::new(stores, &account, numbers);
    let seen = stores.space.look().await?;
    tree.room_mut().extend(Room::default(), seen);
    let grant = Grant {
        session: session.seat.id,
        secret: session.seat.secret(),
        resume: session.seat.resume_secret(),
        epoch: account.epoch,
        applied: account.applied,
        user: account.name.clone(),
        silence: session.seat.terms.silence,
        ids,
        usage: account.usage,
        quota: account.quota,
        disk: seen.free,
        limit: tree.room_mut().limit().room,
        users: others(&accounts.list().await?, &account.name),
        deliveries: waiting,
    };
    let missed = None;
    Ok(Begun { account, tree, grant, missed, last_named, more_deliveries, without_room })
}

/// The users that this user can send to.
pub(crate) fn others(accounts: &[Account], user: &Name) -> Vec<Name> {
    let names = accounts.iter().map(|account| &account.name);
    names.filter(|name| *name != user).take(USERS_MAX).cloned().collect()
}

/// Removes orphans, because the programs that had them open ended with the session before. Returns
/// the account as it is after that.
///
/// This is not an op of the log, so it takes no seq. The client of the new session does not know
/// these nodes.
pub(crate) async fn without_orphans(
    trees: &dyn Trees,
    begun: xfer_store::Begun,
    time: Timestamp,
) -> Result<Account, StoreError> {
    let xfer_store::Begun { mut account, orphans } = begun;
    for part in orphans.chunks(ORPHANS_COUNT) {
        let mut batch = empty(&account, time);
        for some in part.chunks(LOADED_COUNT) {
            let needs = some.iter().map(|ino| Need::Node(*ino)).collect();
            remove(&mut batch, trees.load(account.id, needs).await?.nodes);
        }
        account.usage = batch.usage;
        for committed in trees.commit(vec![batch]).await? {
            match committed? {
                Committed::Durable(_) => {}
                Committed::Fenced => return Err(StoreError::Fenced),
            }
        }
    }
    Ok(account)
}

/// Adds the removal of orphans to a batch.
fn remove(batch: &mut Batch, orphans: Vec<(Ino, Option<Node>)>) {
    let mut references: BTreeMap<ContentId, i64> = batch.references.drain(..).collect();
    for (ino, node) in orphans {
        let Some(node) = node else { continue };
        batch.usage.bytes = batch.usage.bytes.saturating_sub(node.charge());
        batch.usage.nodes = batch.usage.nodes.saturating_sub(1);
        if let Some(content) = node.content() {
            *references.entry(content).or_default() -= 1;
        }
        batch.unrecorded.extend(node.sent);
        batch.nodes.push((ino, None));
    }
    batch.references.extend(references);
}

/// A batch that changes nothing yet.
fn empty(account: &Account, time: Timestamp) -> Batch {
    Batch {
        account: account.id,
        epoch: account.epoch,
        applied: account.applied,
        usage: account.usage,
        next_id: 0,
        nodes: Vec::new(),
        entries: Vec::new(),
        references: Vec::new(),
        placements: Placements::default(),
        trims: Trims::default(),
        deliveries: Vec::new(),
        unrecorded: Vec::new(),
        time,
    }
}
