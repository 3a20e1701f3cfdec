//! The bytes of files: write, truncate, fallocate.
//!
//! Holes and sizes are exact, although these rules never read data:
//!
//! **Invariant:** whatever a content holds, a block that is not in the node's extents reads as
//! zeros. So a block of which only a part is written has the rest zeroed first.
//!
//! **Invariant:** whatever a content holds, nothing past the node's size can be read. Truncation
//! leaves the rest of the last block as it is, since a crash may undo the truncation; and an append
//! that was never committed may have left bytes in blocks that are reserved past the end. So a file
//! zeroes all its blocks that it grows over. A node with a sealed content first takes a new content,
//! which gets only the node's own data.

use std::ops::Range;

use super::super::staging::{Staging, edges};
use super::super::{ContentEffect, FallocateMode, FileData, Kind, Node, PlanError};
use super::must_not_be_sent;
use crate::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use crate::{ContentId, Errno, Ino};

/// The range of `len` bytes from `offset`; `EFBIG` or the like if no file can have it.
pub(super) fn range(offset: u64, len: u64) -> Result<Range<u64>, Errno> {
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if end > FILE_BYTES_MAX { Err(Errno::EFBIG) } else { Ok(offset..end) }
}

pub(super) fn write(
    d: &mut Staging<'_>,
    ino: Ino,
    range: Range<u64>,
    clear_set_id: bool,
    fresh: ContentId,
) -> Result<(), PlanError> {
    must_be_writable(&*d.node(ino)?)?;
    if range.is_empty() {
        return Ok(());
    }
    let content = allocate(d, ino, range.clone(), true, fresh)?;
    d.content(ContentEffect::Write { content, offset: range.start, len: range.end - range.start });
    touch(d, ino)?;
    if clear_set_id {
        d.node_mut(ino)?.clear_set_id();
    }
    Ok(())
}

pub(super) fn resize(
    d: &mut Staging<'_>,
    ino: Ino,
    size: u64,
    fresh: ContentId,
) -> Result<(), PlanError> {
    must_be_writable(&*d.node(ino)?)?;
    range(0, size)?;
    let data = d.file_mut(ino)?;
    let old = data.size;
    if data.sealed && !grown_over(data, size).is_empty() {
        own_content(d, ino, fresh)?;
    }
    let data = d.file_mut(ino)?;
    let grown_over = grown_over(data, size);
    let end = data.extents.end(old);
    data.extents.resize(old, size);
    data.size = size;
    match data.content {
        Some(_) if size == 0 => {
            data.content = None;
            data.sealed = false;
        }
        Some(content) if size <= old => free(d, content, size.next_multiple_of(BLOCK_BYTES)..end),
        Some(content) => grown_over.into_iter().for_each(|run| zero(d, content, run)),
        None => {}
    }
    touch(d, ino)
}

pub(super) fn fallocate(
    d: &mut Staging<'_>,
    ino: Ino,
    range: Range<u64>,
    mode: FallocateMode,
    fresh: ContentId,
) -> Result<(), PlanError> {
    must_be_writable(&*d.node(ino)?)?;
    if range.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    match mode {
        FallocateMode::Allocate => reserve(d, ino, range, true, fresh)?,
        FallocateMode::AllocateKeepSize => reserve(d, ino, range, false, fresh)?,
        FallocateMode::PunchHole => punch(d, ino, range, fresh)?,
        FallocateMode::Zero => clear(d, ino, range, true, fresh)?,
        FallocateMode::ZeroKeepSize => clear(d, ino, range, false, fresh)?,
    }
    touch(d, ino)
}

/// Refuses to change a node without data, or a record.
pub(super) fn must_be_writable(node: &Node) -> Result<(), Errno> {
    match node.kind {
        Kind::File(_) => must_not_be_sent(node),
        Kind::Directory { .. } => Err(Errno::EISDIR),
        Kind::Symlink { .. } | Kind::Special(_) => Err(Errno::EINVAL),
    }
}

/// Sets the times of a node whose data changed.
pub(super) fn touch(d: &mut Staging<'_>, ino: Ino) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node_mut(ino)?;
    node.mtime = time;
    node.ctime = time;
    Ok(())
}

/// Makes the blocks of `range` data, ready for all of `range` to be overwritten.
pub(super) fn allocate(
    d: &mut Staging<'_>,
    ino: Ino,
    range: Range<u64>,
    grow: bool,
    fresh: ContentId,
) -> Result<ContentId, PlanError> {
    let content = own_content(d, ino, fresh)?;
    let data = d.file_mut(ino)?;
    let old = data.size;
    let size = if grow { old.max(range.end) } else { old };
    // What lies past the size is zeroed when the file grows over it.
    let unseen = size..size.next_multiple_of(BLOCK_BYTES);
    let is_hole = |edge: &Range<u64>| {
        !edge.is_empty() && !data.extents.contains(old, edge.start) && !unseen.contains(&edge.start)
    };
    let mut holes: Vec<_> = edges(range.start, range.end).into_iter().filter(is_hole).collect();
    if grow {
        holes.extend(grown_over(data, range.start));
    }
    holes.extend(data.extents.insert(old, size, range));
    data.size = size;
    for hole in holes {
        zero(d, content, hole);
    }
    Ok(content)
}

/// Makes the blocks of `range` data; holes in it become zeros.
fn reserve(
    d: &mut Staging<'_>,
    ino: Ino,
    range: Range<u64>,
    grow: bool,
    fresh: ContentId,
) -> Result<(), PlanError> {
    let data = d.file_mut(ino)?;
    let blocks =
        range.start / BLOCK_BYTES * BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
    let mut at = blocks.start;
    let mut holes = Vec::new();
    if grow {
        holes.extend(grown_over(data, range.end));
    }
    for run in data.extents.data_in(data.size, blocks.clone()) {
        holes.push(at..run.start);
        at = run.end;
    }
    holes.push(at..blocks.end);
    let content = allocate(d, ino, range, grow, fresh)?;
    for hole in holes.into_iter().filter(|hole| !hole.is_empty()) {
        zero(d, content, hole);
    }
    Ok(())
}

fn clear(
    d: &mut Staging<'_>,
    ino: Ino,
    range: Range<u64>,
    grow: bool,
    fresh: ContentId,
) -> Result<(), PlanError> {
    let content = allocate(d, ino, range.clone(), grow, fresh)?;
    zero(d, content, range);
    Ok(())
}

/// Makes the whole blocks of `range` a hole and zeroes the rest. The size stays.
pub(super) fn punch(
    d: &mut Staging<'_>,
    ino: Ino,
    range: Range<u64>,
    fresh: ContentId,
) -> Result<(), PlanError> {
    let data = d.file_mut(ino)?;
    if data.extents.data_in(data.size, range.clone()).is_empty() {
        return Ok(());
    }
    let content = own_content(d, ino, fresh)?;
    let data = d.file_mut(ino)?;
    let freed = data.extents.remove(data.size, range.clone());
    let whole =
        range.start.div_ceil(BLOCK_BYTES) * BLOCK_BYTES..range.end / BLOCK_BYTES * BLOCK_BYTES;
    if freed && whole.start < whole.end {
        zero(d, content, range.start..whole.start);
        zero(d, content, whole.end..range.end);
        free(d, content, whole);
    } else {
        zero(d, content, range);
    }
    Ok(())
}

/// The parts of its blocks that a file exposes when it grows to `size`. They may hold bytes: those that
/// a truncation cut off, or that were written and never committed.
fn grown_over(data: &FileData, size: u64) -> Vec<Range<u64>> {
    data.extents.data_in(data.size, data.size..size.max(data.size))
}

/// The file's content, replaced by a new one first if it may be shared.
fn own_content(d: &mut Staging<'_>, ino: Ino, fresh: ContentId) -> Result<ContentId, PlanError> {
    let data = d.file_mut(ino)?;
    if let Some(content) = data.content.filter(|_| !data.sealed) {
        return Ok(content);
    }
    let (size, end) = (data.size, data.size.next_multiple_of(BLOCK_BYTES));
    let beyond = data.extents.data_in(size, end..end.max(data.extents.end(size)));
    let effect = match data.content {
        Some(content) => {
            let ranges = data.extents.data_in(size, 0..size);
            ContentEffect::Clone { from: content, to: fresh, ranges }
        }
        None => ContentEffect::Create { content: fresh },
    };
    data.content = Some(fresh);
    data.sealed = false;
    d.content(effect);
    // Blocks reserved past the end are reserved in the new content, too.
    beyond.into_iter().for_each(|run| zero(d, fresh, run));
    Ok(fresh)
}

fn zero(d: &mut Staging<'_>, content: ContentId, range: Range<u64>) {
    if !range.is_empty() {
        d.content(ContentEffect::Zero {
            content,
            offset: range.start,
            len: range.end - range.start,
        });
    }
}

fn free(d: &mut Staging<'_>, content: ContentId, range: Range<u64>) {
    if !range.is_empty() {
        d.content(ContentEffect::Free {
            content,
            offset: range.start,
            len: range.end - range.start,
        });
    }
}
