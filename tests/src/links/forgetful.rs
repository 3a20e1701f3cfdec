//! A disk that forgets: when the power goes, of the changes to a content that were not made durable
//! any part may be left. Other programs may fill it for a while.
//!
//! Rows are durable once they are committed, as those of a database are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use xfer_protocol::ContentId;
use xfer_protocol::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use xfer_protocol::tree::Room;
use xfer_store::{Answer, Contents, Disk, Effect, Later, Placements, Stop, StoreError, Undone};

use crate::Random;

/// What a server keeps free on a large disk for its rows.
const RESERVE: Room = Room { bytes: 128 << 20, files: 1024 };

/// The contents of a store, and what would be left of them without power.
pub struct Forgetful {
    live: Arc<dyn Contents>,
    unsynced: Mutex<BTreeMap<ContentId, Unsynced>>,
    /// Present while others fill the disk.
    filled: Mutex<Option<Filled>>,
    /// Whether it is filled, or programs may not have heard yet that it no longer is.
    is_short: Arc<AtomicBool>,
    /// A planted bug: nothing is ever made durable, and nobody is told.
    skips_syncs: AtomicBool,
}

/// What others leave of the disk.
#[derive(Clone, Copy)]
struct Filled {
    /// The room beside the server's reserve.
    left: Room,
    /// Whether the disk says so, if it is asked. One that copies on write may not.
    is_said: bool,
}

/// The changes to a content since it was made durable.
#[derive(Default)]
struct Unsynced {
    /// Its bytes before; `None` if it did not exist.
    before: Option<Vec<u8>>,
    effects: Vec<Effect>,
}

impl Forgetful {
    /// The contents of a store whose calls are answered at once.
    pub fn over(live: Arc<dyn Contents>) -> Forgetful {
        let (unsynced, filled) = (Mutex::default(), Mutex::default());
        Forgetful { live, unsynced, filled, is_short: Arc::default(), skips_syncs: false.into() }
    }

    /// Fills the disk until this much is left. What contents take up from now on counts.
    pub fn fill(&self, left: Room) {
        self.fill_with(Filled { left, is_said: true });
    }

    /// Fills the disk, which goes on to say that it has room.
    pub fn fill_unsaid(&self, left: Room) {
        self.fill_with(Filled { left, is_said: false });
    }

    fn fill_with(&self, filled: Filled) {
        *self.filled.lock().unwrap() = Some(filled);
        self.is_short.store(true, Ordering::Relaxed);
    }

    /// Has room again.
    pub fn clear(&self) {
        *self.filled.lock().unwrap() = None;
    }

    /// Notes that everybody has heard that there is room.
    pub fn end_shortage(&self) {
        self.is_short.store(false, Ordering::Relaxed);
    }

    /// Whether programs may be told that the disk is full.
    pub fn shortage(&self) -> Arc<AtomicBool> {
        self.is_short.clone()
    }

    /// Takes the room that an effect needs.
    fn take(&self, effect: &Effect) -> Result<(), StoreError> {
        let mut filled = self.filled.lock().unwrap();
        let Some(Filled { left, .. }) = filled.as_mut() else { return Ok(()) };
        let needed = needed(effect);
        if !left.covers(needed) {
            return Err(StoreError::Full);
        }
        *left = left.less(needed);
        Ok(())
    }

    /// Plants a bug: nothing is made durable from now on.
    pub fn skip_syncs(&self) {
        self.skips_syncs.store(true, Ordering::Relaxed);
    }

    /// Takes the power away: of the changes that were not made durable, some are left, and some of
    /// those only in part.
    pub async fn lose_power(&self, random: &mut Random) {
        let unsynced = std::mem::take(&mut *self.unsynced.lock().unwrap());
        for (content, Unsynced { before, effects }) in unsynced {
            // A content that is gone, was garbage.
            if self.bytes(content).await.is_none() {
                continue;
            }
            let is_left = |effect: &Effect| !matches!(effect, Effect::Remove { .. });
            let some = effects.into_iter().filter(is_left).filter(|_| random.below(2) == 0);
            let some: Vec<Effect> = some.collect();
            self.put(Effect::Remove { content }).await;
            if let Some(bytes) = before {
                self.put(Effect::Create { content }).await;
                self.put(Effect::Write { content, offset: 0, data: bytes.into() }).await;
            }
            for effect in some {
                self.put(torn(effect, random)).await;
            }
        }
    }

    /// Performs an effect that may fail, since an earlier one is not left.
    async fn put(&self, effect: Effect) {
        let _ = self.live.perform(vec![effect]).await;
    }

    /// Notes an effect that is about to be performed.
    async fn note(&self, effect: &Effect) {
        let content = target(effect);
        if !self.unsynced.lock().unwrap().contains_key(&content) {
            let before = self.bytes(content).await;
            self.unsynced.lock().unwrap().insert(content, Unsynced { before, effects: Vec::new() });
        }
        if let Some(unsynced) = self.unsynced.lock().unwrap().get_mut(&content) {
            unsynced.effects.push(effect.clone());
        }
    }

    /// The bytes of a content, if it exists.
    async fn bytes(&self, content: ContentId) -> Option<Vec<u8>> {
        self.live.read(content, 0..0).await.ok()?;
        // A read must not go beyond the content's end.
        let (mut end, mut beyond) = (0, FILE_BYTES_MAX + 1);
        while beyond - end > 1 {
            let middle = end + (beyond - end) / 2;
            match self.live.read(content, middle..middle).await {
                Ok(_) => end = middle,
                Err(_) => beyond = middle,
            }
        }
        self.live.read(content, 0..end).await.ok()
    }
}

impl Contents for Forgetful {
    fn perform_until(&self, effects: Vec<Effect>, stop: Stop) -> Later<'_, Result<(), Undone>> {
        Box::pin(async move {
            let mut possible = Vec::with_capacity(effects.len());
            let mut full = None;
            for (at, effect) in effects.into_iter().enumerate() {
                if let Err(error) = self.take(&effect) {
                    full = Some(Undone { at, error });
                    break;
                }
                self.note(&effect).await;
                possible.push(effect);
            }
            self.live.perform_until(possible, stop).await?;
            full.map_or(Ok(()), Err)
        })
    }

    fn read(&self, content: ContentId, range: Range<u64>) -> Answer<'_, Vec<u8>> {
        self.live.read(content, range)
    }

    fn make_durable(
        &self,
        sets: Vec<Vec<ContentId>>,
    ) -> Answer<'_, Vec<Result<Placements, StoreError>>> {
        if !self.skips_syncs.load(Ordering::Relaxed) {
            let mut unsynced = self.unsynced.lock().unwrap();
            sets.iter().flatten().for_each(|content| drop(unsynced.remove(content)));
        }
        self.live.make_durable(sets)
    }

    fn reclaim(&self) -> Answer<'_, ()> {
        self.live.reclaim()
    }

    fn disk(&self) -> Answer<'_, Disk> {
        Box::pin(async move {
            let disk = self.live.disk().await?;
            let said = self.filled.lock().unwrap().filter(|filled| filled.is_said);
            Ok(Disk { free: said.map_or(disk.free, |said| said.left.plus(RESERVE)), ..disk })
        })
    }
}

/// The room that an effect takes up.
fn needed(effect: &Effect) -> Room {
    let blocks = |bytes: u64| Room { bytes: bytes.next_multiple_of(BLOCK_BYTES), files: 0 };
    match effect {
        Effect::Create { .. } => Room { bytes: 0, files: 1 },
        Effect::Write { data, .. } => blocks(data.len() as u64),
        Effect::Zero { range, .. } => blocks(range.end - range.start),
        Effect::Clone { ranges, .. } => {
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            Room { files: 1, ..blocks(bytes) }
        }
        Effect::Copy { len, .. } => blocks(*len),
        Effect::Free { .. } | Effect::Remove { .. } => Room::default(),
    }
}

/// The content that an effect changes.
fn target(effect: &Effect) -> ContentId {
    match effect {
        Effect::Create { content }
        | Effect::Write { content, .. }
        | Effect::Zero { content, .. }
        | Effect::Free { content, .. }
        | Effect::Remove { content } => *content,
        Effect::Clone { to, .. } => *to,
        Effect::Copy { to, .. } => to.0,
    }
}

/// A write that may have stopped half-way; any other effect as it is.
fn torn(effect: Effect, random: &mut Random) -> Effect {
    match effect {
        Effect::Write { content, offset, data } if random.below(3) == 0 => {
            let left = random.below(data.len() as u64 + 1) as usize;
            Effect::Write { content, offset, data: data.slice(..left) }
        }
        effect => effect,
    }
}
