//! Evicting chunks: the least recently used ones go first, and those that must stay are spilled if
//! possible.

use std::fmt;
use std::sync::Arc;

use crate::core::away::Spill;

use super::{Cache, Entry};

/// The most chunks that one eviction passes over because they must stay.
const EVICTION_TRIES: usize = 64;

/// The memory beyond the limit that each holder may have, in bytes: more than one operation needs at
/// once.
const HELD_BYTES: usize = 4 << 20;

/// Where chunks that can't be evicted may go.
#[derive(Default)]
pub(super) struct Spilling {
    pub(super) to: Option<Arc<dyn Spill>>,
    /// Whether there may be any.
    is_used: bool,
}

impl fmt::Debug for Spilling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spilling").field("is_used", &self.is_used).finish_non_exhaustive()
    }
}

impl Cache {
    /// Keeps chunks beyond the limit, until [`Cache::release`].
    pub(in crate::core) fn hold(&mut self) {
        self.holders += 1;
    }

    /// Ends one [`Cache::hold`].
    pub(in crate::core) fn release(&mut self) {
        self.holders -= 1;
        self.evict();
    }

    /// Evicts chunks until all take no more memory than they may.
    pub(super) fn evict(&mut self) {
        let bytes_max = self.bytes_max + self.holders * HELD_BYTES;
        let mut tries = 0;
        while self.bytes > bytes_max && tries < EVICTION_TRIES {
            let Some((key, mut entry)) = self.chunks.pop_lru() else { return };
            self.bytes -= entry.memory();
            if entry.changed > self.durable || self.fetches.contains_key(&key) {
                self.spilling.take(&mut entry);
                // It counts as just used, so that the next try meets another one.
                self.bytes += entry.memory();
                self.chunks.put(key, entry);
                tries += 1;
            }
        }
    }

    /// Forgets all chunks that can be fetched again.
    pub(in crate::core) fn forget_durable(&mut self) {
        let can_go = |(key, entry): &(&_, &Entry)| {
            entry.changed <= self.durable && !self.fetches.contains_key(*key)
        };
        let keys: Vec<_> = self.chunks.iter().filter(can_go).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(entry) = self.chunks.pop(&key) {
                self.bytes -= entry.memory();
            }
        }
    }

    /// Forgets spilled chunks that can be fetched again.
    pub(super) fn drop_spilled(&mut self) {
        if !std::mem::take(&mut self.spilling.is_used) {
            return;
        }
        let spilled = self.chunks.iter().filter(|(_, entry)| entry.is_spilled);
        let spilled: Vec<_> = spilled.map(|(key, entry)| (*key, entry.changed)).collect();
        for (key, changed) in spilled {
            if changed > self.durable {
                self.spilling.is_used = true;
            } else if let Some(entry) = self.chunks.pop(&key) {
                self.bytes -= entry.memory();
            }
        }
    }
}

impl Spilling {
    /// Spills a chunk, if that is possible.
    fn take(&mut self, entry: &mut Entry) {
        if let Some(to) = self.to.as_ref().filter(|_| !entry.is_spilled) {
            entry.is_spilled = entry.chunk.spill(|bytes| to.store(bytes));
            self.is_used |= entry.is_spilled;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use xfer_protocol::tree::ContentEffect;
    use xfer_protocol::{ContentId, Seq};

    use super::*;
    use crate::core::data::chunk::CHUNK_BYTES;

    const CONTENT: ContentId = ContentId(1);

    /// The chunks that are known whole, once this one was fetched.
    fn fetched(cache: &mut Cache, index: u64) -> Vec<u64> {
        let range = |index: u64| index * CHUNK_BYTES..(index + 1) * CHUNK_BYTES;
        let order = cache.order(CONTENT, range(index));
        let data = Bytes::from(vec![b'x'; CHUNK_BYTES as usize]);
        cache.arrived(&order, Some(&data));
        (0..4).filter(|index| cache.missing(CONTENT, range(*index)).is_empty()).collect()
    }

    #[test]
    fn what_an_operation_waited_for_long_stays_until_it_is_done() {
        let mut cache = Cache::new(CHUNK_BYTES as usize * 3 / 2, Seq(0));
        assert_eq!(fetched(&mut cache, 0), [0]);
        assert_eq!(fetched(&mut cache, 1), [1], "there is room for one");
        cache.hold();
        assert_eq!(fetched(&mut cache, 2), [1, 2]);
        assert_eq!(fetched(&mut cache, 3), [1, 2, 3]);
        cache.release();
        assert!(cache.bytes() <= cache.bytes_max());
        assert_eq!(fetched(&mut cache, 0), [0]);
    }

    #[test]
    fn what_the_server_does_not_have_is_not_forgotten() {
        let mut cache = Cache::new(CHUNK_BYTES as usize * 3, Seq(0));
        let effect = ContentEffect::Write { content: CONTENT, offset: 0, len: 4 };
        cache.follow(&effect, &Bytes::from_static(b"text"), Seq(1));
        assert_eq!(fetched(&mut cache, 1), [1]);
        cache.forget_durable();
        assert!(cache.holds(CONTENT, 0, b"text"));
        assert!(!cache.missing(CONTENT, CHUNK_BYTES..CHUNK_BYTES + 1).is_empty());
        cache.acknowledge(Seq(1));
        cache.forget_durable();
        assert!(!cache.holds(CONTENT, 0, b"text"));
        assert_eq!(cache.bytes(), 0);
    }
}
