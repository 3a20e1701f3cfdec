//! The chunk cache: what is known of the bytes of contents.
//!
//! **Invariant:** what is known is what the content will hold once the whole log is applied. Only
//! this client changes contents, so what it wrote is known, and what is fetched fills in the rest.
//!
//! **Invariant:** a chunk whose last change is not durable, or that a fetch is under way for, stays:
//! otherwise an older answer could be taken for the present.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use lru::LruCache;
use xfer_protocol::tree::ContentEffect;
use xfer_protocol::{ContentId, Seq};

use super::chunk::{CHUNK_BYTES, Chunk, zeros};

/// A longer range of zeros is left for the server to tell, in bytes.
const ZERO_BYTES_MAX: u64 = 1 << 20;

/// How many chunks that can't go yet are passed over for one that can.
const EVICTION_TRIES: usize = 64;

type Key = (ContentId, u64);

/// Known bytes of contents, bounded in memory, least recently used first to go.
#[derive(Debug)]
pub(in crate::core) struct Cache {
    chunks: LruCache<Key, Entry>,
    bytes: usize,
    bytes_max: usize,
    durable: Seq,
    /// Parts of chunks that are being fetched.
    fetches: BTreeMap<Key, Vec<Fetch>>,
    /// After which op a fetch of a content may be answered.
    after: BTreeMap<ContentId, Seq>,
    next_fetch: u64,
}

#[derive(Debug, Default)]
struct Entry {
    chunk: Chunk,
    changed: Seq,
}

/// What a chunk takes up beside its parts, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

impl Entry {
    fn memory(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.chunk.memory()
    }
}

#[derive(Debug)]
struct Fetch {
    id: u64,
    range: Range<u64>,
}

/// A fetch to be made: a range of a content, within which some bytes are unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FetchOrder {
    /// Its number, for [`Cache::arrived`].
    pub(crate) id: u64,
    /// Which content.
    pub(crate) content: ContentId,
    /// Which bytes.
    pub(crate) range: Range<u64>,
    /// After which op it may be answered.
    pub(crate) after: Seq,
}

/// The chunks that a range touches, with the part of each, relative to the chunk.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, Range<u32>)> {
    (range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES)).map(move |index| {
        let base = index * CHUNK_BYTES;
        let start = range.start.max(base) - base;
        let end = range.end.min(base + CHUNK_BYTES) - base;
        (index, start as u32..end as u32)
    })
}

impl Cache {
    pub(in crate::core) fn new(bytes_max: usize, durable: Seq) -> Cache {
        Cache {
            chunks: LruCache::unbounded(),
            bytes: 0,
            bytes_max,
            durable,
            fetches: BTreeMap::new(),
            after: BTreeMap::new(),
            next_fetch: 0,
        }
    }

    /// About how much memory chunks take, in bytes.
    pub(in crate::core) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Does to the cache what op `seq` does to a content.
    pub(in crate::core) fn follow(&mut self, effect: &ContentEffect, payload: &Bytes, seq: Seq) {
        match effect {
            ContentEffect::Create { .. } | ContentEffect::Free { .. } => {}
            ContentEffect::Write { content, offset, .. } => {
                self.put(*content, *offset, payload, seq);
            }
            ContentEffect::Zero { content, offset, len } if *len <= ZERO_BYTES_MAX => {
                self.put_zeros(*content, *offset..offset + len, seq);
            }
            ContentEffect::Zero { content, offset, len } => {
                self.forget(*content, *offset..offset + len, seq);
            }
            ContentEffect::Clone { from, to, ranges } => self.duplicate(*from, *to, ranges, seq),
            ContentEffect::Copy { from, from_offset, to, to_offset, len } => {
                self.copy((*from, *from_offset), (*to, *to_offset), *len, seq);
            }
        }
    }

    /// Notes that the server knows a content, or all of it, only after op `seq`.
    pub(in crate::core) fn expect(&mut self, content: ContentId, seq: Seq) {
        self.after.insert(content, seq);
    }

    /// Copies a range out, if all of it is known.
    pub(in crate::core) fn read(
        &mut self,
        content: ContentId,
        range: Range<u64>,
        out: &mut [u8],
    ) -> bool {
        if !self.missing(content, range.clone()).is_empty() {
            return false;
        }
        for (index, part) in pieces(range.clone()) {
            let Some(entry) = self.chunks.get(&(content, index)) else { return false };
            for (start, data) in entry.chunk.known(part) {
                let at = (index * CHUNK_BYTES + u64::from(start) - range.start) as usize;
                out[at..at + data.len()].copy_from_slice(&data);
            }
        }
        true
    }

    /// Whether a content is known to hold these bytes at this place.
    pub(in crate::core) fn holds(&self, content: ContentId, offset: u64, data: &[u8]) -> bool {
        pieces(offset..offset + data.len() as u64).all(|(index, part)| {
            let Some(entry) = self.chunks.peek(&(content, index)) else { return false };
            let before = (index * CHUNK_BYTES + u64::from(part.start) - offset) as usize;
            let data = &data[before..before + part.len()];
            let alike = |(start, known): (u32, Bytes)| {
                let at = (start - part.start) as usize;
                data[at..at + known.len()] == known
            };
            entry.chunk.missing(part.clone()).is_empty()
                && entry.chunk.known(part.clone()).all(alike)
        })
    }

    /// Whether two contents are known to hold the same bytes in a range.
    pub(in crate::core) fn are_alike(
        &self,
        one: ContentId,
        other: ContentId,
        range: Range<u64>,
    ) -> bool {
        pieces(range).all(|(index, part)| {
            let Some(entry) = self.chunks.peek(&(other, index)) else { return false };
            let base = index * CHUNK_BYTES;
            let alike =
                |(start, known): (u32, Bytes)| self.holds(one, base + u64::from(start), &known);
            entry.chunk.missing(part.clone()).is_empty() && entry.chunk.known(part).all(alike)
        })
    }

    /// The parts of a range that are unknown, joined where they touch.
    pub(in crate::core) fn missing(
        &self,
        content: ContentId,
        range: Range<u64>,
    ) -> Vec<Range<u64>> {
        let mut gaps: Vec<Range<u64>> = Vec::new();
        for (index, part) in pieces(range) {
            let base = index * CHUNK_BYTES;
            let found = match self.chunks.peek(&(content, index)) {
                Some(entry) => entry.chunk.missing(part),
                None => vec![part],
            };
            for gap in found {
                let gap = base + u64::from(gap.start)..base + u64::from(gap.end);
                match gaps.last_mut() {
                    Some(last) if last.end == gap.start => last.end = gap.end,
                    _ => gaps.push(gap),
                }
            }
        }
        gaps
    }

    /// How much memory they may take, in bytes.
    pub(in crate::core) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The parts of a range that are unknown and that no fetch is under way for.
    pub(in crate::core) fn wanted(&self, content: ContentId, range: Range<u64>) -> Vec<Range<u64>> {
        let mut wanted = Vec::new();
        for gap in self.missing(content, range) {
            let mut coming: Vec<Range<u64>> = pieces(gap.clone())
                .filter_map(|(index, _)| self.fetches.get(&(content, index)))
                .flatten()
                .map(|fetch| fetch.range.clone())
                .collect();
            coming.sort_by_key(|range| range.start);
            let mut at = gap.start;
            for range in coming {
                if range.start > at {
                    wanted.push(at..range.start.min(gap.end));
                }
                at = at.max(range.end).min(gap.end);
            }
            wanted.push(at..gap.end);
        }
        wanted.retain(|range| range.start < range.end);
        wanted
    }

    /// Numbers of fetches under way that touch a range.
    pub(in crate::core) fn under_way(&self, content: ContentId, range: Range<u64>) -> Vec<u64> {
        pieces(range.clone())
            .filter_map(|(index, _)| self.fetches.get(&(content, index)))
            .flatten()
            .filter(|fetch| fetch.range.start < range.end && range.start < fetch.range.end)
            .map(|fetch| fetch.id)
            .collect()
    }

    /// Notes that a range will be fetched.
    pub(in crate::core) fn order(&mut self, content: ContentId, range: Range<u64>) -> FetchOrder {
        let id = self.next_fetch;
        self.next_fetch += 1;
        for (index, _) in pieces(range.clone()) {
            let fetch = Fetch { id, range: range.clone() };
            self.fetches.entry((content, index)).or_default().push(fetch);
        }
        let after = self.after.get(&content).copied().unwrap_or_default();
        FetchOrder { id, content, range, after }
    }

    /// Fills in what a fetch brought (or nothing, if it failed). Data beyond the end are zeros.
    pub(in crate::core) fn arrived(&mut self, order: &FetchOrder, data: Option<&Bytes>) {
        for (index, part) in pieces(order.range.clone()) {
            let key = (order.content, index);
            if !self.end_fetch(key, order.id) {
                continue;
            }
            let Some(data) = data else { continue };
            let skipped =
                (index * CHUNK_BYTES + u64::from(part.start) - order.range.start) as usize;
            let len = (part.end - part.start) as usize;
            let there = data.slice(skipped.min(data.len())..(skipped + len).min(data.len()));
            let rest = len - there.len();
            self.change(key, |entry| {
                entry.chunk.fill(part.start, &there);
                entry.chunk.fill(part.end - rest as u32, &zeros(rest as u64));
            });
        }
        self.evict();
    }

    /// Notes that all ops up to `seq` are durable.
    pub(in crate::core) fn acknowledge(&mut self, seq: Seq) {
        self.durable = seq;
        self.after.retain(|_, after| *after > seq);
        self.evict();
    }

    /// Whether the fetch still counts: it does not if the chunk was made unknown meanwhile.
    fn end_fetch(&mut self, key: Key, id: u64) -> bool {
        let Some(fetches) = self.fetches.get_mut(&key) else { return false };
        let before = fetches.len();
        fetches.retain(|fetch| fetch.id != id);
        let counted = fetches.len() < before;
        if fetches.is_empty() {
            self.fetches.remove(&key);
        }
        counted
    }

    fn put(&mut self, content: ContentId, offset: u64, data: &Bytes, seq: Seq) {
        for (index, part) in pieces(offset..offset + data.len() as u64) {
            let at = (index * CHUNK_BYTES + u64::from(part.start) - offset) as usize;
            let slice = data.slice(at..at + (part.end - part.start) as usize);
            self.put_part((content, index), part.start, slice, seq);
        }
        self.evict();
    }

    fn put_zeros(&mut self, content: ContentId, range: Range<u64>, seq: Seq) {
        for (index, part) in pieces(range) {
            self.put_part(
                (content, index),
                part.start,
                zeros(u64::from(part.end - part.start)),
                seq,
            );
        }
    }

    fn put_part(&mut self, key: Key, start: u32, data: Bytes, seq: Seq) {
        self.change(key, |entry| {
            entry.chunk.put(start, data);
            entry.changed = seq;
        });
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry)) {
        let before = self.chunks.peek(&key).map_or(0, Entry::memory);
        let entry = self.chunks.get_or_insert_mut(key, Entry::default);
        change(entry);
        self.bytes = self.bytes - before + entry.memory();
    }

    /// Makes a range unknown; what it holds is known again only from an answer after op `seq`.
    fn forget(&mut self, content: ContentId, range: Range<u64>, seq: Seq) {
        self.expect(content, seq);
        for index in self.indexes(content, &range) {
            self.fetches.remove(&(content, index));
            if self.chunks.contains(&(content, index)) {
                let base = index * CHUNK_BYTES;
                let start = range.start.max(base) - base;
                let end = range.end.min(base + CHUNK_BYTES) - base;
                self.change((content, index), |entry| {
                    entry.chunk.forget(start as u32..end as u32);
                    entry.changed = seq;
                });
            }
        }
    }

    fn duplicate(&mut self, from: ContentId, to: ContentId, ranges: &[Range<u64>], seq: Seq) {
        self.expect(to, seq);
        for range in ranges {
            for index in self.indexes(from, range) {
                let base = index * CHUNK_BYTES;
                let start = range.start.max(base) - base;
                let end = range.end.min(base + CHUNK_BYTES) - base;
                let known: Vec<_> = match self.chunks.peek(&(from, index)) {
                    Some(entry) => entry.chunk.known(start as u32..end as u32).collect(),
                    None => continue,
                };
                for (start, data) in known {
                    self.put_part((to, index), start, data, seq);
                }
            }
        }
        self.evict();
    }

    fn copy(&mut self, from: (ContentId, u64), to: (ContentId, u64), len: u64, seq: Seq) {
        let known = len <= ZERO_BYTES_MAX && {
            let mut buffer = vec![0; len as usize];
            let known = self.read(from.0, from.1..from.1 + len, &mut buffer);
            if known {
                self.put(to.0, to.1, &buffer.into(), seq);
            }
            known
        };
        if !known {
            self.forget(to.0, to.1..to.1 + len, seq);
        }
    }

    /// Chunks of a content within a range that are cached or being fetched.
    fn indexes(&self, content: ContentId, range: &Range<u64>) -> Vec<u64> {
        let wanted = range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES);
        let here = |(c, index): &Key| *c == content && wanted.contains(index);
        if wanted.end - wanted.start <= (self.chunks.len() + self.fetches.len()) as u64 {
            return wanted.collect();
        }
        let cached = self.chunks.iter().map(|(key, _)| key);
        cached.chain(self.fetches.keys()).filter(|key| here(key)).map(|key| key.1).collect()
    }

    fn evict(&mut self) {
        let mut tries = 0;
        while self.bytes > self.bytes_max && tries < EVICTION_TRIES {
            let Some((key, entry)) = self.chunks.pop_lru() else { return };
            if entry.changed > self.durable || self.fetches.contains_key(&key) {
                self.chunks.put(key, entry);
                tries += 1;
            } else {
                self.bytes -= entry.memory();
            }
        }
    }
}
