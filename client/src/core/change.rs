//! Making a change: the rules predict it, the replica and the cache show it from then on, and its
//! op is appended to the log.
//!
//! Nothing is sent from here.
//!
//! **Invariant:** all that can refuse or pause a change comes before its first effect, so that the
//! attempt can be made again.

use bytes::Bytes;
use xfer_protocol::tree::{
    Action, Changes, ContentEffect, Loaded, Op, Room, Rows, STATE_XATTR, plan,
};
use xfer_protocol::{ContentId, Errno, Ino, Seq};

use super::notice::Notice;
use super::pause::{Pause, Stop};
use super::state::Core;

impl Core {
    /// Runs the rules for a change without making it.
    pub(in crate::core) fn check(&self, action: &Action) -> Result<(), Stop> {
        let op = Op { time: self.now.wall, action: action.clone() };
        plan(&self.replica.table, &op)?;
        Ok(())
    }

    /// Makes a change: predicts it, shows it from now on, and appends it to the log.
    pub(in crate::core) fn change(&mut self, action: Action) -> Result<(), Stop> {
        self.change_with(action, Bytes::new())
    }

    /// Makes a change whose op carries data.
    pub(in crate::core) fn change_with(
        &mut self,
        action: Action,
        payload: Bytes,
    ) -> Result<(), Stop> {
        if !self.session.takes_changes() {
            return Err(Errno::EIO.into());
        }
        self.must_have_seat()?;
        self.must_keep_seat()?;
        if !self.has_room_for(&action, &payload) {
            return Err(if self.is_stuck() {
                Errno::ENOSPC.into()
            } else {
                Pause::Progress.into()
            });
        }
        let op = Op { time: self.now.wall, action };
        let changes = plan(&self.replica.table, &op)?;
        let room = Room::of(&changes, self.replica.table.usage());
        let disk_room = &self.uplink.disk_room;
        let is_up = self.session.is_up();
        if !(disk_room.fits(room) || !is_up && disk_room.may_fit(self.uplink.log.room(), room)) {
            if disk_room.is_refused(room, self.now.monotonic) {
                // Earlier removals may free space, but only once they are durable.
                self.sync_to(self.position())?;
                return Err(Errno::ENOSPC.into());
            }
            self.uplink.disk_room.want(room);
            return Err(Pause::Progress.into());
        }
        self.uplink.disk_room.take(room);
        let payload = self.settled(payload);
        let subjects = self.subjects(&op.action);
        let seq = self.uplink.log.next();
        // Before the rows change: it compares the contents that nodes get with those that they
        // have.
        self.expect_contents(&changes, seq);
        let numbers = numbers_of(&op.action, &changes, &self.replica.table);
        self.replica.table.apply(&changes, seq);
        for effect in &changes.contents {
            self.data.cache.follow(effect, &payload, seq);
        }
        if let Some((first, count)) = numbers {
            self.uplink.numbers.use_up(first, count);
        }
        self.notice(&op.action, &changes);
        self.note_touches(&op.action);
        if is_awaited(&op.action) {
            self.uplink.barrier = seq;
        }
        self.uplink.log.append(op, payload, subjects, room, self.now.monotonic);
        Ok(())
    }

    /// The next number for a new node, content or delivery. Only an op uses it up, so an attempt
    /// that is made again gets the same one.
    pub(in crate::core) fn fresh(&self) -> Result<u64, Stop> {
        self.fresh_run(1)
    }

    /// The first of `count` consecutive numbers.
    pub(in crate::core) fn fresh_run(&self, count: u64) -> Result<u64, Stop> {
        match self.uplink.numbers.next_run(count) {
            Some(first) => Ok(first),
            None if self.session.takes_changes() => Err(Pause::Progress.into()),
            None => Err(Errno::EIO.into()),
        }
    }

    /// Leaves notices for the changes of an op that the kernel did not ask for.
    fn notice(&mut self, action: &Action, changes: &Changes) {
        match action {
            Action::Mailbox { .. } | Action::Send { .. } | Action::Accept { .. } => {}
            // A directory that was sent, with all that is in it.
            Action::Revise { .. } if changes.nodes.len() > 1 => {}
            _ => return,
        }
        let entries = changes.entries.iter();
        self.notices.extend(entries.map(|(parent, name, _)| Notice::Entry(*parent, name.clone())));
        self.notices.extend(changes.nodes.iter().map(|(ino, _)| Notice::Node(*ino)));
    }

    /// Whether the log accepts the op now. It always accepts one that follows from an op that it
    /// accepted before, such as the send of a file that was closed.
    fn has_room_for(&self, action: &Action, payload: &Bytes) -> bool {
        let follows = match action {
            Action::SetXattr { name, .. } | Action::RemoveXattr { name, .. } => name == STATE_XATTR,
            action => matches!(action, Action::Send { .. } | Action::ForgetOrphan { .. }),
        };
        let log = &self.uplink.log;
        // While the link is down no program waits for the log to be carried, so it may fill up.
        let has_room = match (self.session.is_up(), self.kept.bytes_max) {
            (true, _) if !payload.is_empty() => log.has_room(),
            (false, Some(max)) => log.has_room_on_disk(max),
            (true, _) | (false, None) => !log.is_full(),
        };
        follows || has_room && !self.session.holding
    }

    /// Notes that the server can answer for a node's new content only after op `seq`.
    fn expect_contents(&mut self, changes: &Changes, seq: Seq) {
        for (ino, node) in &changes.nodes {
            let before = match self.replica.table.node(*ino) {
                Loaded::Present(node) => node.content(),
                Loaded::Absent | Loaded::Unknown => None,
            };
            let after = node.as_ref().and_then(|node| node.content());
            if let Some(content) = after.filter(|_| after != before) {
                self.data.cache.expect(content, seq);
            }
        }
    }
}

/// The numbers that an op uses up: the first of them, and their count.
fn numbers_of(action: &Action, changes: &Changes, rows: &dyn Rows) -> Option<(u64, u64)> {
    match action {
        Action::Create { ino, .. }
        | Action::Mkdir { ino, .. }
        | Action::Symlink { ino, .. }
        | Action::Mknod { ino, .. }
        | Action::Mailbox { ino, .. } => Some((ino.0, 1)),
        Action::Send { delivery, .. } => Some((delivery.0, 1)),
        Action::Accept { first, .. } => {
            // The directory in which the delivery is placed changes too, and is not new. A number is
            // skipped for each further name of a file.
            let is_new = |ino: &Ino| !matches!(rows.node(*ino), Loaded::Present(_));
            let last = changes.nodes.iter().map(|(ino, _)| *ino).filter(is_new).max();
            last.map(|last| (first.0, last.0 + 1 - first.0))
        }
        Action::SetAttr { .. }
        | Action::Write { .. }
        | Action::Fallocate { .. }
        | Action::CopyRange { .. } => {
            changes.contents.iter().find_map(made).map(|content| (content.0, 1))
        }
        Action::Link { .. }
        | Action::Unlink { .. }
        | Action::Rmdir { .. }
        | Action::Rename { .. }
        | Action::SetXattr { .. }
        | Action::RemoveXattr { .. }
        | Action::ForgetOrphan { .. }
        | Action::Revise { .. }
        | Action::Decline { .. } => None,
    }
}

/// Whether another user waits for an op to become durable, though no program here does.
fn is_awaited(action: &Action) -> bool {
    matches!(action, Action::Send { .. } | Action::Accept { .. } | Action::Decline { .. })
}

/// The content that an effect creates.
fn made(effect: &ContentEffect) -> Option<ContentId> {
    match effect {
        ContentEffect::Create { content } | ContentEffect::Clone { to: content, .. } => {
            Some(*content)
        }
        ContentEffect::Write { .. }
        | ContentEffect::Zero { .. }
        | ContentEffect::Copy { .. }
        | ContentEffect::Free { .. } => None,
    }
}
