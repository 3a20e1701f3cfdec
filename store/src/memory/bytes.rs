//! The bytes of one content, which may be sparse.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The unit in which bytes are kept.
const BLOCK: u64 = 4096;

/// The most bytes copied at a time.
const CHUNK: u64 = 1 << 20;

/// Bytes up to a length. A missing block reads as zeros. Clones share blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    len: u64,
    blocks: BTreeMap<u64, Arc<[u8; BLOCK as usize]>>,
}

impl Sparse {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let start = (at % BLOCK) as usize;
            let count = (BLOCK as usize - start).min(data.len() - done);
            let block =
                self.blocks.entry(at / BLOCK).or_insert_with(|| Arc::new([0; BLOCK as usize]));
            Arc::make_mut(block)[start..start + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    /// The bytes of a range, up to the end of the content.
    pub(super) fn read(&self, range: Range<u64>) -> Vec<u8> {
        let end = range.end.min(self.len);
        let mut data = vec![0; end.saturating_sub(range.start) as usize];
        if range.start >= end {
            return data;
        }
        for (number, block) in self.blocks.range(range.start / BLOCK..end.div_ceil(BLOCK)) {
            let (from, to) = ((number * BLOCK).max(range.start), ((number + 1) * BLOCK).min(end));
            let place = (from - range.start) as usize..(to - range.start) as usize;
            data[place].copy_from_slice(
                &block[(from - number * BLOCK) as usize..(to - number * BLOCK) as usize],
            );
        }
        data
    }

    /// Makes a range zeros. If it ends past the content's end, the end moves there.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.clear(range.clone());
        self.len = self.len.max(range.end);
    }

    /// Makes a range zeros without moving the end.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        let touched = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let numbers: Vec<u64> = self.blocks.range(touched).map(|(number, _)| *number).collect();
        for number in numbers {
            let (start, end) = (number * BLOCK, (number + 1) * BLOCK);
            if range.start <= start && end <= range.end {
                self.blocks.remove(&number);
            } else if let Some(block) = self.blocks.get_mut(&number) {
                let (from, to) = (range.start.max(start), range.end.min(end));
                Arc::make_mut(block)[(from - start) as usize..(to - start) as usize].fill(0);
            }
        }
    }

    /// A content made from parts of this one, which are in order, cut off at its end.
    pub(super) fn parts(&self, ranges: &[Range<u64>]) -> Sparse {
        let mut parts = Sparse::default();
        for range in ranges {
            parts.copy_from(self, range.start, range.start, range.end - range.start);
        }
        parts.len = ranges.last().map_or(0, |last| last.end.min(self.len));
        parts
    }

    /// Copies bytes from another content, which reads as zeros past its end.
    pub(super) fn copy_from(&mut self, from: &Sparse, from_offset: u64, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.zero(offset..offset + len);
        let end = (from_offset + len).min(from.len);
        let mut at = from_offset;
        while let Some((number, _)) = from.blocks.range(at / BLOCK..).next() {
            at = at.max(number * BLOCK);
            if at >= end {
                return;
            }
            let stop = end.min(at + CHUNK - at % BLOCK);
            let data = from.read(at..stop);
            // A block of zeros need not be kept.
            if data.iter().any(|byte| *byte != 0) {
                self.write(offset + (at - from_offset), &data);
            }
            at = stop;
        }
    }
}
