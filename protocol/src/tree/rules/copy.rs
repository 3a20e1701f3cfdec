//! Copying within the tree: by sharing the content if the result is the same, otherwise byte by byte.

use std::ops::Range;

use super::super::staging::Staging;
use super::super::{ContentEffect, FileData, Node, PlanError};
use super::data::{self, allocate, must_be_writable, punch, touch};
use crate::limits::BLOCK_BYTES;
use crate::{ContentId, Errno, Ino};

/// A copy that ends before the source's end shares the content only from this size on, in bytes, so
/// that a small file does not keep a large file's content alive.
const SHARED_PART_BYTES_MIN: u64 = 64 << 20;

/// The two ends of a copy.
pub(super) struct Piece {
    pub(super) from: Ino,
    pub(super) from_offset: u64,
    pub(super) to: Ino,
    pub(super) to_offset: u64,
    pub(super) len: u64,
}

pub(super) fn copy_range(
    d: &mut Staging<'_>,
    part: Piece,
    fresh: ContentId,
) -> Result<(), PlanError> {
    let source = d.node(part.from)?;
    let source = file(&source)?.clone();
    let target = d.node(part.to)?;
    must_be_writable(&target)?;
    let end = source.size.min(part.from_offset.checked_add(part.len).ok_or(Errno::EINVAL)?);
    if part.from_offset >= end {
        return Ok(());
    }
    let from = part.from_offset..end;
    let to = data::range(part.to_offset, end - part.from_offset)?;
    if part.from == part.to && from.start < to.end && to.start < from.end {
        return Err(Errno::EINVAL.into());
    }
    if part.from != part.to && can_share(&source, file(&target)?, &from, &to) {
        share(d, &part, &source, from.end)?;
    } else {
        copy_bytes(d, &part, &source, from, fresh)?;
    }
    touch(d, part.to)
}

fn file(node: &Node) -> Result<&FileData, Errno> {
    node.file().ok_or(if node.is_directory() { Errno::EISDIR } else { Errno::EINVAL })
}

/// Whether the target can take over the source's content. Either the range replaces all its data,
/// or it is already a copy of the source up to its own end and the range continues there.
fn can_share(source: &FileData, target: &FileData, from: &Range<u64>, to: &Range<u64>) -> bool {
    let last = to.end.next_multiple_of(BLOCK_BYTES);
    let replaced = target.size <= to.end && target.extents.end(target.size) <= last;
    let same = target.sealed && source.sealed && target.content == source.content;
    let goes_on = same && to.start == target.size && same_holes(source, target, to.start);
    let worth_it = from.end == source.size || from.end - from.start >= SHARED_PART_BYTES_MIN;
    source.content.is_some() && (to.start == 0 && replaced || goes_on) && from == to && worth_it
}

/// Whether two files with one content read the same up to `end`. Either may have been truncated and
/// extended since, which leaves a hole in that file alone.
fn same_holes(source: &FileData, target: &FileData, end: u64) -> bool {
    let data = |file: &FileData| file.extents.data_in(file.size, 0..end);
    data(source) == data(target)
}

fn share(d: &mut Staging<'_>, part: &Piece, source: &FileData, end: u64) -> Result<(), PlanError> {
    d.file_mut(part.from)?.sealed = true;
    let mut extents = source.extents.clone();
    if end < source.size {
        extents.resize(source.size, end);
    }
    // Also frees blocks that the source has reserved past its end.
    extents.resize(end, end);
    let target = d.file_mut(part.to)?;
    let before = target.content;
    *target = FileData { size: end, content: source.content, sealed: true, extents };
    // The source may have gained holes where the target still had data.
    if let Some(content) = before.filter(|before| Some(*before) == source.content) {
        d.content(ContentEffect::Free { content, offset: 0, len: end });
    }
    Ok(())
}

fn copy_bytes(
    d: &mut Staging<'_>,
    part: &Piece,
    source: &FileData,
    from: Range<u64>,
    fresh: ContentId,
) -> Result<(), PlanError> {
    let there = |at: u64| at - part.from_offset + part.to_offset;
    // Allocate the whole target range first: this gives the target its content and its size.
    let data = source.extents.data_in(source.size, from.clone());
    let to = there(from.start)..there(from.end);
    if data.is_empty() && file_is_hole(d, part.to, &to)? {
        let target = d.file_mut(part.to)?;
        if to.end > target.size {
            return data::resize(d, part.to, to.end, fresh);
        }
        return Ok(());
    }
    let content = allocate(d, part.to, to, true, fresh)?;
    // A source that is its own target may just have moved to a new content.
    let from_content = match d.node(part.from)?.content() {
        Some(content) => content,
        None => content,
    };
    let mut at = from.start;
    let mut holes = Vec::new();
    for run in data {
        holes.push(at..run.start);
        d.content(ContentEffect::Copy {
            from: from_content,
            from_offset: run.start,
            to: content,
            to_offset: there(run.start),
            len: run.end - run.start,
        });
        at = run.end;
    }
    holes.push(at..from.end);
    for hole in holes.into_iter().filter(|hole| !hole.is_empty()) {
        punch(d, part.to, there(hole.start)..there(hole.end), fresh)?;
    }
    Ok(())
}

fn file_is_hole(d: &Staging<'_>, ino: Ino, range: &Range<u64>) -> Result<bool, PlanError> {
    let node = d.node(ino)?;
    let data = file(&node)?;
    Ok(data.extents.data_in(data.size, range.clone()).is_empty())
}
