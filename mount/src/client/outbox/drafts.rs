//! What stands in mailboxes and was not sent (or has to be sent again), and why.
//!
//! **Invariant:** everything in a mailbox that was not sent is a draft as long as the session lasts.
//! After it only what was marked `waiting` counts as whole: whatever else is found in a mailbox may
//! be half of a file, and is never sent by itself.

use std::collections::{HashMap, HashSet};

use xfer_protocol::limits::STATE_BYTES_MAX;
use xfer_protocol::{Errno, Ino, Name};

use super::temporary::is_temporary;
use crate::client::handles::HandleId;

/// Where a draft stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::client) struct Place {
    /// The mailbox.
    pub(in crate::client) mailbox: Ino,
    /// Whose it is.
    pub(in crate::client) to: Name,
    /// The draft's name in it.
    pub(in crate::client) name: Name,
}

/// Room in an inbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(in crate::client) struct Room {
    /// In bytes.
    pub(in crate::client) bytes: u64,
    /// In items.
    pub(in crate::client) items: u32,
}

/// Why something in a mailbox is not sent, though no program writes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::client) enum Unsent {
    /// It is whole, and about to be sent.
    Due,
    /// It is refused for now, and tried again by itself.
    Waiting(Errno),
    /// Part of it could not be written.
    Failed(Errno),
    /// A program that had it open to write was killed.
    Killed,
    /// The session that wrote it ended before it was closed.
    Left,
}

/// Something that was not sent.
#[derive(Debug)]
pub(in crate::client) struct Draft {
    /// Where it stands.
    pub(in crate::client) place: Place,
    /// Why it is not sent; nothing, if it is being written.
    pub(in crate::client) why: Option<Unsent>,
    /// The newest handle there was when it failed: one that is newer writes it anew.
    since: HandleId,
    /// The room in the other's inbox that was granted for it.
    pub(in crate::client) room: Room,
}

impl Draft {
    /// Whether it is not sent by itself, whatever happens, before it is written anew or moved.
    pub(in crate::client) fn is_held(&self) -> bool {
        match self.why {
            Some(Unsent::Failed(_) | Unsent::Killed | Unsent::Left) => true,
            Some(Unsent::Due | Unsent::Waiting(_)) | None => false,
        }
    }

    /// Whether its name says that it is not whole.
    pub(in crate::client) fn is_temporary(&self) -> bool {
        is_temporary(&self.place.name)
    }

    /// What people read of it.
    pub(in crate::client) fn state(&self, writers: u32) -> String {
        match &self.why {
            Some(why) => why.text(&self.place.to),
            None if writers == 0 && self.is_temporary() => {
                "held: its name is one of a file that is not whole".to_owned()
            }
            None => "writing".to_owned(),
        }
    }
}

impl Unsent {
    /// What people read, and what a file is marked with.
    pub(in crate::client) fn text(&self, to: &Name) -> String {
        let text = match self {
            Unsent::Due => "sending".to_owned(),
            Unsent::Waiting(Errno::EDQUOT) => format!("waiting: the inbox of {to} is full"),
            Unsent::Waiting(Errno::ENOENT) => format!("waiting: there is no user {to}"),
            Unsent::Waiting(errno) => format!("waiting: {errno}"),
            Unsent::Failed(errno) => format!("failed: {errno}"),
            Unsent::Killed => Unsent::KILLED.to_owned(),
            Unsent::Left => "held: the mount ended before it was sent".to_owned(),
        };
        // Names are at most 64 bytes, and what can't be shown of one takes three bytes each.
        text.chars()
            .scan(0, |len, c| {
                *len += c.len_utf8();
                (*len <= STATE_BYTES_MAX).then_some(c)
            })
            .collect()
    }

    /// Reads a mark back.
    pub(in crate::client) fn parse(mark: &[u8]) -> Unsent {
        let mark = String::from_utf8_lossy(mark);
        if mark.starts_with("waiting: ") {
            return Unsent::Waiting(Errno::EDQUOT);
        }
        match mark.strip_prefix("failed: ") {
            Some(text) => Unsent::Failed(Errno::from_text(text).unwrap_or(Errno::EIO)),
            None if mark == Unsent::KILLED => Unsent::Killed,
            None => Unsent::Left,
        }
    }

    const KILLED: &str = "held: the writing program was killed";
}

/// How many drafts there are, by why they are not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unsents {
    /// Those that are tried again by themselves.
    pub waiting: usize,
    /// Those of which part could not be written.
    pub failed: usize,
    /// Those that may not be whole.
    pub held: usize,
}

/// All drafts, by their nodes.
#[derive(Debug, Default)]
pub(in crate::client) struct Drafts {
    all: HashMap<Ino, Draft>,
    /// Directories that are sent when nobody writes to a file in them any more.
    written: HashSet<Ino>,
}

impl Drafts {
    /// Notes something that stands in a mailbox, or stands elsewhere in one than before.
    pub(in crate::client) fn note(&mut self, ino: Ino, place: Place) {
        match self.all.get_mut(&ino) {
            Some(draft) => draft.place = place,
            None => {
                let draft = Draft { place, why: None, since: HandleId(0), room: Room::default() };
                self.all.insert(ino, draft);
            }
        }
    }

    pub(in crate::client) fn get(&self, ino: Ino) -> Option<&Draft> {
        self.all.get(&ino)
    }

    pub(in crate::client) fn get_mut(&mut self, ino: Ino) -> Option<&mut Draft> {
        self.all.get_mut(&ino)
    }

    /// Forgets something that was sent, or went from its mailbox.
    pub(in crate::client) fn remove(&mut self, ino: Ino) {
        self.all.remove(&ino);
        self.written.remove(&ino);
    }

    /// Notes that a file in a directory is still written to.
    pub(in crate::client) fn wait_for_writers(&mut self, directory: Ino) {
        self.written.insert(directory);
    }

    /// Whether directories wait for those who write to files in them.
    pub(in crate::client) fn has_written_directories(&self) -> bool {
        !self.written.is_empty()
    }

    /// Lets something be sent, unless it is held. Says whether it is to be.
    pub(in crate::client) fn make_due(&mut self, ino: Ino) -> bool {
        match self.all.get_mut(&ino) {
            Some(draft) if !draft.is_held() => {
                draft.why = Some(Unsent::Due);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether everything was sent.
    pub(in crate::client) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(in crate::client) fn iter(&self) -> impl Iterator<Item = (Ino, &Draft)> {
        self.all.iter().map(|(ino, draft)| (*ino, draft))
    }

    /// Notes that something is not whole. `newest` is the newest handle there is.
    pub(in crate::client) fn hold(&mut self, ino: Ino, why: Unsent, newest: HandleId) {
        if let Some(draft) = self.all.get_mut(&ino) {
            draft.why = Some(why);
            draft.since = newest;
        }
    }

    /// Notes that data of something changed: what was refused is asked for anew, and what failed is
    /// forgotten if it is written from the start, or through a handle that is newer than that.
    pub(in crate::client) fn changed(&mut self, ino: Ino, change: DataChange) {
        let Some(draft) = self.all.get_mut(&ino) else { return };
        let anew = match change {
            DataChange::Emptied => true,
            DataChange::By(handle) => handle.0 > draft.since.0,
            DataChange::ByPath => false,
        };
        if anew || !draft.is_held() {
            draft.why = None;
        }
    }
}

/// How data of a file changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataChange {
    /// Through a handle.
    By(HandleId),
    /// By the file's name.
    ByPath,
    /// All of it went.
    Emptied,
}
