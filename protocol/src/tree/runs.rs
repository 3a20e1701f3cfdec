//! Sets of blocks as runs, designed for many small changes to large sets.
//!
//! Rows are never changed in place: each write makes a new map of its file beside the old one. So the runs
//! are kept in chunks that the old and the new map share. A change copies only the chunks that it touches,
//! so its cost does not grow with the map. Runs and blocks are counted as they change, not summed.
//!
//! **Invariant:** runs are in order, not empty, and apart: touching runs are merged. Equal sets are
//! equal values, whatever their chunks.

use std::ops::Range;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeSeq, Serializer};

/// The most runs in a chunk.
const CHUNK_MAX: usize = 256;

/// A set of blocks, by number.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// No chunk is empty.
    chunks: Vec<Arc<Vec<Range<u64>>>>,
    len: usize,
    blocks: u64,
}

impl Runs {
    /// The number of runs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of blocks in all runs.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// All runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The last run.
    pub fn last(&self) -> Option<&Range<u64>> {
        self.chunks.last()?.last()
    }

    /// The runs that end after `block`, in order.
    pub fn ending_after(&self, block: u64) -> impl Iterator<Item = &Range<u64>> {
        let chunk = self.chunks.partition_point(|chunk| end_of(chunk) <= block);
        let runs = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk[..]);
        let run = runs.partition_point(|run| run.end <= block);
        let rest = self.chunks.iter().skip(chunk + 1).flat_map(|chunk| chunk.iter());
        runs[run..].iter().chain(rest)
    }

    /// The runs that have blocks in `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = &Range<u64>> {
        self.ending_after(range.start).take_while(move |run| run.start < range.end)
    }

    /// The last run that begins before `block`.
    pub fn beginning_before(&self, block: u64) -> Option<&Range<u64>> {
        let chunk = self.chunks.partition_point(|chunk| start_of(chunk) < block).checked_sub(1)?;
        let runs = &self.chunks[chunk];
        runs.get(runs.partition_point(|run| run.start < block).checked_sub(1)?)
    }

    /// Whether a block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        self.ending_after(block).next().is_some_and(|run| run.start <= block)
    }

    /// Adds blocks.
    pub fn insert(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            let joined = |span: Range<u64>| range.start.min(span.start)..range.end.max(span.end);
            self.replace(&range, |span| [joined(span), 0..0]);
        }
    }

    /// Removes blocks.
    pub fn remove(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.replace(&range, |span| [span.start..range.start, range.end..span.end]);
        }
    }

    /// Replaces the runs that overlap or touch `range` by `with(span)`, where `span` covers all of
    /// them. Without any, `span` is empty and at the range's start.
    fn replace(&mut self, range: &Range<u64>, with: impl FnOnce(Range<u64>) -> [Range<u64>; 2]) {
        let mut first = self.chunks.partition_point(|chunk| end_of(chunk) < range.start);
        let mut behind = self.chunks.partition_point(|chunk| start_of(chunk) <= range.end);
        if first == behind {
            // Between two chunks, or beyond them all: use a neighbouring chunk.
            first = first.saturating_sub(1);
            behind = (first + 1).min(self.chunks.len());
        }
        let (before, span, after) = divide(&self.chunks[first..behind], range);
        let new = with(span).into_iter().filter(|run| !run.is_empty());
        let mut merged: Vec<Range<u64>> = before.iter().cloned().chain(new).collect();
        merged.extend_from_slice(after);
        // Merge a small chunk with the next one, so that removals don't leave many tiny chunks.
        if merged.len() < CHUNK_MAX / 4 && behind < self.chunks.len() {
            merged.extend_from_slice(&self.chunks[behind]);
            behind += 1;
        }
        let old = self.chunks[first..behind].iter().flat_map(|chunk| chunk.iter());
        self.len -= old.clone().count();
        self.blocks -= old.map(blocks_of).sum::<u64>();
        self.len += merged.len();
        self.blocks += merged.iter().map(blocks_of).sum::<u64>();
        let parts = merged.len().div_ceil(CHUNK_MAX).max(1);
        let chunks = merged.chunks(merged.len().div_ceil(parts).max(1));
        self.chunks.splice(first..behind, chunks.map(|chunk| Arc::new(chunk.to_vec())));
    }

    /// Adds a run after all others, which it must not touch.
    fn append(&mut self, run: Range<u64>) {
        self.len += 1;
        self.blocks += blocks_of(&run);
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_MAX) {
            Some(chunk) => Arc::make_mut(chunk).push(run),
            None => self.chunks.push(Arc::new(vec![run])),
        }
    }
}

/// The runs of `chunks` before those that overlap or touch `range`, the span of the latter, and the
/// runs after them. Only the first chunk has runs before, and only the last has runs after.
fn divide<'a>(
    chunks: &'a [Arc<Vec<Range<u64>>>],
    range: &Range<u64>,
) -> (&'a [Range<u64>], Range<u64>, &'a [Range<u64>]) {
    let (head, tail): (&[_], &[_]) = match chunks {
        [] => (&[], &[]),
        [one] => (one, one),
        [head, .., tail] => (head, tail),
    };
    let before = head.partition_point(|run| run.end < range.start);
    let after = tail.partition_point(|run| run.start <= range.end);
    let start = head.get(before).filter(|run| run.start <= range.end).map(|run| run.start);
    let end = after.checked_sub(1).map(|last| tail[last].end).filter(|end| *end >= range.start);
    let span = start.zip(end).map_or(range.start..range.start, |(start, end)| start..end);
    (&head[..before], span, &tail[after..])
}

fn blocks_of(run: &Range<u64>) -> u64 {
    run.end - run.start
}

fn start_of(chunk: &[Range<u64>]) -> u64 {
    chunk.first().map_or(0, |run| run.start)
}

fn end_of(chunk: &[Range<u64>]) -> u64 {
    chunk.last().map_or(0, |run| run.end)
}

impl PartialEq for Runs {
    fn eq(&self, other: &Runs) -> bool {
        self.len == other.len && self.blocks == other.blocks && self.iter().eq(other.iter())
    }
}

impl Eq for Runs {}

impl FromIterator<Range<u64>> for Runs {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Runs {
        let mut runs = Runs::default();
        for range in ranges {
            if range.start < range.end && runs.last().is_none_or(|last| last.end < range.start) {
                runs.append(range);
            } else {
                runs.insert(range);
            }
        }
        runs
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut runs = to.serialize_seq(Some(self.len))?;
        for run in self.iter() {
            runs.serialize_element(&(run.start, run.end))?;
        }
        runs.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The blocks that the tests use: enough for a few chunks.
    const BLOCKS: u64 = 3000;

    /// Checks all invariants of runs, and that they have exactly the blocks of `set`.
    fn check(runs: &Runs, set: &BTreeSet<u64>) {
        assert!(runs.iter().flat_map(Range::clone).eq(set.iter().copied()));
        assert!(runs.iter().all(|run| !run.is_empty()));
        assert!(runs.iter().zip(runs.iter().skip(1)).all(|(one, next)| one.end < next.start));
        assert!(runs.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
        assert_eq!((runs.len(), runs.blocks()), (runs.iter().count(), set.len() as u64));
        assert_eq!(runs.last(), runs.iter().last());
        assert_eq!(*runs, runs.iter().cloned().collect());
    }

    fn check_questions(runs: &Runs, range: Range<u64>) {
        let all = || runs.iter();
        let overlaps = |run: &&Range<u64>| run.start < range.end && range.start < run.end;
        assert!(runs.overlapping(range.clone()).eq(all().filter(overlaps)));
        assert!(runs.ending_after(range.start).eq(all().filter(|run| run.end > range.start)));
        let before = all().filter(|run| run.start < range.start).last();
        assert_eq!(runs.beginning_before(range.start), before);
        let contained = all().any(|run| run.contains(&range.start));
        assert_eq!(runs.contains(range.start), contained);
    }

    fn range() -> impl Strategy<Value = Range<u64>> {
        let len = prop_oneof![4 => 0..4u64, 1 => 0..BLOCKS];
        (0..BLOCKS, len).prop_map(|(start, len)| start..start + len)
    }

    proptest! {
        #[test]
        fn runs_agree_with_a_plain_set_of_blocks(
            every in 2..8usize,
            steps in prop::collection::vec((any::<bool>(), range()), 0..60),
        ) {
            let mut set: BTreeSet<u64> = (0..BLOCKS).step_by(every).collect();
            let mut runs: Runs = set.iter().map(|block| *block..block + 1).collect();
            for (added, range) in steps {
                let old = runs.clone();
                let before = set.clone();
                if added {
                    runs.insert(range.clone());
                    set.extend(range.clone());
                } else {
                    runs.remove(range.clone());
                    set.retain(|block| !range.contains(block));
                }
                check(&runs, &set);
                check_questions(&runs, range);
                check(&old, &before);
            }
        }
    }

    #[test]
    fn a_change_copies_what_it_touches_and_shares_the_rest() {
        let old: Runs = (0..65_536).map(|run| 2 * run..2 * run + 1).collect();
        let mut new = old.clone();
        new.insert(70_001..70_002);
        new.remove(90_000..90_001);
        let shared = |chunk: &&Arc<Vec<_>>| old.chunks.iter().any(|one| Arc::ptr_eq(one, chunk));
        assert!(new.chunks.len() - new.chunks.iter().filter(shared).count() <= 3);
    }

    #[test]
    fn chunks_that_lost_most_of_their_runs_join() {
        let mut runs: Runs = (0..65_536).map(|run| 2 * run..2 * run + 1).collect();
        for chunk in 0..256 {
            runs.remove(512 * chunk + 2..512 * (chunk + 1));
        }
        assert_eq!(runs.len(), 256);
        assert!(runs.chunks.len() < 16, "{} chunks", runs.chunks.len());
    }
}
