//! Reclaiming the space that a commit made unreachable.

use xfer_protocol::tree::{Loaded, Need, Rows};
use xfer_protocol::{ContentId, Seq};
use xfer_store::Effect;

use super::{Tree, unused_parts};
use crate::engine::tree::batch::Free;

/// The space to be reclaimed after a commit.
#[derive(Default)]
pub(crate) struct Reclaimed {
    /// The effects that reclaim it.
    pub(crate) effects: Vec<Effect>,
    /// Contents that the batch noted as having parts to be reclaimed.
    noted: Vec<ContentId>,
}

impl Tree {
    /// Notes that the batch taken last is durable.
    pub(crate) fn mark_durable(&mut self, seq: Seq) {
        self.table.mark_durable_in_store(seq);
        self.room.note_durable(self.in_flight.used);
        self.copied.retain(|_, last| *last > seq);
        self.trim();
    }

    /// Returns the space that the batch made unreachable and that no later op reaches.
    ///
    /// # Errors
    /// If rows must be loaded first.
    pub(crate) fn unreachable(&mut self) -> Result<Reclaimed, Vec<Need>> {
        let is_unknown = |free: &&Free| self.table.node(free.ino) == Loaded::Unknown;
        let mut needs: Vec<_> = self.in_flight.frees.iter().filter(is_unknown).collect();
        needs.sort_unstable_by_key(|free| free.ino);
        needs.dedup_by_key(|free| free.ino);
        if !needs.is_empty() {
            return Err(needs.into_iter().map(|free| Need::Node(free.ino)).collect());
        }
        let in_flight = std::mem::take(&mut self.in_flight);
        let mut reclaimed = Reclaimed::default();
        let stillborn = in_flight.stillborn.into_iter();
        reclaimed.effects.extend(stillborn.map(|content| Effect::Remove { content }));
        for free in in_flight.frees {
            let owner = self.owner(&free);
            if owner.as_ref().is_some_and(|data| data.sealed) {
                // The content was shared meanwhile by an op that is not committed yet. It is noted
                // with the batch of that op.
                self.pending.dropped.insert(free.content);
                continue;
            }
            reclaimed.noted.push(free.content);
            let parts = owner.map_or(Vec::new(), |data| unused_parts(&free, &data)).into_iter();
            reclaimed
                .effects
                .extend(parts.map(|Free { content, range, .. }| Effect::Free { content, range }));
        }
        Ok(reclaimed)
    }

    /// Notes that the space was reclaimed, so that the next batch records it.
    pub(crate) fn note_reclaimed(&mut self, reclaimed: Reclaimed) {
        self.pending.freed.extend(reclaimed.noted);
    }
}
