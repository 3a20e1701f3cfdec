//! Copies that programs make by reading one file and writing another.
//!
//! Some programs do not copy by `copy_file_range`: Python's shutil, rsync, and `cp` where it looks
//! for holes. The bytes that such a program writes are at the same offset in a file that it opened
//! for reading, and they are cached. So the server is asked to copy them, and the data need not be
//! sent.
//!
//! **Invariant:** nothing is guessed. All bytes are compared with known bytes of the source, and
//! the source has data there, not a hole. So the copy does exactly what the write would.

use std::ops::Range;

use bytes::Bytes;
use xfer_protocol::Ino;
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{Loaded, Rows};

use super::bytes::CopyRange;
use crate::core::state::Core;

/// The smallest copy that does not complete a file, in bytes. The request for a copy is about this
/// long.
const PIECE_MIN: usize = 64;

impl Core {
    /// The copy that does what a write would, if there is one.
    ///
    /// A write that completes a copy of a whole file becomes a copy of all of it, from offset 0. So
    /// the two share their content in the end, as they do after `copy_file_range`.
    pub(in crate::core) fn copy_that_is(
        &self,
        to: Ino,
        offset: u64,
        data: &Bytes,
    ) -> Option<CopyRange> {
        if data.is_empty() {
            return None;
        }
        let range = offset..offset.checked_add(data.len() as u64)?;
        let from = self
            .handles
            .sources()
            .find(|from| *from != to && self.is_in(*from, range.clone(), data))?;
        let completes = self.completes(from, to, &range);
        if !completes && data.len() < PIECE_MIN {
            return None;
        }
        let start = if completes { 0 } else { offset };
        let len = range.end - start;
        Some(CopyRange { from, from_offset: start, to, to_offset: start, len })
    }

    /// Whether a file is known to have these bytes in this range, all of them as data.
    fn is_in(&self, from: Ino, range: Range<u64>, data: &Bytes) -> bool {
        let Loaded::Present(node) = self.replica.table.node(from) else { return false };
        let Some(file) = node.file() else { return false };
        let Some(content) = file.content else { return false };
        file.is_data(&range) && self.data.cache.holds(content, range.start, data)
    }

    /// Whether a write of `rest`, the last bytes of `from`, makes `to` a copy of the whole of it.
    fn completes(&self, from: Ino, to: Ino, rest: &Range<u64>) -> bool {
        let (Loaded::Present(from), Loaded::Present(to)) =
            (self.replica.table.node(from), self.replica.table.node(to))
        else {
            return false;
        };
        let (Some(from), Some(to)) = (from.file(), to.file()) else { return false };
        let (Some(source), Some(target)) = (from.content, to.content) else { return false };
        let done = 0..rest.start;
        // `to` must be as long as the part that is done, which must not be empty: else this is no
        // continuation of a copy.
        let whole = rest.end == from.size && rest.start == to.size && !done.is_empty();
        whole
            // Blocks allocated further on would keep the two from sharing a content.
            && to.extents.end(to.size) <= rest.end.next_multiple_of(BLOCK_BYTES)
            && from.is_data(&done)
            && to.is_data(&done)
            && self.data.cache.are_alike(source, target, done)
    }
}
