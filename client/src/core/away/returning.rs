//! Coming back to a seat after other clients have changed the tree.
//!
//! The session goes on with what a new one would begin with. What is known of nodes that nobody has
//! changed stays known. Changes that this client made and that did not get to the server are gone by
//! then: the drive has kept them elsewhere.

use std::collections::BTreeSet;

use xfer_protocol::message::{Changed, Refusal, Return};
use xfer_protocol::{ContentId, Ino, Seq};

use super::trace::Trace;
use crate::core::inbox::Inbox;
use crate::core::link::{Ending, Link};
use crate::core::state::Core;
use crate::core::uplink::{Astray, Uplink, can_be_granted};

impl Core {
    /// Notes the last op of this client that the server has applied. Returns the later ones, which it
    /// will never apply. An error ends the session.
    pub(crate) fn cut_off(&mut self, base: Seq) -> Result<Vec<Trace>, Ending> {
        self.uplink.log.check(base).map_err(|astray| match astray {
            Astray::Behind => Ending::Refused(Refusal::RolledBack),
            Astray::Ahead => Ending::Misbehaved("applied what it was not sent"),
        })?;
        self.uplink.log.resume(base, self.now.monotonic);
        self.uplink.log.rewind();
        self.replica.table.mark_durable(base);
        self.data.cache.acknowledge(base);
        Ok(self.trace(base, &mut BTreeSet::new()))
    }

    /// Goes on after other clients have changed the tree, without the changes that were cut off. An
    /// error ends the session; nothing has changed then.
    pub(crate) fn come_back(&mut self, back: &Return) -> Result<(), Ending> {
        let Return { grant, base, changed } = back;
        match &self.session.link {
            Link::Down { .. } => {}
            // It ended while the server was asked.
            Link::Over(ending) => return Err(ending.clone()),
            Link::Up => return Err(Ending::Misbehaved("continued a session that has its link")),
        }
        if grant.applied < *base || !can_be_granted(&grant.ids) || grant.user != self.user {
            return Err(Ending::Misbehaved("granted what can't be"));
        }
        match changed {
            Changed::Nodes(changed) if self.pending().0 == 0 => self.forget_nodes(changed),
            Changed::Nodes(_) | Changed::All => self.replica.table.forget_all(),
        }
        self.replica.table.rebase(grant.usage, grant.quota, grant.applied);
        let contents = self.known_contents();
        self.data.rebase(&contents, grant.applied);
        self.uplink = Uplink::new(grant, self.uplink.log.bytes_max());
        self.kept.give_up();
        self.outbox.begin_again(&grant.users);
        self.inbox = Inbox::new(&grant.deliveries);
        self.session.link = Link::Up;
        self.session.tenure += 1;
        self.take_seat();
        Ok(())
    }

    /// Forgets what is known of these nodes.
    fn forget_nodes(&mut self, changed: &[Ino]) {
        changed.iter().for_each(|ino| self.replica.table.forget(*ino));
    }

    /// The contents of all files that are known.
    fn known_contents(&self) -> BTreeSet<ContentId> {
        self.replica.table.known_nodes().filter_map(|node| node.content()).collect()
    }

    /// Removes the nodes without names that the kernel forgot while there was no seat.
    pub(in crate::core) fn drop_forgotten(&mut self) {
        let table = &self.replica.table;
        let forgotten = table.pinned().filter(|ino| !self.handles.kernel.knows(*ino));
        let forgotten: Vec<Ino> = forgotten.collect();
        forgotten.into_iter().for_each(|ino| self.drop_orphan(Some(ino)));
    }
}
