//! What stands in mailboxes and was not sent: found again by the next session, sent when it can be,
//! and shown to people.

use xfer_protocol::tree::STATE_XATTR;
use xfer_protocol::{Ino, Name};

use super::drafts::{Place, Unsent, Unsents};
use super::temporary::is_temporary;
use crate::client::state::{Pause, State};

/// The most drafts that are named to people.
const NAMED_MAX: usize = 100;

impl State {
    /// What stands in mailboxes and was not sent: it becomes drafts again.
    pub(in crate::client) fn find_drafts(&mut self) -> Result<(), Pause> {
        let mut found = Vec::new();
        for (to, mailbox) in self.children(Ino::OUTBOX)? {
            for (name, ino) in self.children(mailbox)? {
                let node = self.node(ino)?;
                if node.sent.is_some() || self.drafts.get(ino).is_some() {
                    continue;
                }
                let why = match self.all_xattrs(ino)?.get(STATE_XATTR) {
                    Some(mark) => Some(Unsent::parse(mark)),
                    None if is_temporary(&name) => None,
                    None => Some(Unsent::Left),
                };
                found.push((ino, Place { mailbox, to: to.clone(), name }, why));
            }
        }
        let newest = self.handles.newest();
        for (ino, place, why) in found {
            self.note_draft(ino, place);
            match (why, self.drafts.get_mut(ino)) {
                (Some(Unsent::Waiting(_)), Some(draft)) => {
                    draft.why = why;
                    self.mark_waiting(ino)?;
                }
                (Some(why), _) => self.drafts.tear(ino, why, newest),
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// What can be sent by itself now, the smallest first of those to each user.
    pub(in crate::client) fn unsent(&mut self) -> Vec<(Name, Ino)> {
        let due = self.drafts.iter().filter(|(ino, draft)| {
            self.drafts.is_due(*ino, draft) && self.handles.writers(*ino) == 0
        });
        let due = due.map(|(ino, draft)| {
            let Place { to, name, .. } = &draft.place;
            (to.clone(), self.weigh(ino, name).ok().map(|weight| weight.room), ino)
        });
        let mut due: Vec<_> = due.collect();
        due.sort();
        due.into_iter().map(|(to, _, ino)| (to, ino)).collect()
    }

    /// Whether a program writes to a draft, or to a file in it.
    pub(in crate::client) fn is_written(&self, ino: Ino) -> bool {
        self.handles.writers(ino) > 0 || self.drafts.is_written(ino)
    }

    /// Tries once more to send something that was not.
    pub(in crate::client) fn send_again(&mut self, ino: Ino) -> Result<(), Pause> {
        if self.handles.writers(ino) > 0 || !self.drafts.make_due(ino) {
            return Ok(());
        }
        self.send_closed(ino)
    }

    /// How many drafts are not sent, and which: their paths, each with its state.
    pub(in crate::client) fn show_drafts(&self) -> (Unsents, Vec<(String, String)>) {
        let mut counts = Unsents::default();
        let mut named = Vec::new();
        for (ino, draft) in self.drafts.iter() {
            match draft.why {
                Some(Unsent::Waiting(_)) => counts.waiting += 1,
                Some(Unsent::Failed(_)) => counts.failed += 1,
                Some(Unsent::Killed | Unsent::Left) => counts.held += 1,
                None if !self.is_written(ino) => counts.held += 1,
                Some(Unsent::Due) | None => continue,
            }
            if named.len() < NAMED_MAX {
                let path = format!("outbox/{}/{}", draft.place.to, draft.place.name);
                named.push((path, draft.state(self.is_written(ino))));
            }
        }
        named.sort();
        (counts, named)
    }
}
