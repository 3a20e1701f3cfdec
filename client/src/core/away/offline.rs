//! Working offline: while the link is down, changes are kept on this machine's disk, and `fsync` is
//! answered once they are there.
//!
//! The drive writes them. Here it is decided which, and what programs may be told.
//!
//! **Invariant:** what is kept is a gapless part of the log up to its end. It begins with the first
//! change that was not durable when the link was lost, or before that.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use xfer_protocol::tree::{Action, Room};
use xfer_protocol::{Errno, Ino, Seq, Timestamp};

use super::returning::Position;
use super::trace::{Change, Trace};
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;
use crate::core::tree::HandleId;

/// Memory that the kernel may write to this machine's disk.
pub trait Spill: Send + Sync + 'static {
    /// The same bytes, in such memory. `None` if it can't be had.
    fn store(&self, bytes: &Bytes) -> Option<Bytes>;
}

/// What is kept on this machine's disk.
#[derive(Debug, Default)]
pub(in crate::core) struct Kept {
    /// The most bytes that the log may have while the link is down; `None` if nothing is kept.
    pub(in crate::core) bytes_max: Option<usize>,
    /// The last op that is kept, if there is one.
    upto: Option<Seq>,
    /// The nodes that need no description any more in what is kept.
    described: BTreeSet<Ino>,
    /// Those that the step under way describes besides.
    being_described: BTreeSet<Ino>,
    /// Why the last changes can't be kept.
    trouble: Option<String>,
    /// Whether the claim to the session is kept too. Without it, a crash loses what is kept.
    has_claim: bool,
    /// Since when a program was told that a change is safe that is only here, and the last such.
    told: Option<(Timestamp, Seq)>,
}

/// The next step of the drive's journal.
#[derive(Debug)]
pub(crate) enum JournalStep {
    /// Nothing, until something happens.
    None,
    /// Add this, which reaches up to the op.
    Add(Vec<Trace>, Seq),
    /// Remove everything, since all of it is durable.
    Clear,
}

impl Kept {
    pub(in crate::core) fn new(bytes_max: Option<usize>) -> Kept {
        Kept { bytes_max, ..Kept::default() }
    }

    /// Forgets what is kept: it was given up.
    pub(in crate::core) fn give_up(&mut self) {
        let (bytes_max, has_claim) = (self.bytes_max, self.has_claim);
        *self = Kept { bytes_max, has_claim, ..Kept::default() };
    }
}

impl Core {
    /// Pauses until all changes up to a place are durable; or, while the link is down and changes are
    /// kept on this machine's disk, until they are there. `EIO` if that is not so and requests must not
    /// wait: a program that was told `EBUSY` would try again, and not hear of what was cut off.
    pub fn sync_safely(&mut self, position: Position) -> Result<(), Stop> {
        match self.try_to_sync(position) {
            Err(Stop::Pause(_)) if self.has_lost_seat() => Err(Errno::EIO.into()),
            result => result,
        }
    }

    /// Like [`Core::sync_safely`], for a program that syncs an open file or directory. `EIO` too, once
    /// for each handle, if changes of it were lost since the last time: an earlier sync may have given
    /// up waiting for them.
    pub fn sync_handle(&mut self, handle: HandleId, position: Position) -> Result<(), Stop> {
        match self.handles.take_lost(handle) {
            true => Err(Errno::EIO.into()),
            false => self.sync_safely(position),
        }
    }

    fn try_to_sync(&mut self, position: Position) -> Result<(), Stop> {
        if !self.keeps() || self.session.is_up() || self.is_over() {
            return self.sync_to(position);
        }
        if self.is_durable(position)? {
            return Ok(());
        }
        self.hasten(position);
        let seq = position.seq();
        if !self.kept.has_claim || self.kept.upto.is_none_or(|upto| upto < seq) {
            return Err(Pause::Progress.into());
        }
        let since = self.kept_here_since().unwrap_or(self.now.wall);
        self.kept.told = Some((since, seq));
        Ok(())
    }

    /// Has data beyond the memory that it may take go to this machine's disk while the link is down.
    pub(crate) fn spill_to(&mut self, spill: Arc<dyn Spill>) {
        self.data.cache.spill_to(spill);
    }

    /// The data of a new change, where it may stay until it is durable.
    pub(in crate::core) fn settled(&self, payload: Bytes) -> Bytes {
        let is_crowded = !self.session.is_up() && self.uplink.log.is_full();
        match self.data.cache.spill().filter(|_| is_crowded && !payload.is_empty()) {
            Some(spill) => spill.store(&payload).unwrap_or(payload),
            None => payload,
        }
    }

    /// Takes up changes that an earlier client of the session has left, and that are kept. The replica
    /// does not show them.
    pub(crate) fn take_up(&mut self, changes: Vec<Change>) {
        for Change { op, subjects, payload, .. } in changes {
            let now = self.now.monotonic;
            // The bytes of a copy are told for a rescue only. The server has them.
            let is_write = matches!(op.action, Action::Write { .. });
            let payload = if is_write { payload } else { Bytes::new() };
            self.uplink.log.append(op, payload, subjects, Room::default(), now);
        }
        self.note_kept(self.uplink.log.last());
    }

    /// Whether changes are kept on this machine's disk while the link is down.
    pub(crate) fn keeps(&self) -> bool {
        self.kept.bytes_max.is_some()
    }

    /// Whether changes are on their way to this machine's disk.
    pub(crate) fn is_keeping(&self) -> bool {
        let kept = self.kept.upto.unwrap_or(self.uplink.log.durable());
        let can_keep = self.kept.has_claim && self.kept.trouble.is_none();
        self.keeps() && can_keep && !self.session.is_up() && kept < self.uplink.log.last()
    }

    /// Since when programs rely on a change that is on this machine only.
    pub(in crate::core) fn kept_here_since(&self) -> Option<Timestamp> {
        let durable = self.uplink.log.durable();
        self.kept.told.filter(|(_, last)| *last > durable).map(|(since, _)| since)
    }

    /// Whether there are changes on this machine's disk, durable or not.
    pub(in crate::core) fn is_any_kept(&self) -> bool {
        self.kept.upto.is_some()
    }

    /// Whether changes that are not durable are kept on this machine's disk, so that the next client of
    /// the session can send them.
    pub(crate) fn some_kept(&self) -> bool {
        let durable = self.uplink.log.durable();
        self.kept.has_claim && self.kept.upto.is_some_and(|upto| upto > durable)
    }

    /// The changes that are not durable, and not kept on this machine's disk either.
    pub(crate) fn unkept_trace(&mut self) -> Vec<Trace> {
        let after = self.kept.upto.filter(|_| self.some_kept()).unwrap_or_default();
        self.trace_after(after, &BTreeSet::new()).0
    }

    /// Whether every change that is not durable is kept on this machine's disk.
    pub(crate) fn all_kept(&self) -> bool {
        self.kept.has_claim && self.kept.upto.is_some_and(|upto| upto >= self.uplink.log.last())
    }

    /// The next step of the journal.
    pub(crate) fn journal_step(&mut self) -> JournalStep {
        let (durable, last) = (self.uplink.log.durable(), self.uplink.log.last());
        if self.kept.upto.is_some_and(|upto| upto <= durable) {
            return JournalStep::Clear;
        }
        let after = self.kept.upto.unwrap_or(durable);
        if !self.keeps() || self.session.is_up() || self.is_over() || after >= last {
            return JournalStep::None;
        }
        let described = std::mem::take(&mut self.kept.described);
        let (trace, being_described) = self.trace_after(after, &described);
        (self.kept.described, self.kept.being_described) = (described, being_described);
        JournalStep::Add(trace, last)
    }

    /// Notes that everything up to an op is on this machine's disk.
    pub(crate) fn note_kept(&mut self, upto: Seq) {
        self.kept.upto = Some(upto);
        self.kept.trouble = None;
        self.kept.described.append(&mut self.kept.being_described);
        self.uplink.log.note_kept(upto);
    }

    /// Notes that the last step was not taken, and what is on this machine's disk is as it was.
    pub(crate) fn note_no_more_kept(&mut self) {
        self.kept.being_described.clear();
    }

    /// Notes why the last step was not taken.
    pub(crate) fn note_trouble(&mut self, why: String) {
        self.kept.trouble = Some(why);
    }

    /// Why changes can't be kept, as long as they need to be.
    pub(in crate::core) fn trouble_with_keeping(&self) -> Option<&String> {
        let must_keep = !self.session.is_up() && self.pending().0 > 0 && !self.all_kept();
        self.kept.trouble.as_ref().filter(|_| must_keep)
    }

    /// Notes whether the claim to the session is on this machine's disk.
    pub(crate) fn note_claim(&mut self, is_kept: bool) {
        self.kept.has_claim = is_kept;
    }

    /// Notes that nothing is on this machine's disk any more, or that it can't be relied on.
    pub(crate) fn note_none_kept(&mut self) {
        self.kept.upto = None;
        self.kept.trouble = None;
        self.kept.described.clear();
        self.kept.being_described.clear();
        self.uplink.log.note_kept(Seq::default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::core::link::{Ending, LinkLoss};
    use crate::core::tests::{core, grant};
    use crate::core::uplink::Outgoing;
    use xfer_protocol::message::{ToClient, ToServer};
    use xfer_protocol::tree::{Limit, Op};

    /// A core that keeps changes, with one that can be made without any row.
    fn keeping() -> Core {
        let mut core = core();
        core.kept = Kept::new(Some(1 << 20));
        core.note_claim(true);
        core
    }

    fn append(core: &mut Core) -> Seq {
        let op = Op { time: core.now.wall, action: Action::ForgetOrphan { ino: Ino(9) } };
        let now = core.now.monotonic;
        core.uplink.log.append(op, Bytes::new(), [None; 2], Room::default(), now)
    }

    #[test]
    fn a_change_is_safe_once_it_is_kept_and_only_while_the_link_is_down() {
        let mut core = keeping();
        let seq = append(&mut core);
        let position = core.position_at(seq);
        assert!(matches!(core.journal_step(), JournalStep::None), "the link is up");
        assert!(core.sync_safely(position).is_err());
        core.lose_link(LinkLoss::Silent);
        assert!(core.sync_safely(position).is_err(), "it is nowhere yet");
        let JournalStep::Add(trace, upto) = core.journal_step() else { panic!("nothing to keep") };
        assert_eq!((trace.len(), upto), (1, seq));
        core.note_kept(upto);
        core.note_claim(false);
        assert!(core.sync_safely(position).is_err(), "no client could send it after a crash");
        core.note_claim(true);
        assert!(core.sync_safely(position).is_ok() && core.all_kept());
        assert!(core.sync_to(position).is_err(), "the server does not have it");
        assert!(core.kept_here_since().is_some());
        core.resume(&grant()).unwrap();
        assert!(core.sync_safely(position).is_err(), "the server can be asked");
        while core.poll_outgoing().is_some() {}
        let (disk, limit) = (Room::default(), Limit::default());
        core.handle_message(ToClient::Durable { seq, disk, limit }).unwrap();
        assert!(matches!(core.journal_step(), JournalStep::Clear));
        core.note_none_kept();
        assert!(core.kept_here_since().is_none());
    }

    #[test]
    fn a_session_does_not_end_before_its_journal_is_empty() {
        let mut core = keeping();
        core.lose_link(LinkLoss::Silent);
        let seq = append(&mut core);
        let JournalStep::Add(_, upto) = core.journal_step() else { panic!("nothing to keep") };
        core.note_kept(upto);
        core.resume(&grant()).unwrap();
        core.begin_drain(Ending::LoggedOut);
        let said = |core: &mut Core| -> Vec<Outgoing> {
            std::iter::from_fn(|| core.poll_outgoing()).collect()
        };
        let is_logout = |said: &Outgoing| matches!(said, Outgoing::Message(ToServer::Logout));
        said(&mut core);
        let (disk, limit) = (Room::default(), Limit::default());
        core.handle_message(ToClient::Durable { seq, disk, limit }).unwrap();
        assert!(!said(&mut core).iter().any(is_logout), "a crash now would rescue the change");
        assert!(matches!(core.journal_step(), JournalStep::Clear));
        core.note_none_kept();
        assert!(said(&mut core).iter().any(is_logout));
    }

    #[test]
    fn trouble_with_keeping_is_told_as_long_as_something_needs_to_be_kept() {
        let mut core = keeping();
        core.lose_link(LinkLoss::Silent);
        let seq = append(&mut core);
        core.note_trouble("full".to_owned());
        assert!(core.trouble_with_keeping().is_some());
        core.resume(&grant()).unwrap();
        assert!(core.trouble_with_keeping().is_none(), "the link is up");
        while core.poll_outgoing().is_some() {}
        let (disk, limit) = (Room::default(), Limit::default());
        core.handle_message(ToClient::Durable { seq, disk, limit }).unwrap();
        core.lose_link(LinkLoss::Silent);
        assert!(core.trouble_with_keeping().is_none(), "everything is durable");
    }

    #[test]
    fn what_is_kept_has_no_gap_though_the_link_was_up_in_between() {
        let mut core = keeping();
        core.lose_link(LinkLoss::Silent);
        append(&mut core);
        let JournalStep::Add(_, upto) = core.journal_step() else { panic!("nothing to keep") };
        core.note_kept(upto);
        core.resume(&grant()).unwrap();
        append(&mut core);
        core.lose_link(LinkLoss::Silent);
        let last = append(&mut core);
        let JournalStep::Add(trace, upto) = core.journal_step() else { panic!("nothing to keep") };
        assert_eq!((trace.len(), upto), (2, last));
    }
}
