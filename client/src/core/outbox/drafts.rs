//! Drafts: nodes in mailboxes that are not sent (or must be sent again), and the reasons.
//!
//! This is plain data. It makes no ops and asks for no room; [`super::sending`] and
//! [`super::failures`] do.
//!
//! **Invariant:** while a session lasts, every unsent node in a mailbox is a draft. A later session
//! takes it for complete only if it is marked `waiting`. Anything else in a mailbox may be half of
//! a file, and is never sent automatically.
//!
//! **Invariant:** a torn file is not sent, nor is a directory that contains one. But a node that is
//! moved in from another directory is sent as it is, so its torn files that no program writes to
//! count as complete from then on. Torn files are noted wherever they are in the tree, as long as a
//! program writes to them or any draft is a directory. Which of them are in a directory is found
//! out only when that is about to be sent.
//!
//! **Invariant:** a directory is marked `waiting` only as long as no program writes to a file in
//! it, under any of the file's names, and nothing is added to it ([`Draft::members`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use xfer_protocol::limits::STATE_BYTES_MAX;
use xfer_protocol::{Errno, Ino, Name};

use super::rest::Rest;
use super::temporary::is_temporary;
use crate::core::tree::HandleId;

/// The place of a draft.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) struct Location {
    /// The mailbox.
    pub(in crate::core) mailbox: Ino,
    /// The user that it sends to.
    pub(in crate::core) to: Name,
    /// The draft's name in it.
    pub(in crate::core) name: Name,
}

/// Room in an inbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(in crate::core) struct InboxRoom {
    pub(in crate::core) bytes: u64,
    pub(in crate::core) items: u32,
}

/// Why a draft is not sent, though no program writes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Unsent {
    /// It is complete and about to be sent.
    Due,
    /// It is complete as far as is known, and sent once it was left alone for a while: not before this
    /// time.
    AtRest(Rest, Instant),
    /// It was refused for now, and is tried again automatically.
    Waiting(Errno),
    /// A change of its data failed.
    Failed(Errno),
    /// A program that had it open for writing was killed.
    Killed,
    /// The session in which it was written ended before it was sent.
    Left,
    /// Its user ordered that it is not sent.
    Cancelled,
}

/// A node in a mailbox that was not sent.
#[derive(Debug)]
pub(in crate::core) struct Draft {
    pub(in crate::core) location: Location,
    /// Why it is not sent. `None` if it is being written, or if nothing was written to it yet.
    pub(in crate::core) why: Option<Unsent>,
    /// Whether a program has had it open for writing.
    was_open: bool,
    /// The torn files that keep it from being sent, as last seen: the file itself, or files in the
    /// directory.
    torn: Vec<Ino>,
    /// All nodes of a directory that is marked `waiting`, itself too. Empty for other drafts.
    members: BTreeSet<Ino>,
    /// The room in the recipient's inbox that is reserved for it.
    pub(in crate::core) room: InboxRoom,
}

impl Draft {
    /// Whether it stays unsent until it is written again or moved.
    pub(in crate::core) fn is_held(&self) -> bool {
        match self.why {
            Some(Unsent::Failed(_) | Unsent::Killed | Unsent::Left | Unsent::Cancelled) => true,
            Some(Unsent::Due | Unsent::AtRest(..) | Unsent::Waiting(_)) | None => false,
        }
    }

    /// Whether it is a file that was made, and that no program has opened for writing.
    pub(in crate::core) fn is_only_made(&self) -> bool {
        self.why.is_none() && !self.was_open
    }

    /// Whether its name marks it as incomplete.
    pub(in crate::core) fn is_temporary(&self) -> bool {
        is_temporary(&self.location.name)
    }

    /// Its state, as people read it.
    pub(in crate::core) fn state(&self, is_written: bool) -> String {
        match &self.why {
            Some(why) => why.text(&self.location.to),
            None if is_written => "writing".to_owned(),
            None => "held: nothing was written to it yet".to_owned(),
        }
    }
}

impl Unsent {
    /// The text that people read, and that a node is marked with.
    pub(in crate::core) fn text(&self, to: &Name) -> String {
        let text = match self {
            Unsent::Due => "sending".to_owned(),
            Unsent::AtRest(rest, _) => rest.text(),
            Unsent::Waiting(Errno::EDQUOT) => format!("waiting: the inbox of {to} is full"),
            Unsent::Waiting(Errno::ENOENT) => format!("waiting: there is no user {to}"),
            Unsent::Waiting(errno) => format!("waiting: {errno}"),
            Unsent::Failed(errno) => format!("failed: {errno}"),
            Unsent::Killed => Unsent::KILLED.to_owned(),
            Unsent::Left => "held: the mount ended before it was sent".to_owned(),
            Unsent::Cancelled => Unsent::CANCELLED.to_owned(),
        };
        // Bounded in any case: a user's name has at most 64 bytes, each of which takes three if it
        // can't be shown.
        text.chars()
            .scan(0, |len, c| {
                *len += c.len_utf8();
                (*len <= STATE_BYTES_MAX).then_some(c)
            })
            .collect()
    }

    /// Reads a mark that an earlier session left. What was at rest then rests anew, as what it is now.
    pub(in crate::core) fn parse(mark: &[u8], rest: Rest, now: Instant) -> Unsent {
        let mark = String::from_utf8_lossy(mark);
        if Rest::is_text(&mark) {
            return Unsent::AtRest(rest, now + rest.quiet());
        }
        if mark.starts_with("waiting: ") {
            return Unsent::Waiting(Errno::EDQUOT);
        }
        match mark.strip_prefix("failed: ") {
            Some(text) => Unsent::Failed(Errno::from_text(text).unwrap_or(Errno::EIO)),
            None if mark == Unsent::KILLED => Unsent::Killed,
            None if mark == Unsent::CANCELLED => Unsent::Cancelled,
            None => Unsent::Left,
        }
    }

    const KILLED: &str = "held: the writing program was killed";
    const CANCELLED: &str = "held: cancelled";
}

/// Why a file is torn, or a directory that an earlier session left.
#[derive(Clone, Copy, Debug)]
struct Torn {
    why: Unsent,
    /// The newest handle at that time. A newer one writes the file again.
    since: HandleId,
}

/// The numbers of drafts, by the reason why they are not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unsents {
    /// Drafts that are tried again automatically.
    pub waiting: usize,
    /// Drafts of which a change failed.
    pub failed: usize,
    /// Drafts that may be incomplete.
    pub held: usize,
}

/// All drafts by their nodes, and all torn files.
#[derive(Debug, Default)]
pub(in crate::core) struct Drafts {
    all: BTreeMap<Ino, Draft>,
    /// The drafts that are directories.
    directories: BTreeSet<Ino>,
    /// The directories that wait until no program writes to a file in them. The value says whether
    /// a file was closed since the directory was last looked at.
    written: BTreeMap<Ino, bool>,
    torn: BTreeMap<Ino, Torn>,
    /// The drafts that a program had made durable, and that did not change after that.
    pub(in crate::core) synced: BTreeSet<Ino>,
}

impl Drafts {
    /// Forgets the room that was reserved in inboxes.
    pub(super) fn forget_rooms(&mut self) {
        self.all.values_mut().for_each(|draft| draft.room = InboxRoom::default());
    }

    /// Notes a draft, or the new place of one that is known already.
    pub(in crate::core) fn note(&mut self, ino: Ino, location: Location, is_directory: bool) {
        if is_directory {
            self.directories.insert(ino);
        }
        match self.all.get_mut(&ino) {
            Some(draft) => draft.location = location,
            None => {
                let (torn, members) = (Vec::new(), BTreeSet::new());
                let (why, was_open, room) = (None, false, InboxRoom::default());
                let draft = Draft { location, why, was_open, torn, members, room };
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

    /// Notes that a program has a file open for writing.
    pub(in crate::core) fn note_open(&mut self, ino: Ino) {
        if let Some(draft) = self.all.get_mut(&ino) {
            draft.was_open = true;
        }
    }

    /// Forgets a draft that was sent or left its mailbox. Its torn files stay noted, since they may
    /// have other names.
    pub(in crate::core) fn remove(&mut self, ino: Ino) {
        self.all.remove(&ino);
        self.written.remove(&ino);
        self.directories.remove(&ino);
        self.synced.remove(&ino);
    }

    /// Takes a node for complete, regardless of what was noted.
    pub(in crate::core) fn mend(&mut self, ino: Ino) {
        self.torn.remove(&ino);
        let Some(draft) = self.all.get_mut(&ino) else { return };
        draft.why = None;
        for torn in draft.torn.drain(..) {
            self.torn.remove(&torn);
        }
    }

    /// Has a directory wait until no program writes to a file in it. One that is held stays held.
    pub(in crate::core) fn wait_for_writers(&mut self, directory: Ino) {
        if let Some(draft) = self.all.get_mut(&directory).filter(|draft| !draft.is_held()) {
            draft.why = None;
            draft.members.clear();
            self.written.insert(directory, false);
        }
    }

    /// Notes that a file was closed, so that directories which wait for writers are tried again.
    /// Returns whether there are any.
    pub(in crate::core) fn retry_written(&mut self) -> bool {
        self.written.values_mut().for_each(|closed| *closed = true);
        !self.written.is_empty()
    }

    /// Whether a directory waits until no program writes to a file in it.
    pub(in crate::core) fn is_written(&self, directory: Ino) -> bool {
        self.written.contains_key(&directory)
    }

    /// Whether a draft should be tried now: it is complete, as far as is known.
    pub(in crate::core) fn is_due(&self, ino: Ino, draft: &Draft, now: Instant) -> bool {
        match draft.why {
            Some(Unsent::Due | Unsent::Waiting(_)) => true,
            Some(Unsent::AtRest(_, until)) => until <= now,
            Some(Unsent::Failed(_) | Unsent::Killed | Unsent::Left | Unsent::Cancelled) => false,
            None => self.written.get(&ino).copied().unwrap_or(false),
        }
    }

    /// Whether a directory is at rest.
    pub(in crate::core) fn has_directory_at_rest(&self) -> bool {
        self.directories.iter().any(|directory| {
            let draft = self.all.get(directory);
            draft.is_some_and(|draft| matches!(draft.why, Some(Unsent::AtRest(..))))
        })
    }

    /// Makes all drafts due that are at rest and not doubtful, and directories that waited for writers.
    pub(super) fn end_rests(&mut self) {
        for (ino, draft) in &mut self.all {
            match draft.why {
                Some(Unsent::AtRest(rest, _)) if !rest.is_doubtful() => {
                    draft.why = Some(Unsent::Due);
                }
                None if self.written.remove(ino).is_some() => draft.why = Some(Unsent::Due),
                Some(_) | None => {}
            }
        }
    }

    /// Notes all nodes of a directory that is about to be marked `waiting`.
    pub(in crate::core) fn set_members(&mut self, directory: Ino, members: Vec<Ino>) {
        if let Some(draft) = self.all.get_mut(&directory) {
            draft.members = members.into_iter().collect();
        }
    }

    /// The directories marked `waiting` that contain a node, or are that node.
    pub(in crate::core) fn waiting_with(&self, ino: Ino) -> Vec<Ino> {
        let is_member = |directory: &Ino| {
            self.all.get(directory).is_some_and(|draft| draft.members.contains(&ino))
        };
        self.directories.iter().copied().filter(is_member).collect()
    }

    /// Makes directories due again that are held or wait for writers, since a file may have left
    /// them. Returns whether there are any. A directory that is torn itself stays held: an
    /// earlier session left it, and nothing is known about its files.
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

    /// Whether a draft may depend on a file being complete. Any file may be in a directory among
    /// the drafts.
    pub(in crate::core) fn depend_on(&self, ino: Ino) -> bool {
        !self.directories.is_empty() || self.all.contains_key(&ino)
    }

    /// Makes a draft due, unless it is held. Returns whether it is due.
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

    /// Whether there are no drafts.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(in crate::core) fn iter(&self) -> impl Iterator<Item = (Ino, &Draft)> {
        self.all.iter().map(|(ino, draft)| (*ino, draft))
    }

    /// Whether any node is noted as torn.
    pub(in crate::core) fn has_torn(&self) -> bool {
        !self.torn.is_empty()
    }

    /// Why a node is torn, if it is.
    pub(in crate::core) fn torn(&self, ino: Ino) -> Option<Unsent> {
        self.torn.get(&ino).map(|torn| torn.why)
    }

    /// Notes that a node is torn. `newest` is the handle that was opened last.
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

    /// Holds a draft because of its torn files. The state shows the reason of the first.
    pub(in crate::core) fn hold(&mut self, ino: Ino, torn: &[Ino]) {
        let Some(why) = torn.iter().find_map(|torn| self.torn(*torn)) else { return };
        if let Some(draft) = self.all.get_mut(&ino) {
            draft.why = Some(why);
            draft.torn = torn.to_vec();
        }
    }

    /// Notes that a file's data changed. A refused file is tried again when it is closed. A torn
    /// file is complete again if it was emptied, or is written through a handle newer than the
    /// failure. Returns whether that releases a directory.
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

    /// Notes that a torn file is complete again, or gone. Returns whether that releases a
    /// directory.
    pub(in crate::core) fn is_torn_no_more(&mut self, ino: Ino) -> bool {
        if self.torn.remove(&ino).is_none() {
            return false;
        }
        let holders = self.all.iter().filter(|(_, draft)| draft.torn.contains(&ino));
        let holders: Vec<Ino> = holders.map(|(holder, _)| *holder).collect();
        // Other torn files in a directory are found again when it is about to be sent. The file
        // itself is sent when it is closed, so it does not count here.
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

/// How a file's data changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataChange {
    /// Through a handle.
    By(HandleId),
    /// By the file's name, as truncate(2) does.
    ByPath,
    /// The file was truncated to nothing.
    Emptied,
}
