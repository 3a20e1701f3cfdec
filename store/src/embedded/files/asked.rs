//! What the engine asks of its files: the seam at which tests lay failing ones over them.

use std::collections::HashMap;
use std::ops::Range;

use xfer_protocol::ContentId;

use crate::{Disk, StoreError};

/// Bytes, by content number.
///
/// Reading past what was ever written gives zeros in between, and ends at the end.
pub trait Files: Send + Sync + 'static {
    /// A new, empty content. It must not exist.
    fn create(&self, content: ContentId) -> Result<(), StoreError>;
    /// Writes bytes.
    fn write(&self, content: ContentId, offset: u64, data: &[u8]) -> Result<(), StoreError>;
    /// Reads bytes; fewer than the buffer holds only at the end. A store may know that no end can be
    /// there, and then fails.
    fn read(&self, content: ContentId, offset: u64, data: &mut [u8]) -> Result<usize, StoreError>;
    /// Makes a range zeros, and sets space aside for what will be written there.
    fn zero(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError>;
    /// Makes `to`, which must not exist, with these parts of `from`, which are in order. All else of
    /// it is a hole, and so are holes in them.
    fn duplicate(
        &self,
        from: ContentId,
        to: ContentId,
        ranges: &[Range<u64>],
    ) -> Result<(), StoreError>;
    /// Copies bytes, from one content or within one.
    fn copy(
        &self,
        from: (ContentId, u64),
        to: (ContentId, u64),
        len: u64,
    ) -> Result<(), StoreError>;
    /// Gives a range's space back; what it reads as afterwards is undefined.
    fn free(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError>;
    /// Gives back the space of all but these ranges, which are whole blocks, in order; what the rest
    /// reads as afterwards is undefined.
    fn keep(&self, content: ContentId, ranges: &[Range<u64>]) -> Result<(), StoreError>;
    /// Makes all that was done to these contents durable, their being there included, and says for
    /// which of them that failed. If the store as a whole fails, none of them is known to be durable.
    ///
    /// A failure is final: a later success says nothing about what was written before the failure.
    fn make_each_durable(
        &self,
        contents: &[ContentId],
    ) -> Result<HashMap<ContentId, StoreError>, StoreError>;
    /// The same, for contents that belong together: tells one failure, if there is any.
    fn make_durable(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        self.make_each_durable(contents)?.into_values().next().map_or(Ok(()), Err)
    }
    /// Removes a content, if it exists.
    fn remove(&self, content: ContentId) -> Result<(), StoreError>;
    /// Sets a content aside, if it exists: as if it were removed, but for some days an administrator,
    /// or the next start, can bring it back. Says how many bytes of disk it takes up meanwhile.
    fn set_aside(&self, content: ContentId) -> Result<u64, StoreError>;
    /// Calls `visit` for every content there is: to find those that nothing refers to.
    fn each(&self, visit: &mut dyn FnMut(ContentId)) -> Result<(), StoreError>;
    /// How large the disk is, and what it can still take.
    fn disk(&self) -> Result<Disk, StoreError>;
}
