//! The beginning of a session: raises the epoch, tidies after the session before, and grants the
//! client all that it needs to start.

use std::time::SystemTime;

use xfer_protocol::limits::IDS_MAX;
use xfer_protocol::message::{DeliveryState, Grant, Refusal};
use xfer_protocol::tree::{Room, Usage};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name};
use xfer_store::{Account, Batch, Committed, StoreError, Trims};

use crate::engine::durable::leftovers::tidy_before;
use crate::engine::session::Session;
use crate::engine::stores::Stores;
use crate::engine::tree::Tree;

/// How many orphans are removed in one transaction.
const ORPHANS_COUNT: usize = 10_000;

/// How many deliveries a grant names; of the others the client hears right after.
const DELIVERIES_MAX: usize = 1_000;

/// How many users a grant names.
const USERS_MAX: usize = 16_384;

/// A session that has begun.
pub(crate) struct Begun {
    pub(crate) account: Account,
    pub(crate) tree: Tree,
    pub(crate) grant: Grant,
    /// The place of the last delivery that the grant names, in the order of arrivals.
    pub(crate) last_named: u64,
    /// Whether more deliveries may wait than the grant names.
    pub(crate) more_deliveries: bool,
    /// Deliveries that the account sent earlier and that found no room.
    pub(crate) without_room: Vec<(DeliveryId, DeliveryState)>,
}

/// Begins the session of a seat that was taken. Blocks.
///
/// A takeover waits long, so the password may have been changed since it was checked. A change from now
/// on finds the session and ends it.
pub(crate) fn begin(stores: &Stores, session: &Session) -> Result<Begun, Refusal> {
    let failed = |error: StoreError| {
        tracing::error!(user = %session.user(), %error, "a session can't begin");
        Refusal::Internal
    };
    if stores.meta.is_claimed(session.account()).map_err(failed)? {
        return Err(Refusal::Claimed);
    }
    let account = stores.meta.begin_session(session.account()).map_err(failed)?;
    if !session.seat.who.may_be_of(&account) {
        return Err(Refusal::WrongPassword);
    }
    start(stores, session, account).map_err(failed)
}

fn start(stores: &Stores, session: &Session, mut account: Account) -> Result<Begun, StoreError> {
    let meta = &stores.meta;
    account.usage = tidy(stores, &account)?;
    let ids = meta.grant_ids(IDS_MAX)?;
    let waiting = meta.waiting_after(account.id, 0, DELIVERIES_MAX)?;
    let last_named = waiting.last().map_or(0, |(arrival, _)| *arrival);
    let more_deliveries = waiting.len() == DELIVERIES_MAX;
    let deliveries = waiting.into_iter().map(|(_, head)| head).collect();
    let without_room = meta.no_room(account.id)?;
    let mut tree = Tree::new(stores.clone(), &account, ids);
    let disk = tree.room_mut().extend(Room::default())?;
    let grant = Grant {
        session: session.seat.id,
        secret: session.seat.secret(),
        epoch: account.epoch,
        applied: account.applied,
        user: account.name.clone(),
        ids,
        usage: account.usage,
        quota: account.quota,
        disk,
        limit: tree.room_mut().limit().room,
        users: others(&meta.accounts()?, &account.name),
        deliveries,
    };
    Ok(Begun { account, tree, grant, last_named, more_deliveries, without_room })
}

/// The users that this one can send to.
pub(crate) fn others(accounts: &[Account], user: &Name) -> Vec<Name> {
    let names = accounts.iter().map(|account| &account.name);
    names.filter(|name| *name != user).take(USERS_MAX).cloned().collect()
}

/// Tidies what the session before left; says what the tree takes up then.
pub(crate) fn tidy(stores: &Stores, account: &Account) -> Result<Usage, StoreError> {
    let usage = forget_orphans(stores, account)?;
    tidy_before(stores, account)?;
    Ok(usage)
}

/// Removes nodes without names: the programs that had them open ended with the session before.
/// This is no op of the log, so it takes no seq; nobody was told of these nodes in this session.
fn forget_orphans(stores: &Stores, account: &Account) -> Result<Usage, StoreError> {
    let mut usage = account.usage;
    let orphans = stores.meta.orphans(account.id)?;
    for part in orphans.chunks(ORPHANS_COUNT) {
        let batch = removal(stores, account, part, usage)?;
        usage = batch.usage;
        let committed = stores.meta.commit(&[batch])?;
        if committed.contains(&Committed::Fenced) {
            return Err(StoreError::Refused("another server began a session".to_owned()));
        }
    }
    Ok(usage)
}

fn removal(
    stores: &Stores,
    account: &Account,
    orphans: &[Ino],
    mut usage: Usage,
) -> Result<Batch, StoreError> {
    let mut nodes = Vec::new();
    let mut references: Vec<(ContentId, i64)> = Vec::new();
    let mut unrecorded = Vec::new();
    for ino in orphans {
        let Some(node) = stores.meta.node(account.id, *ino)? else { continue };
        usage.bytes = usage.bytes.saturating_sub(node.charge());
        usage.nodes = usage.nodes.saturating_sub(1);
        references.extend(node.content().map(|content| (content, -1)));
        unrecorded.extend(node.sent);
        nodes.push((*ino, None));
    }
    references.sort_unstable();
    references.dedup_by(|(content, by), (kept, sum)| {
        let same = content == kept;
        if same {
            *sum += *by;
        }
        same
    });
    Ok(Batch {
        account: account.id,
        epoch: account.epoch,
        applied: account.applied,
        usage,
        nodes,
        entries: Vec::new(),
        references,
        trims: Trims::default(),
        deliveries: Vec::new(),
        refused: Vec::new(),
        unrecorded,
        time: SystemTime::now().into(),
    })
}
