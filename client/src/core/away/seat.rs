//! The account's seat: while this client has it, no other one changes the tree.
//!
//! A client without the seat is *dormant*. Another client may change the tree then, so nothing that is
//! known of it is shown. A client that gives its seat up outdates what the kernel keeps first, with
//! the session still running: so requests are answered meanwhile, and none holds a lock for which a
//! notice waits. One whose seat was taken does so afterwards, while requests wait. If one of them
//! holds such a lock, all that wait are refused until the kernel was told.
//!
//! **Invariant:** while another client may have the seat, no row and no byte of the tree is shown, and
//! no change is made.

use std::ops::Range;
use std::time::{Duration, Instant};

use xfer_protocol::message::Refusal;
use xfer_protocol::{Errno, Ino};

use crate::core::link::{Ending, LinkLoss};
use crate::core::notice::Notice;
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;

/// The shortest time that a client keeps a seat that it was handed, so that two clients which are
/// both used make some progress.
const TENURE_MIN: Duration = Duration::from_secs(2);

/// The most answers that are noted while the kernel's cache is being outdated.
const ANSWERED_MAX: usize = 10_000;

/// A seat that was lost just now.
const LOST: Seat = Seat::Lost { refuses: false };

/// Whether this client has the account's seat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) enum Seat {
    /// It has.
    Held {
        /// When it got it.
        since: Instant,
    },
    /// It has, and is about to give it up: the kernel is told to forget what it keeps.
    Leaving {
        /// When it got it.
        since: Instant,
        /// What the kernel may keep from answers that were given meanwhile.
        answered: Vec<Notice>,
        /// Whether the server takes the seat away, so that changes are made one at a time.
        forced: bool,
        /// Whether changes pause then until it is left.
        holds_changes: bool,
    },
    /// Another client may have it, or will soon.
    Left {
        /// Whether the kernel keeps nothing any more that may be out of date. Only then the server is
        /// told.
        is_settled: bool,
    },
    /// Another client may have it, and the kernel may still keep what is out of date.
    Lost {
        /// Whether requests are refused meanwhile, since one that waits may hold a lock without which the
        /// kernel can't forget.
        refuses: bool,
    },
}

/// The client that has the seat, as the server said last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its host's name, as it gave it.
    pub host: String,
    /// Its address.
    pub address: String,
}

impl Seat {
    /// Whether this client may show and change the tree.
    pub(in crate::core) fn is_held(&self) -> bool {
        match self {
            Seat::Held { .. } | Seat::Leaving { .. } => true,
            Seat::Left { .. } | Seat::Lost { .. } => false,
        }
    }
}

impl Core {
    /// Whether the client has the seat.
    pub(crate) fn has_seat(&self) -> bool {
        self.session.seat.is_held()
    }

    /// Whether the server can be asked about the tree now.
    pub fn can_ask(&self) -> bool {
        self.session.is_up() && self.has_seat()
    }

    /// Whether the kernel may keep what it is told. To be asked together with the attempt that finds it
    /// out.
    pub fn may_be_kept(&self) -> bool {
        !self.is_over() && matches!(self.session.seat, Seat::Held { .. })
    }

    /// Whether the client has no seat, or will have none, and the kernel may still keep what is out of
    /// date.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self.session.seat, Seat::Left { is_settled: false } | Seat::Lost { .. })
    }

    /// Whether the client is dormant, and the kernel may still keep what is out of date.
    pub(crate) fn has_lost_seat(&self) -> bool {
        matches!(self.session.seat, Seat::Lost { .. })
    }

    /// Refuses requests that would wait until the kernel keeps nothing that is out of date.
    pub(crate) fn refuse_requests(&mut self) {
        if let Seat::Lost { refuses } = &mut self.session.seat {
            *refuses = true;
        }
    }

    /// Pauses an operation until the client has the seat. `EBUSY` while requests are refused.
    pub(crate) fn must_have_seat(&self) -> Result<(), Stop> {
        match self.session.seat {
            Seat::Held { .. } | Seat::Leaving { .. } => Ok(()),
            Seat::Left { .. } | Seat::Lost { .. } if self.is_over() => Err(Errno::EIO.into()),
            Seat::Left { .. } | Seat::Lost { refuses: false } => Err(Pause::Seat.into()),
            Seat::Lost { refuses: true } => Err(Errno::EBUSY.into()),
        }
    }

    /// Has changes pause until all earlier ones are durable when the server takes the seat away, so that
    /// there are moments at which it can be left. They hold no lock for longer than a commit takes.
    pub(in crate::core) fn must_keep_seat(&self) -> Result<(), Stop> {
        match self.session.seat {
            Seat::Leaving { forced: true, holds_changes, .. }
                if (holds_changes || self.pending().0 > 0) && !self.session.writes_back =>
            {
                Err(Pause::Progress.into())
            }
            Seat::Held { .. } | Seat::Leaving { .. } | Seat::Left { .. } | Seat::Lost { .. } => {
                Ok(())
            }
        }
    }

    /// Notes which other client wants the seat, if one does.
    pub(crate) fn note_wanted(&mut self, by: Option<Holder>) {
        self.session.wanted_by = by;
    }

    /// Whether another client wants the seat.
    pub(crate) fn is_wanted(&self) -> bool {
        self.session.wanted_by.is_some()
    }

    /// Whether another client waits for a file to be closed that was closed just now.
    pub(in crate::core) fn is_let_go(&self) -> bool {
        self.is_wanted() && self.handles.written().next().is_none()
    }

    /// How long the client keeps the seat in any case.
    pub(crate) fn tenure_left(&self) -> Duration {
        match self.session.seat {
            Seat::Held { since } | Seat::Leaving { since, .. } => {
                (since + TENURE_MIN).saturating_duration_since(self.now.monotonic)
            }
            Seat::Left { .. } | Seat::Lost { .. } => Duration::ZERO,
        }
    }

    /// Whether no program is in the middle of something that the seat is needed for.
    pub(crate) fn can_hand_over(&self) -> bool {
        self.session.is_up()
            && self.takes_changes()
            && self.has_seat()
            && self.handles.written().next().is_none()
            // Another client would not know what is complete in it.
            && !self.outbox.drafts.has_directory_at_rest()
    }

    /// Begins to give the seat up. From now on the kernel is told to keep nothing. Returns whether the
    /// client has the seat.
    pub(crate) fn begin_leaving(&mut self, forced: bool) -> bool {
        let (since, answered) = match &mut self.session.seat {
            Seat::Held { since } => (*since, Vec::new()),
            Seat::Leaving { since, answered, .. } if forced => (*since, std::mem::take(answered)),
            Seat::Leaving { .. } | Seat::Left { .. } | Seat::Lost { .. } => return false,
        };
        self.session.seat = Seat::Leaving { since, answered, forced, holds_changes: false };
        self.uplink.barrier = self.uplink.log.last();
        true
    }

    /// Has changes pause, or go on, while the seat is about to be given up. Else a program that makes one
    /// after the other might never leave a moment in which all are durable.
    pub(crate) fn hold_changes(&mut self, holds: bool) {
        if let Seat::Leaving { holds_changes, .. } = &mut self.session.seat {
            *holds_changes = holds;
            self.uplink.barrier = self.uplink.log.last();
        }
    }

    /// Whether the kernel may keep nothing from answers that were given since it began to forget.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(&self.session.seat, Seat::Leaving { answered, .. } if answered.is_empty())
    }

    /// Whether the seat is about to be given up.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.session.seat, Seat::Leaving { .. })
    }

    /// Keeps the seat after all, if the server was not told that it is given up.
    pub(crate) fn stay(&mut self) {
        match self.session.seat {
            Seat::Leaving { since, .. } => self.session.seat = Seat::Held { since },
            Seat::Left { is_settled: false } => {
                let since = self.now.monotonic;
                let is_up = self.session.is_up();
                self.session.seat = if is_up { Seat::Held { since } } else { LOST };
            }
            Seat::Held { .. } | Seat::Left { is_settled: true } | Seat::Lost { .. } => {}
        }
    }

    /// Takes what the kernel may keep from answers that were given since it began to forget.
    pub(crate) fn take_answered(&mut self) -> Vec<Notice> {
        match &mut self.session.seat {
            Seat::Leaving { answered, .. } if answered.len() >= ANSWERED_MAX => {
                answered.clear();
                self.kept_nodes()
            }
            Seat::Leaving { answered, .. } => std::mem::take(answered),
            Seat::Held { .. } | Seat::Left { .. } | Seat::Lost { .. } => Vec::new(),
        }
    }

    /// Leaves the seat if everything is durable, and nothing needs it. Returns what the kernel may keep
    /// from the last answers; `None` if the client still has the seat.
    pub(crate) fn leave(&mut self) -> Option<Vec<Notice>> {
        let is_ready = self.uplink.log.pending().0 == 0;
        let can_hand_over = self.can_hand_over();
        let Seat::Leaving { answered, forced, .. } = &mut self.session.seat else { return None };
        if !is_ready || !(*forced || can_hand_over) {
            self.uplink.barrier = self.uplink.log.last();
            return None;
        }
        if answered.len() >= ANSWERED_MAX {
            return None;
        }
        let mut answered = std::mem::take(answered);
        // A program may not have taken in an answer from before when it was told.
        answered.extend(self.handles.kernel.nodes().map(Notice::Node));
        self.session.seat = Seat::Left { is_settled: false };
        self.session.holder = self.session.wanted_by.take();
        Some(answered)
    }

    /// Notes that the kernel keeps nothing that may be out of date.
    pub(crate) fn settle(&mut self) {
        if matches!(self.session.seat, Seat::Left { .. } | Seat::Lost { .. }) {
            self.session.seat = Seat::Left { is_settled: true };
            self.handles.kernel.clear();
        }
    }

    /// Notes that another client may have the seat, which this one has not left.
    pub(crate) fn lose_seat(&mut self) {
        match self.session.seat {
            Seat::Held { .. } | Seat::Leaving { .. } => self.session.seat = LOST,
            Seat::Left { .. } | Seat::Lost { .. } => {}
        }
    }

    /// Whether the session is about to end, and has nothing left that the seat is needed for.
    pub(crate) fn gives_seat_up_for_good(&self) -> bool {
        let is_needed = self.pending().0 > 0 && self.session.draining != Some(Ending::Displaced);
        !self.has_seat() && !self.takes_changes() && !is_needed
    }

    /// The ending of a session that the server refuses to continue.
    pub(crate) fn ending_by(&self, refusal: Refusal) -> Ending {
        match &self.session.draining {
            // That was asked for.
            Some(ending) if self.gives_seat_up_for_good() => ending.clone(),
            Some(_) | None => Ending::Refused(refusal),
        }
    }

    /// Lets a session that is about to end do so without what is not durable, if it has no seat and not
    /// all of that is kept on this machine's disk.
    pub(crate) fn end_without_pending(&mut self) {
        if !self.has_seat() && self.pending().0 > 0 && !self.all_kept() {
            self.session.draining = Some(Ending::Displaced);
        }
    }

    /// Whether all that is not durable is left to the next client, since another one has the seat.
    pub(crate) fn waits_for_the_next(&self) -> bool {
        !self.has_seat() && self.pending().0 > 0 && self.all_kept()
    }

    /// To whom the seat is lost, if this client knows that.
    pub(crate) fn seat_loss(&self) -> Option<LinkLoss> {
        let Holder { host, address } = self.session.holder.clone().filter(|_| !self.has_seat())?;
        Some(LinkLoss::TakenOver { host, address })
    }

    /// Notes which client has the seat.
    pub(crate) fn note_holder(&mut self, holder: Holder) {
        self.session.holder = Some(holder);
    }

    /// Notes that the client has the seat again.
    pub(in crate::core) fn take_seat(&mut self) {
        self.session.seat = Seat::Held { since: self.now.monotonic };
        (self.session.holder, self.session.wanted_by) = (None, None);
    }

    /// The names that the kernel may keep, present and absent.
    pub(crate) fn kept_entries(&self) -> Vec<Notice> {
        let kernel = &self.handles.kernel;
        let entries = kernel.entries().chain(kernel.absent().cloned());
        entries.map(|(directory, name)| Notice::Expired(directory, name)).collect()
    }

    /// The nodes of which the kernel may keep attributes or contents.
    pub(crate) fn kept_nodes(&self) -> Vec<Notice> {
        let kernel = &self.handles.kernel;
        let attributes = kernel.nodes().chain([Ino::ROOT]).map(Notice::Node);
        attributes.chain(kernel.with_contents().chain([Ino::ROOT]).map(Notice::Contents)).collect()
    }

    /// Notes that the kernel may keep a range of a file from now on.
    pub(in crate::core) fn note_data(&mut self, ino: Ino, range: Range<u64>) {
        self.handles.kernel.note_contents(ino);
        let Seat::Leaving { answered, .. } = &mut self.session.seat else { return };
        if let Some(Notice::Data(last, known)) = answered.last_mut()
            && (*last, known.end) == (ino, range.start)
        {
            known.end = range.end;
        } else if answered.len() < ANSWERED_MAX {
            answered.push(Notice::Data(ino, range));
        }
    }

    /// Notes that the kernel may keep a listing or a target from now on.
    pub(in crate::core) fn note_contents(&mut self, ino: Ino) {
        self.handles.kernel.note_contents(ino);
        if let Seat::Leaving { answered, .. } = &mut self.session.seat
            && answered.len() < ANSWERED_MAX
        {
            answered.push(Notice::Contents(ino));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use xfer_protocol::tree::{Action, Op, Room};

    use super::*;
    use crate::core::tests::core;

    #[test]
    fn while_the_server_takes_the_seat_away_a_change_waits_for_those_before_it() {
        let mut core = core();
        assert!(core.must_keep_seat().is_ok() && core.begin_leaving(true));
        assert!(core.must_keep_seat().is_ok(), "everything is durable");
        core.hold_changes(true);
        assert!(matches!(core.must_keep_seat(), Err(Stop::Pause(Pause::Progress))));
        core.hold_changes(false);
        let op = Op { time: core.now.wall, action: Action::ForgetOrphan { ino: Ino(9) } };
        let now = core.now.monotonic;
        core.uplink.log.append(op, Bytes::new(), [None; 2], Room::default(), now);
        assert!(matches!(core.must_keep_seat(), Err(Stop::Pause(Pause::Progress))));
        // The kernel would not write it again.
        core.session.writes_back = true;
        assert!(core.must_keep_seat().is_ok());
        core.lose_seat();
        assert!(core.must_have_seat().is_err(), "another client may have it");
    }
}
