//! The bytes of files: the cache, fetching ahead, and the operations on them.
//!
//! Reading order: [`chunk`] and [`cache`] (known bytes), [`readahead`] (ahead within a file) and
//! [`walk`] with [`ahead`] (ahead over many small files), [`bytes`] (open, read, write, close),
//! [`copies`] (writes that the server can do as copies).

mod chunk;
mod cache;
mod readahead;
mod walk;
mod ahead;
mod bytes;
mod copies;

use std::collections::BTreeSet;

use xfer_protocol::{ContentId, Ino, Seq};

pub(crate) use cache::FetchOrder;
pub(in crate::core) use readahead::Readahead;

pub use bytes::{CopyRange, Seek};

use cache::Cache;
use walk::Walk;

/// The cached bytes of files, and the fetches to start.
#[derive(Debug)]
pub(in crate::core) struct Data {
    pub(in crate::core) cache: Cache,
    pub(in crate::core) walk: Walk,
    /// Fetches that the drive must start, each with a node that has the content.
    pub(in crate::core) orders: Vec<(Ino, FetchOrder)>,
}

impl Data {
    pub(in crate::core) fn new(cache_bytes: usize, durable: Seq) -> Data {
        let cache = Cache::new(cache_bytes, durable);
        Data { cache, walk: Walk::default(), orders: Vec::new() }
    }

    /// Forgets all bytes but those of some contents, after others have changed the tree up to op
    /// `applied`. Fetches in flight bring nothing.
    pub(in crate::core) fn rebase(&mut self, contents: &BTreeSet<ContentId>, applied: Seq) {
        self.cache.rebase(contents, applied);
        self.walk = Walk::default();
        self.orders.clear();
    }
}
