//! The kernel's hold on the tree: open files and directories, and what it [knows](super::known).
//!
//! **Invariant:** numbers of handles only rise, so of two handles the newer has the larger number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use xfer_protocol::{Ino, Name};

use super::known::KernelKnowledge;
use crate::core::data::Readahead;

/// The number of an open file or directory. It is not used again in the same session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HandleId(pub u64);

/// The number of files that a write is compared with, to find out whether it copies one of them.
const SOURCES_MAX: usize = 4;

/// An open file or directory.
#[derive(Debug)]
pub(in crate::core) enum Handle {
    File(OpenFile),
    Directory(OpenDirectory),
}

impl Handle {
    fn ino(&self) -> Ino {
        match self {
            Handle::File(file) => file.ino,
            Handle::Directory(directory) => directory.ino,
        }
    }
}

/// An open regular file.
#[derive(Debug)]
pub(in crate::core) struct OpenFile {
    pub(in crate::core) ino: Ino,
    pub(in crate::core) writable: bool,
    pub(in crate::core) readahead: Readahead,
}

/// An open directory, with a snapshot of its entries from when reading began, in order of their
/// cookies.
#[derive(Debug)]
pub(in crate::core) struct OpenDirectory {
    pub(in crate::core) ino: Ino,
    pub(in crate::core) entries: Option<Arc<Vec<Entry>>>,
}

/// An entry of a listing.
#[derive(Debug)]
pub(in crate::core) struct Entry {
    /// The entry's position in every listing of its directory.
    pub(in crate::core) cookie: u64,
    pub(in crate::core) name: Name,
    pub(in crate::core) ino: Ino,
}

/// What the kernel knows, and its open files and directories.
#[derive(Debug)]
pub(in crate::core) struct Handles {
    open: BTreeMap<HandleId, Handle>,
    next: u64,
    pub(in crate::core) kernel: KernelKnowledge,
    writers: BTreeMap<Ino, u32>,
    /// Those of whose files changes were lost, until a program hears of it.
    lost: BTreeSet<HandleId>,
    /// The files that were last opened for reading only, the latest first. A file stays here when
    /// it is closed, since some programs write a copy only then.
    sources: VecDeque<Ino>,
    cookie_key: [u8; 16],
}

impl Handles {
    /// Begins without handles. `cookie_key` must be random: see [`Handles::cookie`].
    pub(in crate::core) fn new(cookie_key: [u8; 16]) -> Handles {
        Handles {
            open: BTreeMap::new(),
            next: 0,
            kernel: KernelKnowledge::default(),
            writers: BTreeMap::new(),
            lost: BTreeSet::new(),
            sources: VecDeque::new(),
            cookie_key,
        }
    }

    pub(in crate::core) fn open_file(&mut self, ino: Ino, writable: bool) -> HandleId {
        if writable {
            *self.writers.entry(ino).or_default() += 1;
        }
        if !writable {
            self.sources.retain(|source| *source != ino);
            self.sources.push_front(ino);
            self.sources.truncate(SOURCES_MAX);
        }
        self.add(Handle::File(OpenFile { ino, writable, readahead: Readahead::default() }))
    }

    pub(in crate::core) fn open_directory(&mut self, ino: Ino) -> HandleId {
        self.add(Handle::Directory(OpenDirectory { ino, entries: None }))
    }

    pub(in crate::core) fn file_mut(&mut self, id: HandleId) -> Option<&mut OpenFile> {
        match self.open.get_mut(&id) {
            Some(Handle::File(file)) => Some(file),
            Some(Handle::Directory(_)) | None => None,
        }
    }

    pub(in crate::core) fn directory_mut(&mut self, id: HandleId) -> Option<&mut OpenDirectory> {
        match self.open.get_mut(&id) {
            Some(Handle::Directory(directory)) => Some(directory),
            Some(Handle::File(_)) | None => None,
        }
    }

    pub(in crate::core) fn close(&mut self, id: HandleId) -> Option<Handle> {
        let handle = self.open.remove(&id)?;
        self.lost.remove(&id);
        if let Handle::File(OpenFile { ino, writable: true, .. }) = &handle
            && let Some(writers) = self.writers.get_mut(ino)
        {
            *writers -= 1;
            if *writers == 0 {
                self.writers.remove(ino);
            }
        }
        Some(handle)
    }

    /// The cookie of a name: its position in every listing of its directory, regardless of other
    /// entries that come and go.
    ///
    /// The kernel keeps cookies longer than handles: it continues with a new handle where the
    /// cached listing of an old one ended. If cookies counted entries, it would then skip as many
    /// as were removed. Hashes can collide, in about one of 10^9 directories of 100,000 entries.
    /// The key is random, so that collisions can't be made on purpose.
    pub(in crate::core) fn cookie(&self, name: &Name) -> u64 {
        // Listings begin after 0, and 1 and 2 belong to `.` and `..`. Programs see cookies as
        // signed.
        const AFTER_DOTS: u64 = 3;
        const COOKIE_MAX: u64 = i64::MAX as u64;
        let mut hasher = SipHasher13::new_with_key(&self.cookie_key);
        hasher.write(name.as_bytes());
        (hasher.finish() & COOKIE_MAX).max(AFTER_DOTS)
    }

    /// Notes that changes of these nodes were lost. Each of their handles says so once.
    pub(in crate::core) fn note_lost(&mut self, nodes: &BTreeSet<Ino>) {
        let open = self.open.iter().filter(|(_, handle)| nodes.contains(&handle.ino()));
        self.lost.extend(open.map(|(id, _)| *id));
    }

    /// Whether changes of the node of a handle were lost and this handle has not said so.
    pub(in crate::core) fn take_lost(&mut self, id: HandleId) -> bool {
        self.lost.remove(&id)
    }

    /// The files that a program may be copying from.
    pub(in crate::core) fn sources(&self) -> impl Iterator<Item = Ino> {
        self.sources.iter().copied()
    }

    /// All files that are open for writing.
    pub(in crate::core) fn written(&self) -> impl Iterator<Item = Ino> {
        self.writers.keys().copied()
    }

    /// The handle that was opened last. It may be closed by now.
    pub(in crate::core) fn newest(&self) -> HandleId {
        HandleId(self.next)
    }

    /// The number of handles that can write to a file.
    pub(in crate::core) fn writers(&self, ino: Ino) -> u32 {
        self.writers.get(&ino).copied().unwrap_or(0)
    }

    /// Whether a node is open.
    pub(in crate::core) fn is_open(&self, ino: Ino) -> bool {
        self.open.values().any(|handle| handle.ino() == ino)
    }

    /// All nodes that are open.
    pub(in crate::core) fn open_nodes(&self) -> BTreeSet<Ino> {
        self.open.values().map(Handle::ino).collect()
    }

    fn add(&mut self, handle: Handle) -> HandleId {
        self.next += 1;
        self.open.insert(HandleId(self.next), handle);
        HandleId(self.next)
    }
}
