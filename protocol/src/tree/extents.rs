//! Where a file has data: a set of allocated blocks.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::Runs;
use crate::limits::{BLOCK_BYTES, EXTENT_RUNS_MAX, FILE_BYTES_MAX};

/// The allocated blocks of a file. The rest are holes, which read as zeros.
///
/// Nearly every file is *dense* (every block up to its size is data) and needs no map at all.
/// Ranges here are in bytes; they are widened to whole blocks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Extents {
    /// Every block up to the file's size, and none beyond.
    #[default]
    Dense,
    /// Exactly these blocks, by number.
    Mapped(#[serde(deserialize_with = "checked_runs")] Arc<Runs>),
}

/// The blocks that the bytes of `range` touch.
fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

impl Extents {
    /// How many blocks are allocated in a file of `size` bytes.
    pub fn blocks(&self, size: u64) -> u64 {
        match self {
            Extents::Dense => size.div_ceil(BLOCK_BYTES),
            Extents::Mapped(map) => map.blocks(),
        }
    }

    /// The number of runs in the map: a measure of the memory that it takes.
    pub fn runs(&self) -> usize {
        match self {
            Extents::Dense => 0,
            Extents::Mapped(map) => map.len(),
        }
    }

    /// The first byte after the last allocated block of a file of `size` bytes.
    pub fn end(&self, size: u64) -> u64 {
        let end = match self {
            Extents::Dense => size.div_ceil(BLOCK_BYTES),
            Extents::Mapped(map) => map.last().map_or(0, |run| run.end),
        };
        end * BLOCK_BYTES
    }

    /// Whether the block that holds byte `offset` is allocated in a file of `size` bytes.
    pub fn contains(&self, size: u64, offset: u64) -> bool {
        let block = offset / BLOCK_BYTES;
        match self {
            Extents::Dense => block < size.div_ceil(BLOCK_BYTES),
            Extents::Mapped(map) => map.contains(block),
        }
    }

    /// The parts of `range` that are data, in order, in bytes, cut to `range`.
    pub fn data_in(&self, size: u64, range: Range<u64>) -> Vec<Range<u64>> {
        self.runs_in(size, range).collect()
    }

    /// The first byte at or after `offset` that is data (`SEEK_DATA`), if any is before `size`.
    pub fn next_data(&self, size: u64, offset: u64) -> Option<u64> {
        self.runs_in(size, offset..size).next().map(|run| run.start)
    }

    /// The first byte at or after `offset` that is in a hole (`SEEK_HOLE`); the end of the file
    /// counts as one.
    pub fn next_hole(&self, size: u64, offset: u64) -> u64 {
        match self.runs_in(size, offset..size).next() {
            Some(run) if run.start == offset => run.end,
            _ => offset,
        }
    }

    /// Allocates the blocks of `range` in a file whose size changes from `old_size` to `new_size`.
    ///
    /// If the map would grow too large, a neighbouring hole becomes data too and is returned, in
    /// bytes. The content may hold anything there, so the caller must zero it.
    #[must_use]
    pub fn insert(
        &mut self,
        old_size: u64,
        new_size: u64,
        range: Range<u64>,
    ) -> Option<Range<u64>> {
        let blocks = blocks_of(&range);
        let dense_end = old_size.div_ceil(BLOCK_BYTES);
        if matches!(self, Extents::Dense)
            && blocks.start <= dense_end
            && blocks.end.max(dense_end) == new_size.div_ceil(BLOCK_BYTES)
        {
            return None;
        }
        let mut filled = None;
        if !blocks.is_empty() && !self.covers(&blocks) {
            let map = self.map_mut(old_size);
            map.insert(blocks.clone());
            if map.len() > EXTENT_RUNS_MAX {
                filled = fill_hole_beside(map, &blocks);
            }
        } else if old_size.div_ceil(BLOCK_BYTES) != new_size.div_ceil(BLOCK_BYTES) {
            self.map_mut(old_size);
        }
        self.simplify(new_size);
        filled.map(|hole| hole.start * BLOCK_BYTES..hole.end * BLOCK_BYTES)
    }

    /// Frees the whole blocks within `range` in a file of `size` bytes.
    ///
    /// Returns `false` if the map has no room for the hole. Then all of `range` stays data, and the
    /// caller must zero it.
    #[must_use]
    pub fn remove(&mut self, size: u64, range: Range<u64>) -> bool {
        let blocks = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
        if blocks.start >= blocks.end {
            return true;
        }
        let map = self.map_mut(size);
        let splits = |run: &Range<u64>| run.start < blocks.start && blocks.end < run.end;
        if map.len() >= EXTENT_RUNS_MAX && map.overlapping(blocks.clone()).any(splits) {
            return false;
        }
        map.remove(blocks);
        self.simplify(size);
        true
    }

    /// Sets the size. Shrinking frees every block beyond it; growing adds a hole.
    pub fn resize(&mut self, old_size: u64, new_size: u64) {
        let (old_end, new_end) = (old_size.div_ceil(BLOCK_BYTES), new_size.div_ceil(BLOCK_BYTES));
        if new_end > old_end {
            self.map_mut(old_size);
        }
        if let Extents::Mapped(_) = self {
            if new_size <= old_size {
                self.map_mut(old_size).remove(new_end..u64::MAX);
            }
            self.simplify(new_size);
        }
    }

    fn runs_in(&self, size: u64, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let (dense, mapped) = match self {
            Extents::Dense => (Some(0..size.div_ceil(BLOCK_BYTES)), None),
            Extents::Mapped(map) => (None, Some(map.overlapping(blocks_of(&range)).cloned())),
        };
        let cut = move |run: Range<u64>| {
            let part =
                (run.start * BLOCK_BYTES).max(range.start)..(run.end * BLOCK_BYTES).min(range.end);
            (part.start < part.end).then_some(part)
        };
        dense.into_iter().chain(mapped.into_iter().flatten()).filter_map(cut)
    }

    /// Whether a map already has all of these blocks, and so need not be copied for a change.
    fn covers(&self, blocks: &Range<u64>) -> bool {
        match self {
            Extents::Dense => false,
            Extents::Mapped(map) => map
                .overlapping(blocks.clone())
                .next()
                .is_some_and(|run| run.start <= blocks.start && blocks.end <= run.end),
        }
    }

    fn map_mut(&mut self, size: u64) -> &mut Runs {
        if let Extents::Dense = self {
            let end = size.div_ceil(BLOCK_BYTES);
            *self = Extents::Mapped(Arc::new((end > 0).then_some(0..end).into_iter().collect()));
        }
        match self {
            Extents::Mapped(map) => Arc::make_mut(map),
            Extents::Dense => unreachable!("made a map just above"),
        }
    }

    /// Equal sets must be equal values, since both sides' rows are compared bit for bit.
    fn simplify(&mut self, size: u64) {
        let end = size.div_ceil(BLOCK_BYTES);
        let Extents::Mapped(map) = self else { return };
        if map.iter().eq((end > 0).then_some(&(0..end))) {
            *self = Extents::Dense;
        }
    }
}

/// Decodes a map from a peer or a store; an error if the rules could not have made it.
fn checked_runs<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Runs>, D::Error> {
    let runs = Vec::<(u64, u64)>::deserialize(from)?;
    let apart = runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
    let valid = |(start, end): &(u64, u64)| start < end && *end <= FILE_BYTES_MAX / BLOCK_BYTES;
    if runs.len() > EXTENT_RUNS_MAX || !apart || !runs.iter().all(valid) {
        return Err(D::Error::custom("not a map of extents"));
    }
    Ok(Arc::new(runs.into_iter().map(|(start, end)| start..end).collect()))
}

/// Joins the run `blocks` with the run before it (with the one after it, if it is the first), and
/// returns the hole between them.
fn fill_hole_beside(map: &mut Runs, blocks: &Range<u64>) -> Option<Range<u64>> {
    let before = map.beginning_before(blocks.start).map(|run| run.end);
    let after = map.ending_after(blocks.end).next().map(|run| run.start);
    let hole = match (before, after) {
        (Some(end), _) => end..blocks.start,
        (None, Some(start)) => blocks.end..start,
        (None, None) => return None,
    };
    map.insert(hole.clone());
    Some(hole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::FileData;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const B: u64 = BLOCK_BYTES;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u64),
        Punch(u64, u64),
        Resize(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20 * B, 1..4 * B).prop_map(|(o, l)| Step::Write(o, l)),
            (0..20 * B, 1..6 * B).prop_map(|(o, l)| Step::Punch(o, l)),
            (0..24 * B).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn extents_agree_with_a_plain_set_of_blocks(
            steps in prop::collection::vec(step(), 0..40),
            start in 0..24 * B,
            len in 0..2 * B,
        ) {
            let (mut extents, mut size, mut set) = (Extents::Dense, 0u64, BTreeSet::new());
            for step in steps {
                match step {
                    Step::Write(o, l) => {
                        let new_size = size.max(o + l);
                        prop_assert_eq!(extents.insert(size, new_size, o..o + l), None);
                        size = new_size;
                        set.extend(o / B..(o + l).div_ceil(B));
                    }
                    Step::Punch(o, l) => {
                        prop_assert!(extents.remove(size, o..o + l));
                        let whole = o.div_ceil(B)..(o + l) / B;
                        set.retain(|block| !whole.contains(block));
                    }
                    Step::Resize(to) => {
                        extents.resize(size, to);
                        if to <= size {
                            set.retain(|block| *block < to.div_ceil(B));
                        }
                        size = to;
                    }
                }
                prop_assert_eq!(extents.blocks(size), set.len() as u64);
                for block in 0..26 {
                    prop_assert_eq!(extents.contains(size, block * B), set.contains(&block));
                }
                let dense = set.iter().copied().eq(0..size.div_ceil(B));
                prop_assert_eq!(dense, extents == Extents::Dense, "one value for one set");
                let first = (0..size).step_by(B as usize).find(|o| set.contains(&(o / B)));
                prop_assert_eq!(extents.next_data(size, 0), first);
                for range in [start..start + len, size.saturating_sub(len)..size, 0..size + 1] {
                    let is_data = range.clone().all(|at| at < size && set.contains(&(at / B)));
                    let data = FileData { size, extents: extents.clone(), ..FileData::default() };
                    prop_assert_eq!(data.is_data(&range), is_data, "{:?} of {:?}", range, data);
                }
            }
        }
    }
}
