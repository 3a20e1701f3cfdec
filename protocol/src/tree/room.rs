//! Room on the server's disk: an upper bound on what an op takes up there, so that a client can
//! acknowledge the op before the server has it.
//!
//! Both sides count the room of a session's ops by the same rule. The server grants a *limit* on
//! the sum and only ever raises it; only the client lowers its own limit. So an op that the client
//! has acknowledged fits, whatever other sessions do meanwhile.

use serde::{Deserialize, Serialize};

use super::{Changes, ContentEffect, Delivery, DeliveryEffect, Usage};

/// A generous estimate of a node's row in the database beyond its charge, in bytes.
const NODE_BYTES: u64 = 1024;

/// The row of a delivery's item in the database, in bytes, without its name and attributes.
const ITEM_BYTES: u64 = 512;

/// An amount of disk space, free or taken up by ops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Room {
    /// Bytes of data and of rows.
    pub bytes: u64,
    /// Files on the server's disk: one for each content.
    pub files: u64,
}

/// A limit on the room that all ops of a session together may take up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limit {
    /// The limit itself.
    pub room: Room,
    /// How often the client has lowered the limit. Within one round it is only raised.
    pub round: u32,
}

impl Room {
    /// The most that an op takes up: growth of the charge, and copies that sharing had put off. Ops
    /// that shrink things, or change them in place, take up nothing.
    pub fn of(changes: &Changes, before: Usage) -> Room {
        let nodes = changes.usage.nodes.saturating_sub(before.nodes);
        let charged = changes.usage.bytes.saturating_sub(before.bytes);
        let copied: u64 = changes.contents.iter().map(copied).sum();
        let sent: u64 = changes.deliveries.iter().map(sent).sum();
        let bytes = charged.saturating_add(copied).saturating_add(sent);
        Room {
            bytes: bytes.saturating_add(nodes.saturating_mul(NODE_BYTES)),
            files: changes.contents.iter().filter(|effect| makes_file(effect)).count() as u64,
        }
    }

    /// Whether it is zero.
    pub fn is_none(self) -> bool {
        self == Room::default()
    }

    /// Whether `other` fits into it.
    pub fn covers(self, other: Room) -> bool {
        other.bytes <= self.bytes && other.files <= self.files
    }

    /// The sum of the two, saturating.
    #[must_use]
    pub fn plus(self, other: Room) -> Room {
        Room {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }

    /// The difference of the two, saturating at zero.
    #[must_use]
    pub fn less(self, other: Room) -> Room {
        Room {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }

    /// The smaller of each part.
    #[must_use]
    pub fn min(self, other: Room) -> Room {
        Room { bytes: self.bytes.min(other.bytes), files: self.files.min(other.files) }
    }

    /// The larger of each part.
    #[must_use]
    pub fn max(self, other: Room) -> Room {
        Room { bytes: self.bytes.max(other.bytes), files: self.files.max(other.files) }
    }

    /// One `by`th of each part, rounded down.
    #[must_use]
    pub fn divided(self, by: u64) -> Room {
        Room { bytes: self.bytes / by, files: self.files / by }
    }
}

/// Bytes that an effect writes although they were charged before.
fn copied(effect: &ContentEffect) -> u64 {
    match effect {
        ContentEffect::Clone { ranges, .. } => {
            ranges.iter().map(|range| range.end - range.start).sum()
        }
        ContentEffect::Create { .. }
        | ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Copy { .. }
        | ContentEffect::Free { .. } => 0,
    }
}

fn makes_file(effect: &ContentEffect) -> bool {
    match effect {
        ContentEffect::Create { .. } | ContentEffect::Clone { .. } => true,
        ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Copy { .. }
        | ContentEffect::Free { .. } => false,
    }
}

fn sent(effect: &DeliveryEffect) -> u64 {
    match effect {
        DeliveryEffect::Sent { delivery, .. } => rows(delivery),
        DeliveryEffect::Accepted(_) | DeliveryEffect::Declined(_) => 0,
    }
}

fn rows(delivery: &Delivery) -> u64 {
    let item =
        |item: &super::Item| ITEM_BYTES + item.name.as_bytes().len() as u64 + item.xattrs.bytes();
    delivery.items.iter().map(item).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContentId;

    fn usage(bytes: u64, nodes: u64) -> Usage {
        Usage { bytes, nodes }
    }

    #[test]
    fn growth_takes_up_room_and_what_makes_less_takes_up_none() {
        let grown = Changes { usage: usage(5000, 3), ..Changes::default() };
        let room = Room { bytes: 4000 + 2 * NODE_BYTES, files: 0 };
        assert_eq!(Room::of(&grown, usage(1000, 1)), room);
        assert!(Room::of(&grown, usage(9000, 9)).is_none());
    }

    #[test]
    fn a_copy_that_was_put_off_takes_up_its_data_and_a_file() {
        let (from, to) = (ContentId(1), ContentId(2));
        let contents = vec![
            ContentEffect::Clone { from, to, ranges: vec![0..10, 20..50] },
            ContentEffect::Write { content: to, offset: 0, len: 7 },
        ];
        let changes = Changes { contents, ..Changes::default() };
        assert_eq!(Room::of(&changes, usage(0, 0)), Room { bytes: 40, files: 1 });
    }
}
