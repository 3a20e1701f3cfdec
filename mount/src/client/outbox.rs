//! Sending: what stands in a mailbox is sent when it is whole.
//!
//! A file is whole when its last writing handle closes, or when it is renamed to a name that is
//! not a temporary one. Room in the other's inbox is asked for before, so that a full inbox is told
//! to the program that sends.

use std::collections::HashMap;

use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::tree::{Action, Item, Loaded, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::state::{Pause, RoomNeed, State};

/// How many nodes' attributes are asked for at a time, for what is to be sent.
const LOADED_AT_ONCE: usize = 64;

/// What stands in mailboxes and was not sent, by its node.
#[derive(Debug, Default)]
pub(super) struct Drafts(HashMap<Ino, Draft>);

/// What is known of something that was not sent.
#[derive(Debug, Default)]
struct Draft {
    /// Bytes in the other's inbox that are kept for it.
    bytes: u64,
    /// Items in the other's inbox that are kept for it.
    items: u32,
    /// Whether the program that closed it last was told that it is not sent.
    refused: bool,
}

impl Drafts {
    /// Notes room that was granted.
    pub(super) fn grant(&mut self, room: &RoomNeed) {
        let draft = self.0.entry(room.ino).or_default();
        (draft.bytes, draft.items) = (room.bytes, room.items);
    }

    /// Notes that there is no room.
    pub(super) fn refuse(&mut self, ino: Ino) {
        self.0.entry(ino).or_default().refused = true;
    }

    /// Notes something that stands in a mailbox.
    pub(super) fn note(&mut self, ino: Ino) {
        self.0.entry(ino).or_default();
    }
}

impl State {
    /// The user whose mailbox a directory is, if it is one.
    pub(super) fn mailbox(&self, directory: Ino) -> Result<Option<Name>, Pause> {
        match self.table.node(directory) {
            Loaded::Present(node) if node.parent() == Some(Ino::OUTBOX) => {}
            Loaded::Present(_) | Loaded::Absent | Loaded::Unknown => return Ok(None),
        }
        let mailboxes = self.children(Ino::OUTBOX)?;
        Ok(mailboxes.into_iter().find(|(_, ino)| *ino == directory).map(|(name, _)| name))
    }

    /// Where a node stands in a mailbox: the other user, and the node's name.
    fn draft(&self, ino: Ino) -> Result<Option<(Name, Name)>, Pause> {
        for (user, mailbox) in self.children(Ino::OUTBOX)? {
            let here = self.children(mailbox)?.into_iter().find(|(_, entry)| *entry == ino);
            if let Some((name, _)) = here {
                return Ok(Some((user, name)));
            }
        }
        Ok(None)
    }

    /// Asks for room for what is about to be closed, if that will send it.
    pub(super) fn prepare_close(&mut self, ino: Ino) -> Result<(), Pause> {
        match self.drafts.0.get_mut(&ino) {
            Some(draft) => draft.refused = false,
            None => return Ok(()),
        }
        match self.draft(ino)? {
            Some((to, name)) if !is_temporary(&name) => self.must_have_room(ino, to, &name),
            Some(_) | None => Ok(()),
        }
    }

    /// Sends what was closed, if it stands in a mailbox and nobody writes to it any more.
    pub(super) fn send_closed(&mut self, ino: Ino) -> Result<(), Pause> {
        let waits = self.drafts.0.get(&ino).is_some_and(|draft| !draft.refused);
        if self.handles.writers(ino) > 0 || !waits {
            return Ok(());
        }
        match self.draft(ino)? {
            // While room was asked for, somebody else who closed it has sent it.
            Some(_) if self.node(ino)?.sent.is_some() => {
                self.drafts.0.remove(&ino);
                Ok(())
            }
            Some((to, name)) if !is_temporary(&name) => {
                self.must_have_room(ino, to.clone(), &name)?;
                self.send(ino, to, name)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Asks for room for what is about to be renamed into a mailbox.
    pub(super) fn prepare_rename(&mut self, moved: Ino, to: Ino, name: &Name) -> Result<(), Pause> {
        match self.mailbox(to)? {
            Some(user) if !is_temporary(name) && self.node(moved)?.sent.is_none() => {
                self.must_have_room(moved, user, name)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Sends what was renamed into a mailbox, unless a program still writes to it.
    pub(super) fn send_renamed(&mut self, moved: Ino, to: Ino, name: &Name) -> Result<(), Pause> {
        let Some(user) = self.mailbox(to)? else { return Ok(()) };
        if is_temporary(name) || self.node(moved)?.sent.is_some() {
            return Ok(());
        }
        if self.handles.writers(moved) > 0 {
            self.drafts.note(moved);
            return Ok(());
        }
        self.send(moved, user, name.clone())
    }

    /// What stands in mailboxes and was not sent: it becomes drafts again, whoever made it.
    pub(super) fn unsent(&mut self) -> Result<Vec<Ino>, Pause> {
        let mut unsent = Vec::new();
        for (_, mailbox) in self.children(Ino::OUTBOX)? {
            for (_, ino) in self.children(mailbox)? {
                if self.node(ino)?.sent.is_none() {
                    unsent.push(ino);
                }
            }
        }
        unsent.iter().for_each(|ino| self.drafts.note(*ino));
        Ok(unsent)
    }

    /// Tries once more to send something that was not.
    pub(super) fn send_again(&mut self, ino: Ino) -> Result<(), Pause> {
        if let Some(draft) = self.drafts.0.get_mut(&ino) {
            draft.refused = false;
        }
        self.send_closed(ino)
    }

    /// Sends what stands in a mailbox.
    pub(super) fn send(&mut self, ino: Ino, to: Name, name: Name) -> Result<(), Pause> {
        let delivery = DeliveryId(self.fresh()?);
        self.change(Action::Send { to, name, from: self.user.clone(), delivery })?;
        self.drafts.0.remove(&ino);
        Ok(())
    }

    /// Makes the mailboxes that are missing.
    pub(super) fn make_mailboxes(
        &mut self,
        owner: xfer_protocol::tree::Owner,
    ) -> Result<(), Pause> {
        let there = self.children(Ino::OUTBOX)?;
        let missing = |user: &&Name| !there.iter().any(|(name, _)| name == *user);
        let missing: Vec<Name> = self.users.iter().filter(missing).cloned().collect();
        for user in missing {
            let ino = Ino(self.fresh()?);
            self.change(Action::Mailbox { user, ino, owner })?;
        }
        Ok(())
    }

    fn must_have_room(&mut self, ino: Ino, to: Name, name: &Name) -> Result<(), Pause> {
        let (bytes, items) = self.weigh(ino, name)?;
        if !self.users.contains(&to) {
            return Err(Errno::ENOENT.into());
        }
        let (kept, count) = self.drafts.0.get(&ino).map_or((0, 0), |d| (d.bytes, d.items));
        match bytes <= kept && items <= count {
            true => Ok(()),
            false => Err(Pause::Room(RoomNeed { ino, to, bytes, items })),
        }
    }

    /// What a node of this name and all that is in it come to: bytes and items. Afterwards all is
    /// loaded that is sent of them, so that to send them needs nothing more.
    fn weigh(&self, ino: Ino, name: &Name) -> Result<(u64, u32), Pause> {
        let (mut bytes, mut items, mut waiting) = (0, 0, vec![(name.clone(), ino)]);
        let mut missing = Vec::new();
        while let Some((name, ino)) = waiting.pop() {
            let node = self.node(ino)?;
            items += 1;
            if items as usize > DELIVERY_ITEMS_MAX {
                return Err(Errno::EDQUOT.into());
            }
            match self.all_xattrs(ino) {
                Err(Pause::Rows(needs)) if missing.len() < LOADED_AT_ONCE => missing.extend(needs),
                Err(Pause::Rows(_)) => break,
                all => drop(all?),
            }
            bytes += Item::bytes_of(&name, &node);
            if node.is_directory() {
                waiting.extend(self.children(ino)?);
            }
        }
        if missing.is_empty() { Ok((bytes, items)) } else { Err(Pause::Rows(missing)) }
    }
}

/// Whether common tools use such a name while a file is not whole yet.
fn is_temporary(name: &Name) -> bool {
    let name = name.as_bytes();
    let hidden = name.starts_with(b".");
    let suffixes: [&[u8]; 6] = [b"~", b".part", b".partial", b".crdownload", b".tmp", b".filepart"];
    let prefixes: [&[u8]; 4] = [b".goutputstream-", b".~lock", b".nfs", b".fuse_hidden"];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
        || (hidden && is_vim_swap(name))
        || (hidden && is_rsync_temporary(name))
        || is_vim_probe(name)
}

/// `.name.swp`, and `.swo`, `.swn` and so on when there are several; and `.swx`.
fn is_vim_swap(name: &[u8]) -> bool {
    matches!(name, [.., b'.', b's', b'w', b'a'..=b'z'])
}

/// `.name.XXXXXX`, where the last six are letters and digits.
fn is_rsync_temporary(name: &[u8]) -> bool {
    name.len() > 8
        && name[name.len() - 7] == b'.'
        && name[name.len() - 6..].iter().all(u8::is_ascii_alphanumeric)
}

/// vim makes a file `4913` (or a multiple of 123 more) to see whether it can write here.
fn is_vim_probe(name: &[u8]) -> bool {
    let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<u32>().ok());
    number.is_some_and(|number| (4913..10_000).contains(&number) && (number - 4913) % 123 == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, temporary: bool) {
        assert_eq!(is_temporary(&Name::new(name.as_bytes()).unwrap()), temporary, "{name}");
    }

    #[test]
    fn temporary_names_of_common_tools_wait_for_their_rename() {
        check(".report.txt.swp", true);
        check(".report.txt.swo", true);
        check(".goutputstream-ABC123", true);
        check("movie.mkv.part", true);
        check(".~lock.letter.odt#", true);
        check(".photo.jpg.a1B2c3", true);
        check("notes.txt~", true);
        check("4913", true);
    }

    #[test]
    fn ordinary_names_are_sent() {
        check("report.txt", false);
        check(".bashrc", false);
        check("party", false);
        check("2024", false);
        check(".config", false);
    }
}
