//! The cache after other clients have changed the tree.

use std::collections::BTreeSet;

use xfer_protocol::{ContentId, Seq};

use super::{Cache, Entry};

impl Cache {
    /// Forgets all bytes but those of some contents, and goes on from op `applied`, which everything
    /// that is known is older than. Fetches in flight no longer count: their answers may be older.
    pub(in crate::core) fn rebase(&mut self, contents: &BTreeSet<ContentId>, applied: Seq) {
        let gone = self.chunks.iter().filter(|((content, _), _)| !contents.contains(content));
        let gone: Vec<_> = gone.map(|(key, _)| *key).collect();
        for key in gone {
            let entry = self.chunks.pop(&key);
            self.bytes -= entry.as_ref().map_or(0, Entry::memory);
        }
        self.fetches.clear();
        self.after.clear();
        self.acknowledge(applied);
    }

    /// The contents some bytes of which are known.
    #[cfg(feature = "planted-bugs")]
    pub(in crate::core) fn contents(&self) -> impl Iterator<Item = ContentId> {
        self.chunks.iter().map(|((content, _), _)| *content)
    }
}
