//! The interface between the engine and its files; tests put failing files behind it.

use std::collections::HashMap;
use std::ops::Range;

use xfer_protocol::ContentId;

use crate::{Disk, Stop, StoreError};

/// Bytes, by content number.
///
/// A read of a range that was never written gives zeros, up to the content's end. What may take long
/// ends with [`StoreError::Stopped`] when it is told to stop.
pub trait Files: Send + Sync + 'static {
    /// Creates an empty content. It must not exist yet.
    fn create(&self, content: ContentId) -> Result<(), StoreError>;
    /// Writes bytes.
    fn write(&self, content: ContentId, offset: u64, data: &[u8]) -> Result<(), StoreError>;
    /// Reads bytes. Fewer than the buffer holds only if the content ends there. A store may know
    /// that the content can't end there, and then the read fails.
    fn read(&self, content: ContentId, offset: u64, data: &mut [u8]) -> Result<usize, StoreError>;
    /// Makes a range zeros, and allocates space for later writes to it.
    fn zero(
        &self,
        content: ContentId,
        offset: u64,
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError>;
    /// Creates `to`, which must not exist yet, from parts of `from`; the parts are in order. Holes
    /// in them stay holes, and everything between them becomes a hole.
    fn duplicate(
        &self,
        from: ContentId,
        to: ContentId,
        ranges: &[Range<u64>],
        stop: &Stop,
    ) -> Result<(), StoreError>;
    /// Copies bytes between two contents or within one.
    fn copy(
        &self,
        from: (ContentId, u64),
        to: (ContentId, u64),
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError>;
    /// Frees the space of a range. Its bytes are undefined afterwards.
    fn free(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError>;
    /// Frees the space of everything but these ranges, which are whole blocks and in order. The
    /// freed bytes are undefined afterwards.
    fn keep(&self, content: ContentId, ranges: &[Range<u64>]) -> Result<(), StoreError>;
    /// Makes all changes to these contents durable, including their creation, and returns those
    /// that failed. If the store as a whole fails, none of them is known to be durable.
    ///
    /// A failure is final: a later success says nothing about data written before the failure.
    fn make_each_durable(
        &self,
        contents: &[ContentId],
    ) -> Result<HashMap<ContentId, StoreError>, StoreError>;
    /// Does the same for contents that belong together, and returns the first failure.
    fn make_durable(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        self.make_each_durable(contents)?.into_values().next().map_or(Ok(()), Err)
    }
    /// Removes a content, if it exists.
    fn remove(&self, content: ContentId) -> Result<(), StoreError>;
    /// Sets a content aside, if it exists. It counts as removed, but for some days an administrator
    /// or the next start can restore it. Returns the bytes that it takes on the disk meanwhile.
    fn set_aside(&self, content: ContentId) -> Result<Option<u64>, StoreError>;
    /// Calls `visit` for every content, in search of those that no row refers to.
    fn each(&self, visit: &mut dyn FnMut(ContentId)) -> Result<(), StoreError>;
    /// Has the filesystem offer the space that was freed before. One that never writes in place does so
    /// only with its next transaction (btrfs(5): `commit`, 30 s). Slow.
    fn offer_freed(&self) -> Result<(), StoreError>;
    /// The size of the disk, and its free room.
    fn disk(&self) -> Result<Disk, StoreError>;
}
