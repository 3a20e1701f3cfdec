//! Fetching ahead for programs that read one small file after another, as `grep -r` and `cp -r` do.
//!
//! Readahead within a file does not help them: each file would cost a round trip. So once reads of
//! small files have to wait one after the other, the files that the program will reach next are
//! fetched with them. Later reads show whether a guess was right. After wrong guesses, more reads
//! have to wait before the next guess.
//!
//! This file decides when to guess, and how many bytes; [`super::ahead`] finds the files.
//! Directories are not loaded for this: only files in loaded ones are fetched.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use xfer_protocol::ContentId;

/// The bytes that are fetched ahead at first, and at most.
const WINDOW_BYTES: RangeInclusive<u64> = (64 << 10)..=(1 << 20);

/// The most reads that must wait, after wrong guesses, before the next guess.
const PATIENCE_MAX: u32 = 64;

/// The guesses so far, and how well they came true.
#[derive(Debug, Default)]
pub(in crate::core) struct Walk {
    /// Contents that were fetched ahead and not read yet.
    ahead: BTreeSet<ContentId>,
    /// The number of those right after the last guess.
    guessed: usize,
    /// The bytes that the last guess could fetch. The next one may fetch twice as many.
    window: u64,
    /// The reads that had to wait since the last guess, and were not guessed.
    misses: u32,
    /// The next guess is made when `misses` exceeds this, but not at the first miss.
    patience: u32,
}

impl Walk {
    /// Notes that a small file is read from its start, and whether that read has to wait. Returns
    /// how many bytes of other files to fetch now.
    pub(super) fn note(&mut self, content: ContentId, waits: bool) -> u64 {
        if self.ahead.remove(&content) {
            if self.most_are_unread() {
                return 0;
            }
            // At least half of the guess came true. The next files are fetched now, before the
            // program has read the rest.
            self.patience = 0;
            return self.widen();
        }
        if !waits {
            return 0;
        }
        // The program reads something else while most of the guess is unread: the guess was wrong.
        if self.most_are_unread() {
            self.ahead.clear();
            self.window = 0;
            self.misses = 0;
            self.patience = (self.patience * 2).clamp(1, PATIENCE_MAX);
        }
        self.misses += 1;
        if self.misses > self.patience.max(1) { self.widen() } else { 0 }
    }

    fn most_are_unread(&self) -> bool {
        // False without a guess: then both are 0.
        self.ahead.len() * 2 > self.guessed
    }

    fn widen(&mut self) -> u64 {
        self.window = (self.window * 2).clamp(*WINDOW_BYTES.start(), *WINDOW_BYTES.end());
        self.window
    }

    /// Notes the contents that are fetched ahead now. Unread ones of the guess before count too.
    pub(super) fn guess(&mut self, contents: impl Iterator<Item = ContentId>) {
        self.ahead.extend(contents);
        self.guessed = self.ahead.len();
        self.misses = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads contents one after the other. Each read waits, except those of contents that were
    /// guessed.
    fn read(walk: &mut Walk, contents: std::ops::Range<u64>) -> Vec<u64> {
        contents.map(|content| walk.note(ContentId(content), true)).collect()
    }

    fn guess(walk: &mut Walk, contents: std::ops::Range<u64>) {
        walk.guess(contents.map(ContentId));
    }

    #[test]
    fn one_file_is_no_walk() {
        assert_eq!(read(&mut Walk::default(), 0..1), [0]);
    }

    #[test]
    fn the_second_file_that_waits_begins_a_walk_and_the_window_grows_as_guesses_come_true() {
        let mut walk = Walk::default();
        assert_eq!(read(&mut walk, 0..2), [0, 64 << 10]);
        guess(&mut walk, 2..6);
        // Half of them are read: time for more.
        assert_eq!(read(&mut walk, 2..4), [0, 128 << 10]);
        guess(&mut walk, 6..10);
        let windows: Vec<u64> = (0..6).map(|_| walk.widen()).collect();
        assert!(windows.is_sorted());
        assert_eq!(windows.last(), Some(WINDOW_BYTES.end()));
    }

    #[test]
    fn what_is_known_already_is_no_reason_to_guess() {
        let mut walk = Walk::default();
        assert!((0..100).all(|content| walk.note(ContentId(content), false) == 0));
    }

    #[test]
    fn whoever_reads_files_at_random_gets_ever_fewer_guesses() {
        let mut walk = Walk::default();
        let mut guesses = Vec::new();
        for content in 0..1000 {
            if walk.note(ContentId(content), true) > 0 {
                guesses.push(content);
                guess(&mut walk, 10_000 + 10 * content..10_010 + 10 * content);
            }
        }
        let gaps: Vec<u64> = guesses.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(guesses.len() < 30, "{guesses:?}");
        assert!(gaps.last() > gaps.first(), "{gaps:?}");
    }
}
