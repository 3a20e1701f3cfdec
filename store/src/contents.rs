//! The waist for contents: bytes, by content number.
//!
//! Reading past what was ever written gives zeros in between, and ends at the end.

use std::ops::Range;

use bytes::Bytes;
use xfer_protocol::ContentId;
use xfer_protocol::tree::Room;

use crate::{Answer, Later, StoreError};

/// Bytes of contents.
pub trait Contents: Send + Sync {
    /// Changes contents, one effect after the other, up to the first that can't be done.
    fn perform(&self, effects: Vec<Effect>) -> Later<'_, Result<(), Undone>>;

    /// Reads a range; it is shorter only where the content ends. A store may know that no end can be
    /// there, and then fails.
    fn read(&self, content: ContentId, range: Range<u64>) -> Answer<'_, Vec<u8>>;

    /// Makes all that was done to these contents durable, their being there included, and says for each
    /// set, which is one batch's, where its bytes lie or why they are lost. If the store as a whole
    /// fails, none of them is known to be durable.
    ///
    /// A failure is final: a later success says nothing about what was written before the failure.
    fn make_durable(
        &self,
        sets: Vec<Vec<ContentId>>,
    ) -> Answer<'_, Vec<Result<Placements, StoreError>>>;

    /// Gives back all space that nothing reaches any more, and completes when that is done. A store does
    /// so by itself, in its own time; this is for those who wait for room.
    fn reclaim(&self) -> Answer<'_, ()>;

    /// How large the disk is, and what it can still take.
    fn disk(&self) -> Answer<'_, Disk>;
}

/// A change to a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A new, empty content comes into being. It must not exist.
    Create {
        /// The content.
        content: ContentId,
    },
    /// Bytes are written.
    Write {
        /// The content.
        content: ContentId,
        /// Where.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// A range becomes zeros, and space is set aside for what will be written there.
    Zero {
        /// The content.
        content: ContentId,
        /// The range.
        range: Range<u64>,
    },
    /// A content, which must not exist, comes into being with these parts of another, which are in
    /// order. All else of it is a hole, and so are holes in them.
    Clone {
        /// The other.
        from: ContentId,
        /// The new one.
        to: ContentId,
        /// The parts.
        ranges: Vec<Range<u64>>,
    },
    /// Bytes are copied, from one content or within one, as if through a buffer.
    Copy {
        /// From where.
        from: (ContentId, u64),
        /// To where.
        to: (ContentId, u64),
        /// How many.
        len: u64,
    },
    /// A range's space is given back; what it reads as afterwards is undefined.
    Free {
        /// The content.
        content: ContentId,
        /// The range.
        range: Range<u64>,
    },
    /// A content goes, if it exists.
    Remove {
        /// The content.
        content: ContentId,
    },
}

/// Not all effects were done: those after one that could not be were not tried.
#[derive(Clone, Debug)]
pub struct Undone {
    /// The place of that one, which may be done in part.
    pub at: usize,
    /// Why it could not be done.
    pub error: StoreError,
}

/// Where bytes lie that were made durable: for each run of a content, the segment that holds it and the
/// place within.
///
/// It is made by [`Contents::make_durable`], travels in the batch, and is committed in the same
/// transaction as the rows that refer to the contents: so whoever finds the rows finds the bytes. The
/// engines that there are keep a content in a place that follows from its number alone, so theirs are
/// empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Placements {}

/// A disk, as those who may use it see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// What it can still take.
    pub free: Room,
    /// What it can take in all.
    pub size: Room,
}
