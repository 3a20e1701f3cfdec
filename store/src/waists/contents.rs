//! The waist for contents: bytes, by content number.
//!
//! A read of a range that was never written gives zeros, up to the content's end.

use std::ops::Range;

use bytes::Bytes;
use xfer_protocol::ContentId;
use xfer_protocol::tree::Room;

use crate::{Answer, Later, Stop, StoreError};

/// The bytes of contents.
pub trait Contents: Send + Sync {
    /// Performs effects on contents in order, and stops at the first that fails.
    fn perform(&self, effects: Vec<Effect>) -> Later<'_, Result<(), Undone>> {
        self.perform_until(effects, Stop::default())
    }

    /// Does the same until it is told to stop. Then an effect that copies or clears much fails with
    /// [`StoreError::Stopped`], within about a second on a disk that works.
    fn perform_until(&self, effects: Vec<Effect>, stop: Stop) -> Later<'_, Result<(), Undone>>;

    /// Reads a range. The result is shorter only if the content ends there. A store may know that
    /// the content can't end there, and then the read fails.
    fn read(&self, content: ContentId, range: Range<u64>) -> Answer<'_, Vec<u8>>;

    /// Makes all changes to these contents durable, including their creation. Each set belongs to
    /// one batch; the answer says for each set where its bytes lie, or why they are lost. If the
    /// store as a whole fails, none of the sets is known to be durable.
    ///
    /// A failure is final: a later success says nothing about data written before the failure.
    fn make_durable(
        &self,
        sets: Vec<Vec<ContentId>>,
    ) -> Answer<'_, Vec<Result<Placements, StoreError>>>;

    /// Reclaims all space that no committed row reaches any more, and completes when that is done.
    /// A store also does so by itself in the background; this is for callers that wait for room.
    fn reclaim(&self) -> Answer<'_, ()>;

    /// The size of the disk, and its free room.
    fn disk(&self) -> Answer<'_, Disk>;
}

/// A change to a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Creates an empty content. No committed row may refer to it yet; what an op left there that
    /// was performed but not committed is replaced.
    Create {
        /// The content to create.
        content: ContentId,
    },
    /// Writes bytes.
    Write {
        /// The content to write to.
        content: ContentId,
        /// The offset of the first byte.
        offset: u64,
        /// The bytes to write.
        data: Bytes,
    },
    /// Makes a range zeros, and allocates space for later writes to it.
    Zero {
        /// The content to change.
        content: ContentId,
        /// The range to clear.
        range: Range<u64>,
    },
    /// Creates a content like [`Effect::Create`], but from parts of another; the parts are in
    /// order. Holes in them stay holes, and everything between them becomes a hole.
    Clone {
        /// The content to copy from.
        from: ContentId,
        /// The new content.
        to: ContentId,
        /// The parts to copy.
        ranges: Vec<Range<u64>>,
    },
    /// Copies bytes between two contents or within one, as if through a buffer.
    Copy {
        /// The source, and the offset in it.
        from: (ContentId, u64),
        /// The target, and the offset in it.
        to: (ContentId, u64),
        /// The number of bytes.
        len: u64,
    },
    /// Frees the space of a range. Its bytes are undefined afterwards.
    Free {
        /// The content to change.
        content: ContentId,
        /// The range to free.
        range: Range<u64>,
    },
    /// Removes a content, if it exists.
    Remove {
        /// The content to remove.
        content: ContentId,
    },
}

/// The failure of one effect in a list. The effects after it were not tried.
#[derive(Clone, Debug)]
pub struct Undone {
    /// The index of the failed effect, which may be partly done.
    pub at: usize,
    /// The reason for the failure.
    pub error: StoreError,
}

/// The location of bytes that were made durable: for each run of a content, the segment that holds
/// it and the position in that segment.
///
/// [`Contents::make_durable`] returns it, the batch carries it, and the store commits it in the
/// same transaction as the rows that refer to the contents. So a reader that finds the rows also
/// finds the bytes. The present engines derive a content's location from its number alone, so they
/// leave this empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Placements {}

/// The size and the free room of a disk, as far as this process may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// The free room.
    pub free: Room,
    /// The total room.
    pub size: Room,
}
