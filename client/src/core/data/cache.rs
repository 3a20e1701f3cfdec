//! The chunk cache: the known bytes of contents.
//!
//! It does not know files: the replica says which content a file has, how large the file is, and
//! where it has data. Nor does it fetch: it notes which fetches are in flight.
//!
//! Three kinds of offsets meet here. An offset in a content is a `u64`; one in a chunk is a `u32`,
//! and begins at `index * CHUNK_BYTES` of the content; one in a payload or buffer is a `usize`, and
//! begins where the write, read or fetch does.
//!
//! **Invariant:** a known byte is the one that the content will hold once the whole log is applied.
//! Only this client changes contents, so what it wrote is known, and fetches fill in the rest.
//!
//! **Invariant:** a chunk whose last change is not durable, or that a fetch is in flight for, is
//! not evicted. It may be spilled. Otherwise an older answer could be taken for the present state.

mod rebasing;
mod evicting;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use xfer_protocol::tree::ContentEffect;
use xfer_protocol::{ContentId, Seq};

use crate::core::away::Spill;

use super::chunk::{CHUNK_BYTES, Chunk, zeros};
use evicting::Spilling;

/// The longest range that is zeroed or copied in the cache, in bytes. A longer one becomes unknown,
/// and is fetched again when it is read.
const ZERO_BYTES_MAX: u64 = 1 << 20;

/// A content, and the index of a chunk in it.
type Key = (ContentId, u64);

/// The known bytes of contents, within a memory limit. Least recently used chunks are evicted
/// first.
#[derive(Debug)]
pub(in crate::core) struct Cache {
    chunks: LruCache<Key, Entry>,
    bytes: usize,
    bytes_max: usize,
    /// The number of operations for which all chunks are kept.
    holders: usize,
    durable: Seq,
    /// The fetches in flight. Each stands under every chunk that it touches, with its whole range.
    fetches: BTreeMap<Key, Vec<Fetch>>,
    /// The op after which the server can answer for a content, as long as that op is not durable.
    after: BTreeMap<ContentId, Seq>,
    next_fetch: u64,
    spilling: Spilling,
}

#[derive(Debug, Default)]
struct Entry {
    chunk: Chunk,
    /// The last op that changed it.
    changed: Seq,
    /// Whether its bytes are spilled, so that they take no memory.
    is_spilled: bool,
}

/// The memory that a chunk takes beside its parts, in bytes, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 256;

impl Entry {
    fn memory(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + if self.is_spilled { 0 } else { self.chunk.memory() }
    }
}

#[derive(Debug)]
struct Fetch {
    id: u64,
    /// Within the content, so that it may reach beyond the chunk.
    range: Range<u64>,
}

/// A fetch for the drive to make: a range of a content, some bytes of which are unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FetchOrder {
    /// Its number, for [`Cache::arrived`].
    pub(crate) id: u64,
    pub(crate) content: ContentId,
    /// The bytes, by their offsets in the content.
    pub(crate) range: Range<u64>,
    /// The op that the server must have applied before it answers.
    pub(crate) after: Seq,
    /// How often others had changed the tree when it was ordered.
    pub(crate) tenure: usize,
}

/// The chunks that a range of a content touches: the index of each, and the part of it by offsets
/// in the chunk.
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
            holders: 0,
            durable,
            fetches: BTreeMap::new(),
            after: BTreeMap::new(),
            next_fetch: 0,
            spilling: Spilling::default(),
        }
    }

    /// Has chunks that can't be evicted spilled.
    pub(in crate::core) fn spill_to(&mut self, spill: Arc<dyn Spill>) {
        self.spilling.to = Some(spill);
    }

    /// Where they are spilled, if anywhere.
    pub(in crate::core) fn spill(&self) -> Option<&Arc<dyn Spill>> {
        self.spilling.to.as_ref()
    }

    /// The memory that the chunks take, in bytes, roughly.
    pub(in crate::core) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Applies to the cache what op `seq` does to a content.
    pub(in crate::core) fn follow(&mut self, effect: &ContentEffect, payload: &Bytes, seq: Seq) {
        match effect {
            // A created content has no bytes yet. Freed bytes are out of reach, and their chunks
            // become the least recently used.
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

    /// Notes that the server can answer for all of a content only after op `seq`.
    pub(in crate::core) fn expect(&mut self, content: ContentId, seq: Seq) {
        self.after.insert(content, seq);
    }

    /// Copies a range into `out`, which is as long, if all of it is known.
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
                // From an offset in the chunk to one in the content, and from there to one in
                // `out`.
                let at = (index * CHUNK_BYTES + u64::from(start) - range.start) as usize;
                out[at..at + data.len()].copy_from_slice(&data);
            }
        }
        true
    }

    /// Whether a content is known to hold these bytes at this offset.
    pub(in crate::core) fn holds(&self, content: ContentId, offset: u64, data: &[u8]) -> bool {
        pieces(offset..offset + data.len() as u64).all(|(index, part)| {
            let Some(entry) = self.chunks.peek(&(content, index)) else { return false };
            // `before` bytes of `data` belong to earlier chunks. The rest is cut to this one's
            // part, so that offsets in it begin at `part.start` of the chunk.
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

    /// The unknown parts of a range, by offsets in the content. Parts that touch at the border of
    /// two chunks are joined, so that they are fetched as one.
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

    /// The memory that the chunks may take, in bytes.
    pub(in crate::core) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The unknown parts of a range that no fetch in flight covers.
    pub(in crate::core) fn wanted(&self, content: ContentId, range: Range<u64>) -> Vec<Range<u64>> {
        let mut wanted = Vec::new();
        for gap in self.missing(content, range) {
            let mut coming: Vec<Range<u64>> = pieces(gap.clone())
                .filter_map(|(index, _)| self.fetches.get(&(content, index)))
                .flatten()
                .map(|fetch| fetch.range.clone())
                .collect();
            coming.sort_by_key(|range| range.start);
            // Everything in the gap before `at` is covered or wanted already. A fetch over several
            // chunks is listed once per chunk; repeats leave `at` where it is.
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

    /// The numbers of the fetches in flight that touch a range. One over several chunks may come up
    /// more than once.
    pub(in crate::core) fn under_way(&self, content: ContentId, range: Range<u64>) -> Vec<u64> {
        pieces(range.clone())
            .filter_map(|(index, _)| self.fetches.get(&(content, index)))
            .flatten()
            .filter(|fetch| fetch.range.start < range.end && range.start < fetch.range.end)
            .map(|fetch| fetch.id)
            .collect()
    }

    /// Notes that a fetch of a range is in flight from now on.
    pub(in crate::core) fn order(&mut self, content: ContentId, range: Range<u64>) -> FetchOrder {
        let id = self.next_fetch;
        self.next_fetch += 1;
        for (index, _) in pieces(range.clone()) {
            let fetch = Fetch { id, range: range.clone() };
            self.fetches.entry((content, index)).or_default().push(fetch);
        }
        let after = self.after.get(&content).copied().unwrap_or_default();
        FetchOrder { id, content, range, after, tenure: 0 }
    }

    /// Ends a fetch and fills in its data, or nothing if it failed. A short answer ends at the end
    /// of the content, and zeros follow it.
    pub(in crate::core) fn arrived(&mut self, order: &FetchOrder, data: Option<&Bytes>) {
        for (index, part) in pieces(order.range.clone()) {
            let key = (order.content, index);
            if !self.end_fetch(key, order.id) {
                continue;
            }
            let Some(data) = data else { continue };
            // The answer begins at `order.range.start`. `skipped` of its bytes belong to earlier
            // chunks. It may end within this chunk's part or before it: then `rest` bytes of the
            // part are zeros.
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
        self.drop_spilled();
        self.evict();
    }

    /// Ends a fetch for one chunk. False if it does not count any more, because the chunk was made
    /// unknown meanwhile and the answer may be older than that.
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
            // `at` bytes of `data` belong to earlier chunks.
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
        entry.is_spilled = false;
        self.bytes = self.bytes - before + entry.memory();
    }

    /// Makes a range unknown. Only an answer from after op `seq` may fill it in, so the fetches in
    /// flight for its chunks no longer count.
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
        // A clone keeps offsets, so a part goes to the chunk of the same index. Not by `pieces`: a
        // range may be terabytes of which few chunks are cached.
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
        // Through a buffer, since the ranges may overlap, and may lie differently within their
        // chunks.
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

    /// The chunks of a content within a range that are cached or being fetched, and perhaps others.
    /// A range of more chunks than there are in all is not walked chunk by chunk.
    fn indexes(&self, content: ContentId, range: &Range<u64>) -> Vec<u64> {
        let wanted = range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES);
        let here = |(c, index): &Key| *c == content && wanted.contains(index);
        if wanted.end - wanted.start <= (self.chunks.len() + self.fetches.len()) as u64 {
            return wanted.collect();
        }
        let cached = self.chunks.iter().map(|(key, _)| key);
        cached.chain(self.fetches.keys()).filter(|key| here(key)).map(|key| key.1).collect()
    }
}
