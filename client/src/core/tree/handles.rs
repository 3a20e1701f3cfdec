//! What the kernel holds: nodes it knows, and open files and directories.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use xfer_protocol::{Ino, Name};

use crate::core::data::Readahead;

/// The number of an open file or directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HandleId(pub u64);

/// In how many of the files that were opened to be read a write is looked for.
const SOURCES_MAX: usize = 4;

/// How many names the kernel may keep as absent from the root.
const ABSENT_MAX: usize = 10_000;

/// What is open.
#[derive(Debug)]
pub(in crate::core) enum Handle {
    /// A regular file.
    File(OpenFile),
    /// A directory.
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

/// An open directory: its entries as they were when reading began, in order of their cookies.
#[derive(Debug)]
pub(in crate::core) struct OpenDirectory {
    pub(in crate::core) ino: Ino,
    pub(in crate::core) entries: Option<Arc<Vec<Entry>>>,
}

/// An entry of a listing.
#[derive(Debug)]
pub(in crate::core) struct Entry {
    /// Its position in every listing of its directory.
    pub(in crate::core) cookie: u64,
    pub(in crate::core) name: Name,
    pub(in crate::core) ino: Ino,
}

/// What the kernel knows of a node.
#[derive(Debug)]
struct Known {
    /// Answers that told of it, and were not taken back.
    lookups: u64,
    /// The directory in which it was found last.
    directory: Ino,
}

/// Nodes that the kernel knows, and what it has open.
#[derive(Debug)]
pub(in crate::core) struct Handles {
    open: BTreeMap<HandleId, Handle>,
    next: u64,
    known: BTreeMap<Ino, Known>,
    writers: BTreeMap<Ino, u32>,
    /// Names that the kernel keeps as absent from the root.
    absent: BTreeSet<Name>,
    /// The files that were opened last to be read only, the last one first. They stay when they are
    /// closed: some programs write what they read after that.
    sources: VecDeque<Ino>,
    cookie_key: [u8; 16],
}

impl Handles {
    /// Nothing is open. `cookie_key` must be random: see [`Handles::cookie`].
    pub(in crate::core) fn new(cookie_key: [u8; 16]) -> Handles {
        Handles {
            open: BTreeMap::new(),
            next: 0,
            known: BTreeMap::new(),
            writers: BTreeMap::new(),
            absent: BTreeSet::new(),
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

    /// The cookie of a name: its position in every listing of its directory, whatever comes and goes
    /// beside it.
    ///
    /// The kernel keeps cookies longer than handles: it goes on with a new handle where the cached
    /// listing of an old one ended. Counted positions would then skip as many entries as were
    /// removed. A hash can collide, once in about 10^9 directories of 100,000 entries; its key is
    /// random, so that nobody can cause a collision.
    pub(in crate::core) fn cookie(&self, name: &Name) -> u64 {
        const AFTER_DOTS: u64 = 3;
        const COOKIE_MAX: u64 = i64::MAX as u64;
        let mut hasher = SipHasher13::new_with_key(&self.cookie_key);
        hasher.write(name.as_bytes());
        (hasher.finish() & COOKIE_MAX).max(AFTER_DOTS)
    }

    /// Files that a program may be copying from.
    pub(in crate::core) fn sources(&self) -> impl Iterator<Item = Ino> {
        self.sources.iter().copied()
    }

    /// All files that a handle can write to.
    pub(in crate::core) fn written(&self) -> impl Iterator<Item = Ino> {
        self.writers.keys().copied()
    }

    /// The newest handle that there is or was.
    pub(in crate::core) fn newest(&self) -> HandleId {
        HandleId(self.next)
    }

    /// How many handles can write to a file.
    pub(in crate::core) fn writers(&self, ino: Ino) -> u32 {
        self.writers.get(&ino).copied().unwrap_or(0)
    }

    /// Counts one more answer that told the kernel of a node in a directory.
    pub(in crate::core) fn remember(&mut self, ino: Ino, directory: Ino) {
        let known = self.known.entry(ino).or_insert(Known { lookups: 0, directory });
        known.lookups += 1;
        known.directory = directory;
    }

    /// A node that the kernel knows was moved into a directory, at the kernel's own wish.
    pub(in crate::core) fn moved(&mut self, ino: Ino, directory: Ino) {
        if let Some(known) = self.known.get_mut(&ino) {
            known.directory = directory;
        }
    }

    /// The directory in which the kernel found a node last.
    pub(in crate::core) fn directory_of(&self, ino: Ino) -> Option<Ino> {
        self.known.get(&ino).map(|known| known.directory)
    }

    /// Takes back answers. True if the kernel does not know the node any more.
    pub(in crate::core) fn forget(&mut self, ino: Ino, count: u64) -> bool {
        let Some(known) = self.known.get_mut(&ino) else { return true };
        known.lookups = known.lookups.saturating_sub(count);
        let gone = known.lookups == 0;
        if gone {
            self.known.remove(&ino);
        }
        gone
    }

    /// Notes that the kernel is told that a name is absent. False if it must not keep that, since
    /// there would be no telling it otherwise: the root is the one directory that the kernel goes on
    /// looking into when the session is over.
    pub(in crate::core) fn remember_absent(&mut self, directory: Ino, name: &Name) -> bool {
        if directory != Ino::ROOT || self.absent.contains(name) {
            return true;
        }
        let room = self.absent.len() < ABSENT_MAX;
        if room {
            self.absent.insert(name.clone());
        }
        room
    }

    /// Names that the kernel keeps as absent from the root, or kept once.
    pub(in crate::core) fn absent(&self) -> impl Iterator<Item = &Name> {
        self.absent.iter()
    }

    /// All nodes that the kernel knows, but for the root, which it always does.
    pub(in crate::core) fn known(&self) -> impl Iterator<Item = Ino> {
        self.known.keys().copied()
    }

    /// Whether a node is open.
    pub(in crate::core) fn is_open(&self, ino: Ino) -> bool {
        self.open.values().any(|handle| handle.ino() == ino)
    }

    /// All nodes that are open.
    pub(in crate::core) fn open_nodes(&self) -> BTreeSet<Ino> {
        self.open.values().map(Handle::ino).collect()
    }

    /// Whether the kernel knows a node.
    pub(in crate::core) fn knows(&self, ino: Ino) -> bool {
        self.known.contains_key(&ino)
    }

    fn add(&mut self, handle: Handle) -> HandleId {
        self.next += 1;
        self.open.insert(HandleId(self.next), handle);
        HandleId(self.next)
    }
}
