//! The waists over the engine's parts, except those that concern accounts alone. Each call is one
//! hop.

use std::ops::Range;
use std::time::Instant;

use tokio::task::spawn_blocking;
use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::{DeliveryEffect, Need};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, SessionId};

use super::{Embedded, Parts, housekeeping, performing};
use crate::inbox::{Filling, Sending};
use crate::{
    AccountId, Answer, Batch, Beginner, Begun, Committed, Contents, Deliveries, Disk, Effect, Fate,
    Found, Keeper, Later, Left, Listing, Part, Placements, Reservation, Reserved, Resumable,
    Resumed, Resumption, Stop, StoreError, StoreSize, Trees, Undone,
};

impl Trees for Embedded {
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun> {
        self.hop(move |parts| {
            let account = match by {
                Beginner::Client { .. } if parts.rows.is_claimed(account)? => {
                    return Err(StoreError::Claimed);
                }
                Beginner::Client { session, replaces } => {
                    parts.rows.begin_resumable(account, &session, replaces)?
                }
                Beginner::Claimant => parts.rows.begin_session(account)?,
            };
            let trimmed = housekeeping::trim_left(parts, account.id);
            match trimmed.and_then(|()| parts.rows.orphans(account.id)) {
                Ok(orphans) => {
                    parts.note_begun(&account);
                    Ok(Begun { account, orphans })
                }
                // Nobody has this session, so it must keep nobody out.
                Err(error) => {
                    parts.rows.end_for_good(account.id, account.epoch)?;
                    Err(error)
                }
            }
        })
    }

    fn resumable(&self, account: AccountId) -> Answer<'_, Option<Resumable>> {
        self.hop(move |parts| parts.rows.resumable(account))
    }

    fn session_of(&self, account: AccountId, session: SessionId) -> Answer<'_, Option<Resumable>> {
        self.hop(move |parts| parts.rows.session_of(account, session))
    }

    fn resume(&self, account: AccountId, with: Resumption) -> Answer<'_, Option<Resumed>> {
        self.hop(move |parts| {
            if parts.rows.is_claimed(account)? {
                return Err(StoreError::Claimed);
            }
            let resumed = parts.rows.resume(account, &with)?;
            if let Some(resumed) = &resumed {
                housekeeping::trim_left(parts, resumed.account.id)?;
                parts.note_begun(&resumed.account);
            }
            Ok(resumed)
        })
    }

    fn load(&self, account: AccountId, needs: Vec<Need>) -> Answer<'_, Found> {
        self.hop(move |parts| parts.rows.load(account, &needs))
    }

    fn list(&self, account: AccountId, wanted: Vec<Part>) -> Answer<'_, Vec<Listing>> {
        self.hop(move |parts| parts.rows.list_parts(account, &wanted))
    }

    fn path(&self, account: AccountId, ino: Ino) -> Answer<'_, Option<Vec<Name>>> {
        self.hop(move |parts| parts.rows.path(account, ino))
    }

    fn grant_ids(&self, account: AccountId, count: u64) -> Answer<'_, IdRange> {
        self.hop(move |parts| parts.rows.grant_ids_to(account, count))
    }

    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>> {
        self.hop(move |parts| {
            let committed = commit(parts, &batches);
            parts.wake.notify_one();
            committed
        })
    }

    fn end(&self, account: AccountId, epoch: Epoch, left: Left, fate: Fate) -> Answer<'_, ()> {
        self.hop(move |parts| {
            parts.note_over(account, epoch);
            let ended = match fate {
                Fate::Over => parts.rows.end_for_good(account, epoch),
                Fate::Resumable => Ok(()),
                Fate::Yielded => parts.rows.yield_seat(account, epoch),
            };
            let tidied = housekeeping::tidy_after(parts, account, epoch, left);
            ended.and(tidied)
        })
    }

    fn forget(&self, account: AccountId, epoch: Epoch) -> Answer<'_, ()> {
        self.hop(move |parts| parts.rows.end_for_good(account, epoch))
    }

    fn give_up(&self, account: AccountId, session: SessionId) -> Answer<'_, ()> {
        self.hop(move |parts| parts.rows.give_up(account, session))
    }

    fn forget_dormant(&self, account: AccountId) -> Answer<'_, usize> {
        self.hop(move |parts| parts.rows.forget_dormant(account))
    }
}

/// Takes the lock on reservations while deliveries are committed, because admitting one changes
/// both the reserved room and the waiting deliveries.
fn commit(
    parts: &Parts,
    batches: &[Batch],
) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
    let is_sent = |effect: &DeliveryEffect| matches!(effect, DeliveryEffect::Sent { .. });
    if batches.iter().any(|batch| batch.deliveries.iter().any(is_sent)) {
        parts.rows.commit_within(batches, &mut parts.inboxes.lock())
    } else {
        parts.rows.commit_each(batches)
    }
}

impl Contents for Embedded {
    fn perform_until(&self, effects: Vec<Effect>, stop: Stop) -> Later<'_, Result<(), Undone>> {
        let parts = self.parts.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || performing::perform(&parts, &effects, &stop)).await;
            done.unwrap_or(Err(Undone { at: 0, error: StoreError::Panicked }))
        })
    }

    fn read(&self, content: ContentId, range: Range<u64>) -> Answer<'_, Vec<u8>> {
        self.hop(move |parts| performing::read(&*parts.files, content, range))
    }

    fn make_durable(
        &self,
        sets: Vec<Vec<ContentId>>,
    ) -> Answer<'_, Vec<Result<Placements, StoreError>>> {
        self.hop(move |parts| {
            let mut all: Vec<ContentId> = sets.iter().flatten().copied().collect();
            all.sort_unstable();
            all.dedup();
            let failures = parts.files.make_each_durable(&all)?;
            let lost = |set: &Vec<ContentId>| set.iter().find_map(|content| failures.get(content));
            let each = sets.iter().map(|set| match lost(set) {
                Some(error) => Err(error.clone()),
                None => Ok(Placements::default()),
            });
            Ok(each.collect())
        })
    }

    fn reclaim(&self) -> Answer<'_, ()> {
        self.hop(|parts| {
            let collected = housekeeping::collect(parts);
            collected.and(parts.files.offer_freed())
        })
    }

    fn disk(&self) -> Answer<'_, Disk> {
        self.hop(|parts| parts.files.disk())
    }
}

impl Deliveries for Embedded {
    fn waiting(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Answer<'_, Vec<(u64, DeliveryHead)>> {
        self.hop(move |parts| parts.rows.waiting_after(to, after, count))
    }

    fn count_waiting(&self) -> Answer<'_, u64> {
        self.hop(|parts| parts.rows.count_waiting())
    }

    fn without_room(&self, from: AccountId) -> Answer<'_, Vec<(DeliveryId, DeliveryState)>> {
        self.hop(move |parts| parts.rows.no_room(from))
    }

    fn state(&self, from: AccountId, id: DeliveryId) -> Answer<'_, DeliveryState> {
        self.hop(move |parts| parts.rows.delivery_state(from, id))
    }

    fn reserve(&self, reservation: Reservation) -> Answer<'_, Reserved> {
        self.hop(move |parts| reserve(parts, &reservation))
    }

    fn release(&self, from: AccountId) -> Answer<'_, ()> {
        self.hop(move |parts| {
            parts.inboxes.lock().forget(from);
            Ok(())
        })
    }
}

fn reserve(parts: &Parts, asked: &Reservation) -> Result<Reserved, StoreError> {
    // Locked before the rows are read: a delivery committed in between would count neither as
    // reserved nor as waiting. And a session that ends gives up its room only after it is marked as
    // ended.
    let mut inboxes = parts.inboxes.lock();
    if !parts.runs(asked.from, asked.epoch)? {
        return Ok(Reserved::Over);
    }
    let recipient = parts.rows.account(&asked.to)?.filter(|to| to.id != asked.from);
    let Some(to) = recipient else { return Ok(Reserved::NoUser) };
    let sending = Sending { from: asked.from, ino: asked.ino, to: to.id, size: asked.size };
    let filling = Filling { used: to.waiting, budget: to.inbox };
    match inboxes.reserve(sending, filling, Instant::now()) {
        true => Ok(Reserved::Kept),
        false => Ok(Reserved::Full),
    }
}

impl Keeper for Embedded {
    fn failed(&self) -> Later<'_, StoreError> {
        Box::pin(async {
            let mut trouble = self.parts.trouble.subscribe();
            match trouble.wait_for(Option::is_some).await.map(|trouble| trouble.clone()) {
                Ok(Some(error)) => error,
                // The sender is part of the engine, so it still exists.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        self.hop(|parts| {
            if let Some(error) = parts.trouble.borrow().clone() {
                return Err(error);
            }
            parts.watched.as_ref().map_or(Ok(()), |(watched, _)| watched.check())
        })
    }

    fn size(&self) -> Answer<'_, StoreSize> {
        self.hop(housekeeping::size)
    }

    fn close(&self) -> Answer<'_, ()> {
        self.hop(|parts| {
            let trouble = parts.trouble.borrow().clone();
            if let Some(error) = trouble {
                if let StoreError::Older { known, .. } = error {
                    // Looking through the contents revealed this; the next start must know it at
                    // once.
                    parts.rows.note_known(known)?;
                }
                return Err(error);
            }
            // The store may have vanished while sessions ended. The grant makes any copy of the
            // database that was taken while this server ran detectably older.
            if let Some((watched, _)) = &parts.watched {
                watched.check()?;
            }
            parts.rows.grant_ids(1).map(drop)
        })
    }
}
