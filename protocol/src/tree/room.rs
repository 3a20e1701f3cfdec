//! Room on the server's disk: what an op takes up there at most, so that a client can answer for it
//! before the server has it.
//!
//! Both sides count what a session's ops take up, by the same rule. The server grants a *limit* on
//! that sum and only ever raises it; only the client lowers its own. So what a client acknowledged
//! fits, whatever other sessions do meanwhile.

use serde::{Deserialize, Serialize};

use super::{Changes, ContentEffect, Delivery, DeliveryEffect, Usage};

/// What the row of a node takes up in the database beside what is charged, in bytes, generously.
const NODE_BYTES: u64 = 1024;

/// What an item of a delivery takes up there, in bytes, beside its names and attributes.
const ITEM_BYTES: u64 = 512;

/// Room: on a disk, or that ops take up there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Room {
    /// In bytes, of data and of rows.
    pub bytes: u64,
    /// In files: each content is one.
    pub files: u64,
}

/// A limit on what all ops of a session take up together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limit {
    /// The limit.
    pub room: Room,
    /// How often the client has lowered it: within one round it is only raised.
    pub round: u32,
}

impl Room {
    /// What an op takes up at most: the growth of what is charged, and copies that sharing put off.
    /// What makes less, or changes what is there, takes up nothing.
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

    /// Whether it is none.
    pub fn is_none(self) -> bool {
        self == Room::default()
    }

    /// Whether `other` fits into it.
    pub fn covers(self, other: Room) -> bool {
        other.bytes <= self.bytes && other.files <= self.files
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Room) -> Room {
        Room {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }

    /// What is left without `other`.
    #[must_use]
    pub fn less(self, other: Room) -> Room {
        Room {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Room) -> Room {
        Room { bytes: self.bytes.min(other.bytes), files: self.files.min(other.files) }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Room) -> Room {
        Room { bytes: self.bytes.max(other.bytes), files: self.files.max(other.files) }
    }

    /// A part of it.
    #[must_use]
    pub fn divided(self, by: u64) -> Room {
        Room { bytes: self.bytes / by, files: self.files / by }
    }
}

/// Bytes that are written although nothing more is charged for them.
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
