//! One cached chunk: its known parts.
//!
//! A part that a program wrote is a slice of the op's payload, shared with the log, so that nothing
//! is copied. A chunk does not know its place in a content, nor whether it may be evicted.
//!
//! **Invariant:** parts are in order, not empty, and do not overlap. All offsets are within the
//! chunk.

use std::ops::{Range, RangeBounds};

use bytes::{Bytes, BytesMut};

/// The size of a chunk, in bytes. It is that of the largest answer and of the largest write, so
/// that bytes that arrive together are evicted together. A slice keeps its whole buffer in memory,
/// so evicting only some of them would free nothing.
pub(in crate::core) const CHUNK_BYTES: u64 = 1 << 20;

/// With more parts than this, those that touch are copied into one, so that many small writes don't
/// slow every read.
const PARTS_MAX: usize = 32;

/// The memory that a part takes beside its bytes, in bytes, roughly.
const PART_OVERHEAD_BYTES: usize = 128;

/// The buffer of all slices of zeros, which thus cost no memory.
static ZEROS: [u8; CHUNK_BYTES as usize] = [0; CHUNK_BYTES as usize];

/// The known parts of a chunk, each with its offset.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Chunk {
    parts: Vec<(u32, Bytes)>,
}

fn end(part: &(u32, Bytes)) -> u32 {
    part.0 + part.1.len() as u32
}

/// Zeros of the given length, but of no more than a chunk's.
pub(in crate::core) fn zeros(len: u64) -> Bytes {
    Bytes::from_static(&ZEROS[..len.min(CHUNK_BYTES) as usize])
}

impl Chunk {
    /// Sets the bytes from `start` on. Those that were known there are replaced.
    pub(in crate::core) fn put(&mut self, start: u32, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let range = start..start + data.len() as u32;
        self.forget(range.clone());
        let place = self.parts.partition_point(|part| part.0 < range.start);
        self.parts.insert(place, (start, data));
        if self.parts.len() > PARTS_MAX {
            self.join();
        }
    }

    /// Sets the bytes from `start` on where they are unknown. Known bytes are newer than a fetched
    /// answer, and stay.
    pub(in crate::core) fn fill(&mut self, start: u32, data: &Bytes) {
        for gap in self.missing(start..start + data.len() as u32) {
            let slice = data.slice((gap.start - start) as usize..(gap.end - start) as usize);
            self.put(gap.start, slice);
        }
    }

    /// Makes a range unknown.
    pub(in crate::core) fn forget(&mut self, range: Range<u32>) {
        let first = self.parts.partition_point(|part| end(part) <= range.start);
        let last = self.parts.partition_point(|part| part.0 < range.end);
        if first >= last {
            return;
        }
        let mut rest = Vec::with_capacity(2);
        let (start, head) = &self.parts[first];
        if *start < range.start {
            rest.push((*start, remainder(head, ..(range.start - start) as usize)));
        }
        let (start, tail) = &self.parts[last - 1];
        if start + tail.len() as u32 > range.end {
            rest.push((range.end, remainder(tail, (range.end - start) as usize..)));
        }
        self.parts.splice(first..last, rest);
    }

    /// The gaps of a range: its unknown parts, in order.
    pub(in crate::core) fn missing(&self, range: Range<u32>) -> Vec<Range<u32>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.parts.partition_point(|part| end(part) <= range.start);
        for part in &self.parts[first..] {
            if part.0 >= range.end {
                break;
            }
            if part.0 > at {
                gaps.push(at..part.0);
            }
            // The first part may begin before the range, and the last one may end after it.
            at = end(part);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The known parts of a range, cut to it, in order.
    pub(in crate::core) fn known(&self, range: Range<u32>) -> impl Iterator<Item = (u32, Bytes)> {
        let first = self.parts.partition_point(|part| end(part) <= range.start);
        self.parts[first..].iter().take_while(move |part| part.0 < range.end).map(move |part| {
            let (from, to) = (part.0.max(range.start), end(part).min(range.end));
            (from, part.1.slice((from - part.0) as usize..(to - part.0) as usize))
        })
    }

    /// Replaces its bytes by the same ones elsewhere. False if some of them have no place there.
    pub(in crate::core) fn spill(&mut self, store: impl Fn(&Bytes) -> Option<Bytes>) -> bool {
        self.parts.iter_mut().all(|(_, data)| match store(data) {
            Some(stored) => {
                *data = stored;
                true
            }
            None => false,
        })
    }

    /// The memory that it takes, in bytes, roughly. Slices of the shared zeros count like others,
    /// which keeps the rule simple.
    pub(in crate::core) fn memory(&self) -> usize {
        self.parts.iter().map(|(_, data)| data.len() + PART_OVERHEAD_BYTES).sum()
    }

    /// Copies each run of parts that touch into one part. Holes stay, so there may be many parts
    /// even afterwards.
    fn join(&mut self) {
        let mut joined: Vec<(u32, BytesMut)> = Vec::new();
        for (start, data) in self.parts.drain(..) {
            match joined.last_mut() {
                Some((first, run)) if *first + run.len() as u32 == start => {
                    run.extend_from_slice(&data);
                }
                _ => joined.push((start, BytesMut::from(&data[..]))),
            }
        }
        self.parts = joined.into_iter().map(|(start, run)| (start, run.freeze())).collect();
    }
}

/// The remainder of a part that is cut. If it is less than half, it is copied: a slice would keep
/// the whole part in memory.
fn remainder(part: &Bytes, range: impl RangeBounds<usize>) -> Bytes {
    let rest = part.slice(range);
    if rest.len() < part.len() / 2 { Bytes::copy_from_slice(&rest) } else { rest }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const SIZE: u32 = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u32, u32, u8),
        Fill(u32, u32, u8),
        Forget(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let range = || (0..SIZE).prop_flat_map(|start| (Just(start), 1..=SIZE - start));
        prop_oneof![
            (range(), any::<u8>()).prop_map(|((s, l), b)| Step::Put(s, l, b)),
            (range(), any::<u8>()).prop_map(|((s, l), b)| Step::Fill(s, l, b)),
            range().prop_map(|(s, l)| Step::Forget(s, l)),
        ]
    }

    proptest! {
        #[test]
        fn a_chunk_agrees_with_an_array_of_known_bytes(steps in prop::collection::vec(step(), 0..80)) {
            let mut chunk = Chunk::default();
            let mut model = [None::<u8>; SIZE as usize];
            for step in steps {
                match step {
                    Step::Put(s, l, b) => {
                        chunk.put(s, vec![b; l as usize].into());
                        model[s as usize..(s + l) as usize].fill(Some(b));
                    }
                    Step::Fill(s, l, b) => {
                        chunk.fill(s, &vec![b; l as usize].into());
                        for byte in &mut model[s as usize..(s + l) as usize] {
                            byte.get_or_insert(b);
                        }
                    }
                    Step::Forget(s, l) => {
                        chunk.forget(s..s + l);
                        model[s as usize..(s + l) as usize].fill(None);
                    }
                }
                let mut seen = [None::<u8>; SIZE as usize];
                for (start, data) in chunk.known(0..SIZE) {
                    for (i, byte) in data.iter().enumerate() {
                        prop_assert_eq!(seen[start as usize + i].replace(*byte), None);
                    }
                }
                prop_assert_eq!(seen, model);
                for gap in chunk.missing(0..SIZE) {
                    prop_assert!(model[gap.start as usize..gap.end as usize].iter().all(Option::is_none));
                }
                let missing: u32 = chunk.missing(0..SIZE).iter().map(|gap| gap.end - gap.start).sum();
                prop_assert_eq!(missing as usize, model.iter().filter(|byte| byte.is_none()).count());
                prop_assert!(chunk.parts.len() <= SIZE as usize);
            }
        }
    }
}
