//! Listing directories.

use std::sync::Arc;

use xfer_protocol::tree::Node;
use xfer_protocol::{Errno, Ino};

use super::handles::{Entry, HandleId};
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;

/// The most entries that one call answers; the kernel asks again for more.
const BATCH_ENTRIES: usize = 1024;

/// One entry of a listing, with the cookie from which the listing goes on after it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The cookie after it.
    pub next: u64,
    /// Its name; `.` and `..` too.
    pub name: Vec<u8>,
    /// What it refers to.
    pub ino: Ino,
    /// The node.
    pub node: Arc<Node>,
}

impl Core {
    /// Opens a directory. As long as it is open, what is known of its entries stays.
    pub fn open_directory(&mut self, ino: Ino) -> Result<HandleId, Stop> {
        self.must_have_session()?;
        self.node(ino)?;
        self.replica.table.pin(ino);
        Ok(self.handles.open_directory(ino))
    }

    /// Entries after a cookie. Reading from the start takes the entries as they are now; they stay
    /// so for this handle until the next start.
    pub fn list(&mut self, handle: HandleId, after: u64) -> Result<Vec<Listed>, Stop> {
        let directory = self.handles.directory_mut(handle).ok_or(Errno::EBADF)?;
        let (ino, taken) = (directory.ino, directory.entries.clone());
        let entries = match taken {
            Some(entries) if after > 0 => entries,
            Some(_) | None => self.take_entries(handle, ino)?,
        };
        let parent = self.node(ino)?.parent().ok_or(Errno::ENOTDIR)?;
        let mut listed = Vec::new();
        for (at, name, ino) in [(1, ".", ino), (2, "..", parent)] {
            if after < at {
                let node = self.node(ino)?;
                listed.push(Listed { next: at, name: name.into(), ino, node });
            }
        }
        let mut missing = Vec::new();
        let start = entries.partition_point(|entry| entry.cookie <= after);
        for Entry { cookie, name, ino: child } in entries[start..].iter().take(BATCH_ENTRIES) {
            // What is no longer there, or something else by now, is left out: the kernel takes
            // what it is told here for the present, and for ever.
            if self.entry(ino, name)? == Some(*child) {
                match self.node(*child) {
                    Ok(node) => {
                        let name = name.as_bytes().to_vec();
                        listed.push(Listed { next: *cookie, name, ino: *child, node });
                    }
                    Err(Stop::Pause(Pause::Rows(needs))) => missing.extend(needs),
                    Err(refused) => return Err(refused),
                }
            }
        }
        if missing.is_empty() { Ok(listed) } else { Err(Pause::Rows(missing).into()) }
    }

    /// Notes nodes that a listing told the kernel of.
    pub fn remember_listed(&mut self, directory: Ino, inos: &[Ino]) {
        inos.iter().for_each(|ino| self.handles.remember(*ino, directory));
    }

    fn take_entries(&mut self, handle: HandleId, ino: Ino) -> Result<Arc<Vec<Entry>>, Stop> {
        let mut entries = self.children(ino)?;
        if ino == Ino::OUTBOX {
            let mut shown = Vec::new();
            for (name, mailbox) in entries {
                if !self.is_hidden(&name, mailbox)? {
                    shown.push((name, mailbox));
                }
            }
            entries = shown;
        }
        let listed = |(name, ino)| Entry { cookie: self.handles.cookie(&name), name, ino };
        let mut entries: Vec<Entry> = entries.into_iter().map(listed).collect();
        entries.sort_unstable_by_key(|entry| entry.cookie);
        let entries = Arc::new(entries);
        if let Some(directory) = self.handles.directory_mut(handle) {
            directory.entries = Some(entries.clone());
        }
        Ok(entries)
    }
}
