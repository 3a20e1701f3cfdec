//! Drafts over time: those of earlier sessions are found again, drafts are sent when they can be,
//! and people are shown the rest.

use std::time::Duration;

use xfer_protocol::tree::STATE_XATTR;
use xfer_protocol::{Ino, Name};

use super::drafts::{Draft, Location, Unsent, Unsents};
use super::rest::Rest;
use crate::core::pause::Stop;
use crate::core::state::Core;

/// The most drafts that people are shown by name.
const NAMED_MAX: usize = 100;

/// The work for the task that tends the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutboxDue {
    /// A number for the set of users, which rises whenever the set changes.
    pub(crate) users: u64,
    /// A number that rises whenever other clients have changed the tree: drafts must be found again.
    pub(crate) tenure: usize,
    /// Whether a draft should be tried again soon.
    pub(crate) resend: bool,
    /// The time after which a draft that began to rest may be sent.
    pub(crate) rested: Option<Duration>,
}

impl Core {
    /// Takes the work that is due in the outbox. `None` if the session accepts no more changes. While
    /// another client has the seat, there is none.
    pub(crate) fn take_outbox_due(&mut self) -> Option<OutboxDue> {
        let resend = self.outbox.take_resend();
        let (users, tenure) = (self.outbox.users_changes, self.tenure());
        let now = self.now.monotonic;
        let rested = self.outbox.rested.take().map(|until| until.saturating_duration_since(now));
        let due = OutboxDue { users, tenure, resend, rested };
        self.takes_changes().then_some(due)
    }

    /// Forgets that a draft should be tried again soon.
    pub(crate) fn forget_resend(&mut self) {
        self.outbox.take_resend();
    }

    /// Finds the drafts that earlier sessions have left, unless that was done.
    pub(in crate::core) fn know_drafts(&mut self) -> Result<(), Stop> {
        if self.outbox.are_drafts_found { Ok(()) } else { self.find_drafts() }
    }

    /// Finds the unsent nodes in all mailboxes, which become drafts again. Only a node that is
    /// marked `waiting` counts as complete.
    pub(crate) fn find_drafts(&mut self) -> Result<(), Stop> {
        let mut found = Vec::new();
        for (to, mailbox) in self.children(Ino::OUTBOX)? {
            for (name, ino) in self.children(mailbox)? {
                let node = self.node(ino)?;
                if node.sent.is_some() || self.outbox.drafts.get(ino).is_some() {
                    continue;
                }
                let mark = self.all_xattrs(ino)?.get(STATE_XATTR).cloned();
                if mark.is_some()
                    && node.is_directory()
                    && let Err(Stop::Pause(pause)) = self.weigh(ino, &name)
                {
                    // All that is needed below is loaded first: a draft that is noted is not looked at again.
                    return Err(pause.into());
                }
                found.push((ino, Location { mailbox, to: to.clone(), name }, mark));
            }
        }
        let newest = self.handles.newest();
        for (ino, place, mark) in found {
            let name = place.name.clone();
            self.note_draft(ino, place);
            let (rest, now) = (self.rest_of(ino)?, self.now.monotonic);
            match mark.map_or(Unsent::Left, |mark| Unsent::parse(&mark, rest, now)) {
                Unsent::AtRest(rest, until) => {
                    self.rest_until(ino, rest, until);
                    if rest == Rest::Directory {
                        // It is marked, so changes in it must be noticed.
                        let members = self.weigh(ino, &name)?.members;
                        self.outbox.drafts.set_members(ino, members);
                    }
                }
                why @ (Unsent::Waiting(_) | Unsent::Due) => {
                    if let Some(draft) = self.outbox.drafts.get_mut(ino) {
                        draft.why = Some(why);
                    }
                    self.mark_waiting(ino)?;
                }
                why @ (Unsent::Failed(_) | Unsent::Killed | Unsent::Left | Unsent::Cancelled) => {
                    self.outbox.drafts.tear(ino, why, newest);
                }
            }
        }
        self.outbox.are_drafts_found = true;
        Ok(())
    }

    /// The drafts that can be sent now, in the order of [`Core::in_order`].
    pub(crate) fn unsent(&mut self) -> Vec<(Name, Ino)> {
        let now = self.now.monotonic;
        self.in_order(|ino, draft| self.outbox.drafts.is_due(ino, draft, now))
    }

    /// The drafts that have rested until now, in the order of [`Core::in_order`]. The others are looked at
    /// when they have.
    pub(crate) fn rested(&mut self) -> Vec<(Name, Ino)> {
        let now = self.now.monotonic;
        let rests = self.outbox.drafts.iter().filter_map(|(ino, draft)| match draft.why {
            // One that is open for writing is looked at when it is closed.
            Some(Unsent::AtRest(_, until)) if self.handles.writers(ino) == 0 => Some(until),
            Some(_) | None => None,
        });
        let next = rests.filter(|until| *until > now).min();
        next.into_iter().for_each(|next| self.outbox.rests_until(next));
        self.in_order(
            |_, draft| matches!(draft.why, Some(Unsent::AtRest(_, until)) if until <= now),
        )
    }

    /// Some of the drafts that no program has open for writing, ordered by user and size, the smallest
    /// first.
    fn in_order(&self, is_meant: impl Fn(Ino, &Draft) -> bool) -> Vec<(Name, Ino)> {
        let meant = self
            .outbox
            .drafts
            .iter()
            .filter(|(ino, draft)| is_meant(*ino, draft) && self.handles.writers(*ino) == 0);
        let meant = meant.map(|(ino, draft)| {
            let Location { to, name, .. } = &draft.location;
            (to.clone(), self.weigh(ino, name).ok().map(|weight| weight.room), ino)
        });
        let mut meant: Vec<_> = meant.collect();
        meant.sort();
        meant.into_iter().map(|(to, _, ino)| (to, ino)).collect()
    }

    /// Whether a program writes to a draft, or to a file in it.
    pub(in crate::core) fn is_written(&self, ino: Ino) -> bool {
        self.handles.writers(ino) > 0 || self.outbox.drafts.is_written(ino)
    }

    /// Tries once more to send a draft, if it has been left alone for long enough.
    pub(crate) fn send_again(&mut self, ino: Ino) -> Result<(), Stop> {
        let Some(draft) = self.outbox.drafts.get(ino) else { return Ok(()) };
        let must_rest = match draft.why {
            Some(Unsent::AtRest(..)) => true,
            // A directory in which a program wrote.
            None => self.outbox.drafts.is_written(ino),
            Some(_) => false,
        };
        if self.handles.writers(ino) > 0 || must_rest && !self.has_rested(ino)? {
            return Ok(());
        }
        match self.outbox.drafts.make_due(ino) {
            true => self.send_closed(ino),
            false => Ok(()),
        }
    }

    /// The numbers of drafts by reason, and some of them by path and state.
    pub(in crate::core) fn show_drafts(&self) -> (Unsents, Vec<(String, String)>) {
        let mut counts = Unsents::default();
        let mut named = Vec::new();
        for (ino, draft) in self.outbox.drafts.iter() {
            match draft.why {
                Some(Unsent::Waiting(_) | Unsent::AtRest(..)) => counts.waiting += 1,
                Some(Unsent::Failed(_)) => counts.failed += 1,
                Some(Unsent::Killed | Unsent::Left | Unsent::Cancelled) => counts.held += 1,
                None if !self.is_written(ino) => counts.held += 1,
                Some(Unsent::Due) | None => continue,
            }
            if named.len() < NAMED_MAX {
                let path = format!("outbox/{}/{}", draft.location.to, draft.location.name);
                named.push((path, draft.state(self.is_written(ino))));
            }
        }
        named.sort();
        (counts, named)
    }
}
