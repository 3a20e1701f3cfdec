//! Contents in memory, on a disk that is never full.

use std::future::ready;
use std::ops::Range;

use xfer_protocol::ContentId;
use xfer_protocol::tree::Room;

use super::bytes::Sparse;
use super::tables::Tables;
use super::{Memory, answer};
use crate::{Answer, Contents, Disk, Effect, Later, Placements, Stop, StoreError, Undone};

/// The room that the disk reports at all times.
const ROOM: Room = Room { bytes: 1 << 50, files: 1 << 40 };

impl Contents for Memory {
    fn perform_until(&self, effects: Vec<Effect>, stop: Stop) -> Later<'_, Result<(), Undone>> {
        let mut state = self.lock();
        let mut effects = effects.into_iter().enumerate();
        let done = effects.try_for_each(|(at, effect)| {
            stop.check().and_then(|()| state.perform(effect)).map_err(|error| Undone { at, error })
        });
        Box::pin(ready(done))
    }

    fn read(&self, content: ContentId, range: Range<u64>) -> Answer<'_, Vec<u8>> {
        let mut state = self.lock();
        let bytes = state.reaching(content, range.end);
        answer(bytes.map(|bytes| bytes.read(range)))
    }

    fn make_durable(
        &self,
        sets: Vec<Vec<ContentId>>,
    ) -> Answer<'_, Vec<Result<Placements, StoreError>>> {
        let mut state = self.lock();
        let mut set = |set: &Vec<ContentId>| {
            set.iter().try_for_each(|content| state.content(*content).map(drop))?;
            Ok(Placements::default())
        };
        answer(Ok(sets.iter().map(&mut set).collect()))
    }

    fn reclaim(&self) -> Answer<'_, ()> {
        answer(Ok(()))
    }

    fn disk(&self) -> Answer<'_, Disk> {
        answer(Ok(Disk { free: ROOM, size: ROOM }))
    }
}

impl Tables {
    fn content(&mut self, content: ContentId) -> Result<&mut Sparse, StoreError> {
        let missing = || StoreError::Damaged(format!("content {content} is missing"));
        self.contents.get_mut(&content).ok_or_else(missing)
    }

    /// A content that was given at least this length; a shorter one is damaged.
    fn reaching(&mut self, content: ContentId, given: u64) -> Result<&mut Sparse, StoreError> {
        let bytes = self.content(content)?;
        if bytes.len() >= given {
            return Ok(bytes);
        }
        let end = bytes.len();
        Err(StoreError::Damaged(format!("content {content} ends at byte {end} before {given}")))
    }

    /// Makes a content, anew if it exists without a committed reference: then a client sends an op
    /// again that was performed but not committed.
    fn make(&mut self, content: ContentId, bytes: Sparse) -> Result<(), StoreError> {
        if self.contents.contains_key(&content) && self.references.contains_key(&content) {
            return Err(exists(content));
        }
        self.contents.insert(content, bytes);
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), StoreError> {
        match effect {
            Effect::Create { content } => self.make(content, Sparse::default())?,
            Effect::Write { content, offset, data } => self.content(content)?.write(offset, &data),
            Effect::Zero { content, range } => self.content(content)?.zero(range),
            Effect::Clone { from, to, ranges } => {
                let end = ranges.last().map_or(0, |last| last.end);
                let parts = self.reaching(from, end)?.parts(&ranges);
                if from == to {
                    return Err(exists(to));
                }
                self.make(to, parts)?;
            }
            Effect::Copy { from, to, len } => {
                let source = self.reaching(from.0, from.1 + len)?.clone();
                self.content(to.0)?.copy_from(&source, from.1, to.1, len);
            }
            Effect::Free { content, range } => self.content(content)?.clear(range),
            Effect::Remove { content } => drop(self.contents.remove(&content)),
        }
        Ok(())
    }
}

fn exists(content: ContentId) -> StoreError {
    let error = std::io::ErrorKind::AlreadyExists.into();
    StoreError::io(format!("making content {content}"), error)
}
