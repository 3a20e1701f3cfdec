//! Performs effects on the files of contents.

use xfer_protocol::ContentId;

use super::Files;
use crate::{Effect, StoreError, Undone};

/// Performs effects in order, and stops at the first that fails.
pub(super) fn perform(files: &dyn Files, effects: &[Effect]) -> Result<(), Undone> {
    for (at, effect) in effects.iter().enumerate() {
        do_one(files, effect).map_err(|error| Undone { at, error })?;
    }
    Ok(())
}

fn do_one(files: &dyn Files, effect: &Effect) -> Result<(), StoreError> {
    match effect {
        Effect::Create { content } => files.create(*content),
        Effect::Write { content, offset, data } => files.write(*content, *offset, data),
        Effect::Zero { content, range } => {
            files.zero(*content, range.start, range.end - range.start)
        }
        Effect::Clone { from, to, ranges } => files.duplicate(*from, *to, ranges),
        Effect::Copy { from, to, len } => files.copy(*from, *to, *len),
        Effect::Free { content, range } => {
            files.free(*content, range.start, range.end - range.start)
        }
        Effect::Remove { content } => files.remove(*content),
    }
}

/// Reads a range of a content.
pub(super) fn read(
    files: &dyn Files,
    content: ContentId,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, StoreError> {
    let mut data = vec![0; (range.end - range.start) as usize];
    let count = files.read(content, range.start, &mut data)?;
    data.truncate(count);
    Ok(data)
}
