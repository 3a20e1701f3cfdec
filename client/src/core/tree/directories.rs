//! Listing directories.
//!
//! **Invariant:** reading on in a handle shows the entries that the directory had when reading
//! began, except those that have gone or refer to another node since.

use std::sync::Arc;

use xfer_protocol::tree::Node;
use xfer_protocol::{Errno, Ino, Name};

use super::handles::{Entry, HandleId};
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;

/// The most entries in one answer. The kernel asks again for more.
const BATCH_ENTRIES: usize = 1024;

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The cookie from which the listing continues after it.
    pub next: u64,
    /// Its name, which may be `.` or `..`.
    pub name: Vec<u8>,
    /// The number of the node that it refers to.
    pub ino: Ino,
    /// That node, so that a listing can be answered with attributes.
    pub node: Arc<Node>,
}

impl Core {
    /// Opens a directory. Its known entries stay loaded until it is closed. The root is opened without
    /// the seat too, since df(1) opens a mount point.
    pub fn open_directory(&mut self, ino: Ino) -> Result<HandleId, Stop> {
        self.must_have_session()?;
        if ino != Ino::ROOT {
            self.node(ino)?;
        }
        self.replica.table.pin(ino);
        Ok(self.handles.open_directory(ino))
    }

    /// Has the root loaded; and its names, if that is asked for, unless there are very many.
    pub(crate) fn look_at_root(&mut self, with_names: bool) -> Result<(), Stop> {
        self.attributes(Ino::ROOT)?;
        if with_names && !self.is_large(Ino::ROOT) {
            self.children(Ino::ROOT)?;
        }
        Ok(())
    }

    /// Lists the entries after a cookie. Reading from the start takes a snapshot of the entries,
    /// which this handle shows until it is read from the start again.
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
            // Entries that have gone, or refer to another node by now, are left out: the kernel
            // takes each answer for the present state, and caches it without a time limit.
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
        if missing.is_empty() {
            self.note_contents(ino);
            Ok(listed)
        } else {
            Err(Pause::Rows(missing).into())
        }
    }

    /// Notes that a listing named these nodes to the kernel.
    pub fn remember_listed(&mut self, directory: Ino, told: &[(Name, Ino)]) {
        for (name, ino) in told {
            self.handles.kernel.remember(*ino, directory, Some(name));
        }
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
