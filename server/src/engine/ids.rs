//! The numbers that a session may use for new nodes, contents and deliveries.
//!
//! **Invariant:** a number names one thing on a server for ever: it is used only if it was granted
//! to this session, and only once. The rules rely on it: they take a number that nobody loaded for
//! one that nobody has used.

use rangemap::RangeSet;
use xfer_protocol::tree::{Changes, ContentEffect, DeliveryEffect, Loaded, Rows};
use xfer_protocol::{Errno, IdRange};

/// How many times a session may be granted more numbers.
const GRANTS_MAX: usize = 1024;

/// What was granted to a session, and what of it is used.
#[derive(Debug)]
pub(super) struct Ids {
    granted: Vec<IdRange>,
    /// Clients use numbers in order, more or less, so this stays a few runs.
    used: RangeSet<u64>,
}

impl Ids {
    pub(super) fn new(range: IdRange) -> Ids {
        Ids { granted: vec![range], used: RangeSet::new() }
    }

    /// Whether the session may be granted more.
    pub(super) fn may_grow(&self) -> bool {
        self.granted.len() < GRANTS_MAX
    }

    pub(super) fn grow(&mut self, range: IdRange) {
        self.granted.push(range);
    }

    pub(super) fn was_granted(&self, id: u64) -> bool {
        self.granted.iter().any(|range| range.contains(id))
    }

    /// Uses the numbers of all that `changes` bring into being, or none of them if one may not be.
    pub(super) fn admit(&mut self, rows: &dyn Rows, changes: &Changes) -> Result<(), Errno> {
        let mut new = RangeSet::new();
        for id in new_ids(rows, changes) {
            if !self.was_granted(id) || self.used.contains(&id) || new.contains(&id) {
                return Err(Errno::EINVAL);
            }
            new.insert(id..id + 1);
        }
        self.used.extend(new);
        Ok(())
    }
}

/// A node that existed was loaded before the rules changed it, so all others are new.
fn new_ids<'a>(rows: &'a dyn Rows, changes: &'a Changes) -> impl Iterator<Item = u64> + 'a {
    let nodes = changes
        .nodes
        .iter()
        .filter(|(ino, node)| node.is_some() && !matches!(rows.node(*ino), Loaded::Present(_)))
        .map(|(ino, _)| ino.0);
    let contents = changes.contents.iter().filter_map(|effect| match effect {
        ContentEffect::Create { content } | ContentEffect::Clone { to: content, .. } => {
            Some(content.0)
        }
        ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Copy { .. }
        | ContentEffect::Free { .. } => None,
    });
    let deliveries = changes.deliveries.iter().filter_map(|effect| match effect {
        DeliveryEffect::Sent { delivery, .. } => Some(delivery.id.0),
        DeliveryEffect::Accepted(_) | DeliveryEffect::Declined(_) => None,
    });
    nodes.chain(contents).chain(deliveries)
}
