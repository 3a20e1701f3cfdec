//! Performs effects on the files of contents.

use std::io::ErrorKind;

use xfer_protocol::ContentId;

use super::{Files, Parts};
use crate::{Effect, Stop, StoreError, Undone};

/// Performs effects in order, and stops at the first that fails.
pub(super) fn perform(parts: &Parts, effects: &[Effect], stop: &Stop) -> Result<(), Undone> {
    for (at, effect) in effects.iter().enumerate() {
        do_one(parts, effect, stop).map_err(|error| Undone { at, error })?;
    }
    Ok(())
}

fn do_one(parts: &Parts, effect: &Effect, stop: &Stop) -> Result<(), StoreError> {
    let files = &*parts.files;
    match effect {
        Effect::Create { content } => make(parts, *content, || files.create(*content)),
        Effect::Write { content, offset, data } => files.write(*content, *offset, data),
        Effect::Zero { content, range } => {
            files.zero(*content, range.start, range.end - range.start, stop)
        }
        Effect::Clone { from, to, ranges } if from == to => {
            files.duplicate(*from, *to, ranges, stop)
        }
        Effect::Clone { from, to, ranges } => {
            make(parts, *to, || files.duplicate(*from, *to, ranges, stop))
        }
        Effect::Copy { from, to, len } => files.copy(*from, *to, *len, stop),
        Effect::Free { content, range } => {
            files.free(*content, range.start, range.end - range.start)
        }
        Effect::Remove { content } => files.remove(*content),
    }
}

/// Makes a content. If its file exists without a committed reference, a client sends an op again
/// that was performed but not committed; then the content is made anew.
fn make(
    parts: &Parts,
    content: ContentId,
    make: impl Fn() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match make() {
        Err(error) if is_there_already(&error) && !parts.rows.content_exists(content)? => {
            parts.files.remove(content)?;
            make()
        }
        made => made,
    }
}

fn is_there_already(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { error, .. } if error.kind() == ErrorKind::AlreadyExists)
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
