//! Coming back to a seat after other clients have changed the tree.
//!
//! The session goes on with what a new one would begin with. What is known of unchanged nodes stays
//! known. Changes that this client made and that did not get to the server are gone by
//! then: the drive has kept them elsewhere.

use std::collections::BTreeSet;

use xfer_protocol::message::{Changed, Return};
use xfer_protocol::tree::Action;
use xfer_protocol::{ContentId, Errno, Ino, Seq};

use super::trace::Trace;
use crate::core::link::{Ending, Link};
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;
use crate::core::uplink::Uplink;

/// A place in the log: after an op that this client has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Since others have changed the tree so often.
    tenure: usize,
    seq: Seq,
}

impl Position {
    /// The op.
    pub fn seq(self) -> Seq {
        self.seq
    }
}

impl Core {
    /// The place after the last change.
    pub fn position(&self) -> Position {
        Position { tenure: self.tenure(), seq: self.uplink.log.last() }
    }

    /// How often others have changed the tree.
    pub(crate) fn tenure(&self) -> usize {
        self.session.bases.len()
    }

    /// Whether everything up to a place is durable. `EIO` if something before it never will be, since
    /// others have changed the tree first.
    pub(in crate::core) fn is_durable(&self, position: Position) -> Result<bool, Stop> {
        match self.session.bases.get(position.tenure) {
            None => Ok(self.uplink.log.durable() >= position.seq),
            Some(base) if *base >= position.seq => Ok(true),
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    /// Has everything up to a place committed soon, if it is not given up.
    pub(in crate::core) fn hasten(&mut self, position: Position) {
        if position.tenure == self.tenure() {
            self.uplink.barrier = self.uplink.barrier.max(position.seq);
        }
    }

    /// The place after an op of the present log.
    pub(crate) fn position_at(&self, seq: Seq) -> Position {
        Position { tenure: self.tenure(), seq }
    }

    /// Notes the last op of this client that the server has applied. Returns the later ones, which it
    /// will never apply. An error ends the session.
    pub(crate) fn cut_off(&mut self, base: Seq) -> Result<Vec<Trace>, Ending> {
        self.must_fit(base)?;
        self.uplink.log.resume(base, self.now.monotonic);
        self.uplink.log.rewind();
        self.replica.table.mark_durable(base);
        self.data.cache.acknowledge(base);
        let trace = self.trace_after(base, &BTreeSet::new()).0;
        self.remember_orphans(&trace);
        Ok(trace)
    }

    /// Notes that what was cut off is rescued. Each open handle of these nodes says once that changes
    /// were lost.
    pub(crate) fn note_rescued(&mut self, nodes: &BTreeSet<Ino>) {
        self.session.rescued = Some(self.position());
        self.handles.note_lost(nodes);
    }

    /// Whether everything that was cut off is rescued.
    pub(crate) fn is_rescued(&self) -> bool {
        self.session.rescued == Some(self.position())
    }

    /// Notes the nodes whose removal was cut off, since nothing else remembers them.
    fn remember_orphans(&mut self, cut_off: &[Trace]) {
        for change in cut_off.iter().filter_map(Trace::change) {
            if let Action::ForgetOrphan { ino } = change.op.action {
                self.replica.unremoved.insert(ino);
            }
        }
    }

    /// Goes on after other clients have changed the tree, without the changes that were cut off. An
    /// error ends the session; nothing has changed then.
    pub(crate) fn come_back(&mut self, back: &Return) -> Result<(), Ending> {
        let Return { grant, base, changed } = back;
        self.may_go_on(grant)?;
        if grant.applied < *base {
            return Err(Ending::Misbehaved("has applied less than before"));
        }
        match changed {
            Changed::Nodes(changed) if self.pending().0 == 0 => self.forget_nodes(changed),
            Changed::Nodes(_) | Changed::All => self.replica.table.forget_all(),
        }
        self.replica.table.rebase(grant.usage, grant.quota, grant.applied);
        let contents = self.kept_contents();
        self.data.rebase(&contents, grant.applied);
        self.uplink = Uplink::new(grant, self.uplink.log.bytes_max());
        self.kept.give_up();
        self.outbox.begin_again(&grant.users);
        self.inbox.begin_again(&grant.deliveries);
        self.session.link = Link::Up;
        self.session.bases.push(*base);
        self.take_seat();
        Ok(())
    }

    /// Forgets what is known of these nodes.
    fn forget_nodes(&mut self, changed: &[Ino]) {
        changed.iter().for_each(|ino| self.replica.table.forget(*ino));
    }

    /// The contents whose cached bytes are kept: those of all files that are known.
    fn kept_contents(&self) -> BTreeSet<ContentId> {
        #[cfg(feature = "planted-bugs")]
        if self.has(crate::core::Bug::KeepsOldBytes) {
            return self.data.cache.contents().collect();
        }
        self.replica.table.known_nodes().filter_map(|node| node.content()).collect()
    }

    /// Removes the nodes without names that the kernel forgot while there was no seat, or whose removal
    /// was cut off. The rows of the others are loaded again, since a node that is not loaded is not
    /// recognised as an orphan when the kernel forgets it.
    pub(crate) fn drop_forgotten(&mut self) -> Result<(), Stop> {
        let open = self.handles.open_nodes();
        let noted = self.replica.table.pinned().chain(self.replica.unremoved.iter().copied());
        let noted: BTreeSet<Ino> = noted.filter(|ino| *ino != Ino::ROOT).collect();
        let mut needs = Vec::new();
        for ino in noted {
            let is_kept = self.handles.kernel.knows(ino) || open.contains(&ino);
            match self.node(ino) {
                Ok(_) if is_kept && !self.replica.unremoved.contains(&ino) => {}
                // It may have a name, or be gone, since others have changed the tree.
                Ok(_) | Err(Stop::Refused(_)) => {
                    self.drop_orphan(Some(ino));
                    self.replica.unremoved.remove(&ino);
                }
                Err(Stop::Pause(Pause::Rows(rows))) => needs.extend(rows),
                Err(pause) => return Err(pause),
            }
        }
        if needs.is_empty() { Ok(()) } else { Err(Pause::Rows(needs).into()) }
    }
}
