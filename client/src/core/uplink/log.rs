//! The log: ops in order, with their data, from the moment programs make them until they are
//! durable.
//!
//! [`super::outgoing`] decides when the next ops go out, not the log.
//!
//! **Invariant:** an op is forgotten only when it is durable, and is frozen once it was sent.
//!
//! **Invariant:** the entries are the tree's last ops, without a gap, from the first that is not
//! durable on. The first `sent` of them went out over the current link.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use xfer_protocol::limits::FRAME_OPS_MAX;
use xfer_protocol::tree::{Action, Op, Room};
use xfer_protocol::{Name, Seq};

use super::rate::Rate;
use crate::core::away::{Change, Subjects};

/// The memory that an op takes beside its data, in bytes, roughly.
const OP_BYTES: usize = 320;

/// The backlog that is allowed however slow the link is, in bytes.
const BACKLOG_BYTES_MIN: usize = 8 << 20;

/// The most that a frame carries, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The most that a frame carries on the slowest link, in bytes.
const FRAME_BYTES_MIN: usize = 64 << 10;

/// Ops that are not durable.
#[derive(Debug)]
pub(in crate::core) struct Log {
    entries: VecDeque<Entry>,
    /// The seq of the last op ever appended.
    last: Seq,
    /// The number of entries that were sent. They are the first ones.
    sent: usize,
    /// The seq of the last op that was sent over any link.
    ever_sent: Seq,
    bytes: usize,
    bytes_max: usize,
    /// The room that all entries take on the server's disk.
    room: Room,
    /// The last op that is kept on this machine's disk, and the bytes of the entries after it.
    kept: Seq,
    unkept_bytes: usize,
    rate: Rate,
}

#[derive(Debug)]
struct Entry {
    op: Op,
    payload: Bytes,
    subjects: Subjects,
    bytes: usize,
    /// The room that it takes on the server's disk.
    room: Room,
}

/// The server can't have applied the ops that it says it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Astray {
    /// Ops that were durable are missing: the server's store was put back.
    Behind,
    /// Ops are among them that were never sent.
    Ahead,
}

/// The ops of one frame.
#[derive(Debug)]
pub(crate) struct Group {
    /// The seq of the first op. The others follow it.
    pub(crate) first: Seq,
    pub(crate) ops: Vec<Op>,
    /// The data of those ops that have any, in order.
    pub(crate) payloads: Vec<Bytes>,
}

impl Log {
    pub(in crate::core) fn new(last: Seq, bytes_max: usize) -> Log {
        let (entries, rate) = (VecDeque::new(), Rate::default());
        Log {
            entries,
            last,
            sent: 0,
            ever_sent: last,
            bytes: 0,
            bytes_max,
            room: Room::default(),
            kept: Seq::default(),
            unkept_bytes: 0,
            rate,
        }
    }

    /// How fast ops become durable, in bytes a second. `None` until it was measured.
    pub(in crate::core) fn bytes_per_s(&self) -> Option<f64> {
        self.rate.bytes_per_s()
    }

    /// Whether an op with data may be appended now. The backlog is bounded in bytes, and by what
    /// the link has carried in about a second, so that a wait for one op is never long.
    pub(in crate::core) fn has_room(&self) -> bool {
        let second = self.rate.bytes_per_s().map_or(self.bytes_max, |rate| rate as usize);
        self.bytes < second.max(BACKLOG_BYTES_MIN).min(self.bytes_max)
    }

    /// The most memory that the ops may take, in bytes.
    pub(in crate::core) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether no op may be appended now, not even one without data.
    pub(in crate::core) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether an op may be appended while changes are kept on this machine's disk, up to `max` bytes
    /// in all. Ops beyond the memory that the log may take are kept before more are taken.
    pub(in crate::core) fn has_room_on_disk(&self, max: usize) -> bool {
        let is_kept = self.unkept_bytes < BACKLOG_BYTES_MIN;
        self.bytes < self.bytes_max || self.bytes < max && is_kept
    }

    /// Notes that everything up to an op is kept on this machine's disk.
    pub(in crate::core) fn note_kept(&mut self, upto: Seq) {
        self.kept = upto;
        let kept = upto.0.saturating_sub(self.durable().0) as usize;
        self.unkept_bytes = self.entries.iter().skip(kept).map(|entry| entry.bytes).sum();
    }

    /// Appends an op about these nodes that takes `room` on the server's disk, and returns its seq.
    pub(in crate::core) fn append(
        &mut self,
        op: Op,
        payload: Bytes,
        subjects: Subjects,
        room: Room,
        now: Instant,
    ) -> Seq {
        if self.entries.is_empty() {
            self.rate.start(now);
        }
        let bytes = OP_BYTES + payload.len() + extra_bytes(&op.action);
        self.bytes += bytes;
        self.unkept_bytes += bytes;
        self.room = self.room.plus(room);
        self.entries.push_back(Entry { op, payload, subjects, bytes, room });
        self.last = self.last.next();
        self.last
    }

    /// The seq that the next op will have.
    pub(in crate::core) fn next(&self) -> Seq {
        self.last.next()
    }

    /// The seq of the last op appended.
    pub(in crate::core) fn last(&self) -> Seq {
        self.last
    }

    /// The seq of the last op that was sent.
    pub(in crate::core) fn last_sent(&self) -> Seq {
        Seq(self.last.0 - (self.entries.len() - self.sent) as u64)
    }

    /// The seq of the last op that is durable.
    pub(in crate::core) fn durable(&self) -> Seq {
        Seq(self.last.0 - self.entries.len() as u64)
    }

    /// The number of ops that are not durable, and the memory that they take in bytes.
    pub(in crate::core) fn pending(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// The ops after `after` that are not durable.
    pub(in crate::core) fn changes(&self, after: Seq) -> impl Iterator<Item = Change> {
        let durable = self.durable();
        let skipped = after.0.saturating_sub(durable.0) as usize;
        let later = self.entries.iter().enumerate().skip(skipped);
        later.map(move |(index, entry)| Change {
            seq: Seq(durable.0 + 1 + index as u64),
            op: entry.op.clone(),
            subjects: entry.subjects,
            payload: entry.payload.clone(),
        })
    }

    /// The room that all these ops take on the server's disk.
    pub(in crate::core) fn room(&self) -> Room {
        self.room
    }

    /// The room that the next op to send takes on the server's disk.
    pub(in crate::core) fn next_room(&self) -> Option<Room> {
        self.entries.get(self.sent).map(|entry| entry.room)
    }

    /// Takes the next ops to send, if there are any for which the server has room: `fits` is asked
    /// for the room of each, and counts it.
    pub(in crate::core) fn take(&mut self, mut fits: impl FnMut(Room) -> bool) -> Option<Group> {
        let first = self.last_sent().next();
        // About half a second of the link, so that a short message need not wait long behind a
        // frame.
        let frame = self.rate.bytes_per_s().map_or(FRAME_BYTES_MAX, |rate| rate as usize / 2);
        let frame = frame.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX);
        let (mut bytes, mut ops, mut payloads) = (0, Vec::new(), Vec::new());
        for entry in self.entries.range(self.sent..).take(FRAME_OPS_MAX) {
            bytes += entry.bytes;
            // The first op goes out however large it is: else it would never go.
            if bytes > frame && !ops.is_empty() || !fits(entry.room) {
                break;
            }
            ops.push(entry.op.clone());
            if !entry.payload.is_empty() {
                payloads.push(entry.payload.clone());
            }
        }
        self.sent += ops.len();
        self.ever_sent = self.ever_sent.max(self.last_sent());
        (!ops.is_empty()).then_some(Group { first, ops, payloads })
    }

    /// Makes every op unsent: the next link carries them again.
    pub(in crate::core) fn rewind(&mut self) {
        self.sent = 0;
        self.rate.stop();
    }

    /// Checks the last op that the server has applied, as it says on a new link.
    pub(in crate::core) fn check(&self, applied: Seq) -> Result<(), Astray> {
        match applied {
            applied if applied < self.durable() => Err(Astray::Behind),
            applied if applied > self.ever_sent => Err(Astray::Ahead),
            _ => Ok(()),
        }
    }

    /// Goes on over a new link, on which the server said that it has applied these ops. They are
    /// durable, so they are not sent again.
    pub(in crate::core) fn resume(&mut self, applied: Seq, now: Instant) {
        self.sent = applied.0.saturating_sub(self.durable().0) as usize;
        self.retire(applied, now);
        if !self.entries.is_empty() {
            self.rate.start(now);
        }
    }

    /// Forgets the ops up to `seq`, which are durable. False if some of them were not sent.
    pub(in crate::core) fn retire(&mut self, seq: Seq, now: Instant) -> bool {
        let count = seq.0.saturating_sub(self.durable().0) as usize;
        if count > self.sent {
            return false;
        }
        let (mut bytes, mut unkept) = (0, 0);
        let kept = self.kept.0.saturating_sub(self.durable().0) as usize;
        for (index, entry) in self.entries.drain(..count).enumerate() {
            bytes += entry.bytes;
            unkept += if index < kept { 0 } else { entry.bytes };
            self.room = self.room.less(entry.room);
        }
        self.sent -= count;
        self.bytes -= bytes;
        self.unkept_bytes -= unkept;
        self.rate.carried(bytes, now);
        true
    }
}

/// The bytes of names and values in an op.
fn extra_bytes(action: &Action) -> usize {
    let len = |name: &Name| name.as_bytes().len();
    match action {
        Action::SetXattr { name, value, .. } => name.len() + value.len(),
        Action::RemoveXattr { name, .. } => name.len(),
        Action::Symlink { name, target, .. } => len(name) + target.len(),
        Action::Create { name, .. }
        | Action::Mkdir { name, .. }
        | Action::Mknod { name, .. }
        | Action::Link { name, .. }
        | Action::Unlink { name, .. }
        | Action::Rmdir { name, .. }
        | Action::Accept { name, .. }
        | Action::Mailbox { user: name, .. } => len(name),
        Action::Rename { from, to, .. } => len(&from.1) + len(&to.1),
        Action::Send { to, name, from, .. } => len(to) + len(name) + len(from),
        Action::SetAttr { .. }
        | Action::Write { .. }
        | Action::Fallocate { .. }
        | Action::CopyRange { .. }
        | Action::ForgetOrphan { .. }
        | Action::Revise { .. }
        | Action::Decline { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use xfer_protocol::{Ino, Timestamp};

    fn op() -> Op {
        let action = Action::ForgetOrphan { ino: Ino(9) };
        Op { time: Timestamp::default(), action }
    }

    fn log_of(sizes: &[usize]) -> Log {
        let mut log = Log::new(Seq(10), 1 << 20);
        for size in sizes {
            log.append(op(), vec![0; *size].into(), [None; 2], Room::default(), Instant::now());
        }
        log
    }

    #[test]
    fn ops_go_out_once_and_in_order() {
        let mut log = log_of(&[0, 700_000, 700_000]);
        let first = log.take(|_| true).unwrap();
        assert_eq!((first.first, first.ops.len()), (Seq(11), 2));
        let second = log.take(|_| true).unwrap();
        assert_eq!((second.first, second.ops.len()), (Seq(13), 1));
        assert!(log.take(|_| true).is_none());
    }

    #[test]
    fn what_was_not_sent_cannot_become_durable() {
        let mut log = log_of(&[0, 0]);
        assert!(!log.retire(Seq(11), Instant::now()));
        log.take(|_| true).unwrap();
        assert!(log.retire(Seq(11), Instant::now()));
        assert_eq!((log.durable(), log.pending().0), (Seq(11), 1));
    }

    #[test]
    fn a_full_log_has_no_room_until_something_is_durable() {
        let mut log = log_of(&[1 << 20]);
        assert!(!log.has_room());
        log.take(|_| true).unwrap();
        assert!(log.retire(Seq(11), Instant::now()));
        assert!(log.has_room());
    }

    #[test]
    fn a_new_link_carries_all_ops_that_the_server_has_not_applied() {
        let mut log = log_of(&[0, 0, 0, 0]);
        log.take(|_| true).unwrap();
        assert!(log.retire(Seq(11), Instant::now()));
        log.rewind();
        assert_eq!(log.check(Seq(10)), Err(Astray::Behind));
        assert_eq!(log.check(Seq(14)), Ok(()));
        log.append(op(), Bytes::new(), [None; 2], Room::default(), Instant::now());
        assert_eq!(log.check(Seq(15)), Err(Astray::Ahead), "it was never sent");
        log.resume(Seq(13), Instant::now());
        assert_eq!((log.durable(), log.pending().0), (Seq(13), 2));
        let again = log.take(|_| true).unwrap();
        assert_eq!((again.first, again.ops.len()), (Seq(14), 2));
    }

    #[test]
    fn ops_go_out_again_after_a_rewind_but_for_those_that_are_durable() {
        let mut log = log_of(&[0, 0, 0]);
        log.take(|_| true).unwrap();
        assert!(log.retire(Seq(11), Instant::now()));
        log.rewind();
        let again = log.take(|_| true).unwrap();
        assert_eq!((again.first, again.ops.len()), (Seq(12), 2));
    }
}
