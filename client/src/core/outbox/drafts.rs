//! What stands in mailboxes and was not sent (or has to be sent again), and why.
//!
//! **Invariant:** everything in a mailbox that was not sent is a draft as long as the session lasts.
//! After it only what was marked `waiting` counts as whole: whatever else is found in a mailbox may
//! be half of a file, and is never sent by itself.
//!
//! **Invariant:** what is torn is not sent, nor is a directory with a torn file in it. Torn files are
//! noted wherever they stand, as long as somebody writes to them or there are directories among the
//! drafts: which of them are in such a directory is seen when it is about to be sent.
//!
//! **Invariant:** a directory is marked `waiting` only as long as nothing in it, under whichever name,
//! is written to, and nothing is added to it ([`Draft::members`]).

use std::collections::{BTreeMap, BTreeSet};

use xfer_protocol::limits::STATE_BYTES_MAX;
use xfer_protocol::{Errno, Ino, Name};

use super::temporary::is_temporary;
use crate::core::tree::HandleId;

/// Where a draft stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) struct Location {
    /// The mailbox.
    pub(in crate::core) mailbox: Ino,
    /// Whose it is.
    pub(in crate::core) to: Name,
    /// The draft's name in it.
    pub(in crate::core) name: Name,
}

/// InboxRoom in an inbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(in crate::core) struct InboxRoom {
    /// In bytes.
    pub(in crate::core) bytes: u64,
    /// In items.
    pub(in crate::core) items: u32,
}

/// Why something in a mailbox is not sent, though no program writes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Unsent {
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
pub(in crate::core) struct Draft {
    /// Where it stands.
    pub(in crate::core) location: Location,
    /// Why it is not sent; nothing, if it is being written.
    pub(in crate::core) why: Option<Unsent>,
    /// What is torn of it, as far as was seen: the file itself, or files in the directory.
    torn: Vec<Ino>,
    /// All that a directory consists of which is marked `waiting`, itself too.
    members: BTreeSet<Ino>,
    /// The room in the other's inbox that was granted for it.
    pub(in crate::core) room: InboxRoom,
}

impl Draft {
    /// Whether it is not sent by itself, whatever happens, before it is written anew or moved.
    pub(in crate::core) fn is_held(&self) -> bool {
        match self.why {
            Some(Unsent::Failed(_) | Unsent::Killed | Unsent::Left) => true,
            Some(Unsent::Due | Unsent::Waiting(_)) | None => false,
        }
    }

    /// Whether its name says that it is not whole.
    pub(in crate::core) fn is_temporary(&self) -> bool {
        is_temporary(&self.location.name)
    }

    /// What people read of it.
    pub(in crate::core) fn state(&self, is_written: bool) -> String {
        match &self.why {
            Some(why) => why.text(&self.location.to),
            None if is_written => "writing".to_owned(),
            None if self.is_temporary() => {
                "held: its name is one of a file that is not whole".to_owned()
            }
            None => "held: nothing was written to it yet".to_owned(),
        }
    }
}

impl Unsent {
    /// What people read, and what a file is marked with.
    pub(in crate::core) fn text(&self, to: &Name) -> String {
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
    pub(in crate::core) fn parse(mark: &[u8]) -> Unsent {
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

/// Why a file is not whole, or a directory that an earlier session left.
#[derive(Clone, Copy, Debug)]
struct Torn {
    why: Unsent,
    /// The newest handle there was then: one that is newer writes the file anew.
    since: HandleId,
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
pub(in crate::core) struct Drafts {
    all: BTreeMap<Ino, Draft>,
    /// Those that are directories.
    directories: BTreeSet<Ino>,
    /// Directories that wait until no program writes to a file in them; and whether a file was closed
    /// since they were last looked at.
    written: BTreeMap<Ino, bool>,
    torn: BTreeMap<Ino, Torn>,
}

impl Drafts {
    /// Notes something that stands in a mailbox, or stands elsewhere in one than before.
    pub(in crate::core) fn note(&mut self, ino: Ino, location: Location, is_directory: bool) {
        if is_directory {
            self.directories.insert(ino);
        }
        match self.all.get_mut(&ino) {
            Some(draft) => draft.location = location,
            None => {
                let (torn, members) = (Vec::new(), BTreeSet::new());
                let draft =
                    Draft { location, why: None, torn, members, room: InboxRoom::default() };
                self.all.insert(ino, draft);
            }
        }
    }

    pub(in crate::core) fn get(&self, ino: Ino) -> Option<&Draft> {
        self.all.get(&ino)
    }

    pub(in crate::core) fn get_mut(&mut self, ino: Ino) -> Option<&mut Draft> {
        self.all.get_mut(&ino)
    }

    /// Forgets a draft that was sent or left its mailbox. Its torn files stay noted: they may have other
    /// names.
    pub(in crate::core) fn remove(&mut self, ino: Ino) {
        self.all.remove(&ino);
        self.written.remove(&ino);
        self.directories.remove(&ino);
    }

    /// Takes something for whole, whatever was known of it.
    pub(in crate::core) fn mend(&mut self, ino: Ino) {
        self.torn.remove(&ino);
        let Some(draft) = self.all.get_mut(&ino) else { return };
        draft.why = None;
        for torn in draft.torn.drain(..) {
            self.torn.remove(&torn);
        }
    }

    /// Notes that a file in a directory is written to.
    pub(in crate::core) fn wait_for_writers(&mut self, directory: Ino) {
        if let Some(draft) = self.all.get_mut(&directory).filter(|draft| !draft.is_held()) {
            draft.why = None;
            draft.members.clear();
            self.written.insert(directory, false);
        }
    }

    /// Has directories tried again that wait for those who write to files in them, as a file was
    /// closed. Says whether there are any.
    pub(in crate::core) fn retry_written(&mut self) -> bool {
        self.written.values_mut().for_each(|closed| *closed = true);
        !self.written.is_empty()
    }

    /// Whether a directory waits for those who write to files in it.
    pub(in crate::core) fn is_written(&self, directory: Ino) -> bool {
        self.written.contains_key(&directory)
    }

    /// Whether something is to be tried now: it is whole as far as is known.
    pub(in crate::core) fn is_due(&self, ino: Ino, draft: &Draft) -> bool {
        let is_whole = match draft.why {
            Some(Unsent::Due | Unsent::Waiting(_)) => true,
            Some(Unsent::Failed(_) | Unsent::Killed | Unsent::Left) => false,
            None => self.written.get(&ino).copied().unwrap_or(false),
        };
        is_whole && !draft.is_temporary()
    }

    /// Notes what a directory consists of that is about to be marked `waiting`.
    pub(in crate::core) fn set_members(&mut self, directory: Ino, members: Vec<Ino>) {
        if let Some(draft) = self.all.get_mut(&directory) {
            draft.members = members.into_iter().collect();
        }
    }

    /// The directories marked `waiting` that something is in, or is.
    pub(in crate::core) fn waiting_with(&self, ino: Ino) -> Vec<Ino> {
        let is_member = |directory: &Ino| {
            self.all.get(directory).is_some_and(|draft| draft.members.contains(&ino))
        };
        self.directories.iter().copied().filter(is_member).collect()
    }

    /// Has directories looked at again that are held or written to, since a file may have left them.
    /// Says whether there are any.
    pub(in crate::core) fn look_again(&mut self) -> bool {
        let mut any = self.retry_written();
        for directory in &self.directories {
            if let Some(draft) = self.all.get_mut(directory)
                && draft.is_held()
                && !draft.torn.contains(directory)
            {
                draft.why = Some(Unsent::Due);
                draft.torn.clear();
                any = true;
            }
        }
        any
    }

    /// Whether anything depends on a file being whole.
    pub(in crate::core) fn depend_on(&self, ino: Ino) -> bool {
        !self.directories.is_empty() || self.all.contains_key(&ino)
    }

    /// Lets something be sent, unless it is held. Says whether it is to be.
    pub(in crate::core) fn make_due(&mut self, ino: Ino) -> bool {
        match self.all.get_mut(&ino) {
            Some(draft) if !draft.is_held() => {
                draft.why = Some(Unsent::Due);
                self.written.remove(&ino);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether everything was sent.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(in crate::core) fn iter(&self) -> impl Iterator<Item = (Ino, &Draft)> {
        self.all.iter().map(|(ino, draft)| (*ino, draft))
    }

    /// Whether anything is known to be torn.
    pub(in crate::core) fn has_torn(&self) -> bool {
        !self.torn.is_empty()
    }

    /// Why a file is not whole, if it is not.
    pub(in crate::core) fn torn(&self, ino: Ino) -> Option<Unsent> {
        self.torn.get(&ino).map(|torn| torn.why)
    }

    /// Notes that something is not whole. `newest` is the newest handle there is.
    pub(in crate::core) fn tear(&mut self, ino: Ino, why: Unsent, newest: HandleId) {
        self.torn.insert(ino, Torn { why, since: newest });
        self.hold(ino, &[ino]);
    }

    /// Forgets torn files that no program writes to, unless a draft depends on them.
    pub(in crate::core) fn forget_torn(&mut self, is_written: impl Fn(Ino) -> bool) {
        if self.directories.is_empty() {
            self.torn.retain(|ino, _| self.all.contains_key(ino) || is_written(*ino));
        }
    }

    /// Holds a draft for what is torn of it.
    pub(in crate::core) fn hold(&mut self, ino: Ino, torn: &[Ino]) {
        let Some(why) = torn.iter().find_map(|torn| self.torn(*torn)) else { return };
        if let Some(draft) = self.all.get_mut(&ino) {
            draft.why = Some(why);
            draft.torn = torn.to_vec();
        }
    }

    /// Notes that a file's data changed. A refused file is tried again. A torn file is whole again if it
    /// was emptied, or is written through a handle newer than the failure. Says whether that
    /// releases a directory.
    pub(in crate::core) fn changed(&mut self, ino: Ino, change: DataChange) -> bool {
        let Some(torn) = self.torn.get(&ino) else {
            if let Some(draft) = self.all.get_mut(&ino) {
                draft.why = None;
            }
            return false;
        };
        let anew = match change {
            DataChange::Emptied => true,
            DataChange::By(handle) => handle.0 > torn.since.0,
            DataChange::ByPath => false,
        };
        anew && self.is_torn_no_more(ino)
    }

    /// A torn file is whole again, or gone. Says whether a directory can be sent for it that was held.
    pub(in crate::core) fn is_torn_no_more(&mut self, ino: Ino) -> bool {
        if self.torn.remove(&ino).is_none() {
            return false;
        }
        let holders = self.all.iter().filter(|(_, draft)| draft.torn.contains(&ino));
        let holders: Vec<Ino> = holders.map(|(holder, _)| *holder).collect();
        let mut any = false;
        for holder in holders {
            if let Some(draft) = self.all.get_mut(&holder) {
                draft.why = None;
                draft.torn.clear();
            }
            any |= holder != ino && self.make_due(holder);
        }
        any
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
