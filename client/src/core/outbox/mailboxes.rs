//! Mailboxes: the directories of the outbox, one for each user that can be sent to.
//!
//! **Invariant:** a mailbox is never renamed or removed. That of a removed user is only hidden,
//! once it is empty.

use std::collections::BTreeSet;

use xfer_protocol::tree::{Action, Owner};
use xfer_protocol::{Ino, Name};

use crate::core::notice::Notice;
use crate::core::pause::Stop;
use crate::core::state::Core;

impl Core {
    /// The user whose mailbox a directory is, if it is one.
    pub(in crate::core) fn mailbox(&mut self, directory: Ino) -> Result<Option<Name>, Stop> {
        // A known mailbox stays one, since mailboxes are never renamed or removed.
        if let Some(user) = self.outbox.mailboxes.get(&directory) {
            return Ok(Some(user.clone()));
        }
        let parent = self.known_node(directory).and_then(|node| node.parent());
        if parent != Some(Ino::OUTBOX) {
            return Ok(None);
        }
        let mailboxes = self.children(Ino::OUTBOX)?;
        self.outbox.mailboxes = mailboxes.into_iter().map(|(user, ino)| (ino, user)).collect();
        Ok(self.outbox.mailboxes.get(&directory).cloned())
    }

    /// Whether a mailbox is hidden, because its user was removed and it is empty.
    pub(in crate::core) fn is_hidden(&self, user: &Name, mailbox: Ino) -> Result<bool, Stop> {
        Ok(!self.outbox.users.contains(user) && self.children(mailbox)?.is_empty())
    }

    /// Has the kernel forget a mailbox that has become hidden. Must be called after an entry was
    /// taken from it.
    pub(in crate::core) fn hide_if_empty(&mut self, mailbox: Ino) {
        let Some(user) = self.outbox.mailboxes.get(&mailbox) else { return };
        if matches!(self.is_hidden(user, mailbox), Ok(true)) {
            self.notices.push(Notice::Entry(Ino::OUTBOX, user.clone()));
            self.notices.push(Notice::Contents(Ino::OUTBOX));
        }
    }

    /// Makes the mailboxes that are missing.
    pub(crate) fn make_mailboxes(&mut self, owner: Owner) -> Result<(), Stop> {
        let there = self.children(Ino::OUTBOX)?;
        let there: BTreeSet<&Name> = there.iter().map(|(name, _)| name).collect();
        let missing = self.outbox.users.iter().filter(|user| !there.contains(user));
        for user in missing.cloned().collect::<Vec<Name>>() {
            let ino = Ino(self.fresh()?);
            self.change(Action::Mailbox { user: user.clone(), ino, owner })?;
            self.outbox.mailboxes.insert(ino, user);
        }
        Ok(())
    }
}
