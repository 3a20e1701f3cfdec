//! What is on a disk, and what would be left of it without power.
//!
//! A file's bytes are safe once it is synced, and a name once its directory is. Of the other changes
//! of a file any may be left, a write also in part; of those of a directory, the first few. A sync
//! that fails is not reported again, and what it did not write is never written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use crate::Random;

/// The number of a node.
pub type Ino = u64;

/// The root.
pub const ROOT: Ino = 1;

/// The unit in which a write is torn, in bytes.
const SECTOR_BYTES: usize = 512;

/// A disk's content.
#[derive(Clone)]
pub struct Image {
    nodes: BTreeMap<Ino, Node>,
    last: Ino,
}

/// A file, a directory, or something else that has a name.
#[derive(Clone)]
pub struct Node {
    /// What it is, and its permission bits (`st_mode`).
    pub mode: u32,
    body: Body,
}

#[derive(Clone)]
enum Body {
    File { live: Vec<u8>, safe: Vec<u8>, pending: Vec<Change> },
    Directory { live: Names, safe: Names, pending: Vec<NameChange> },
}

type Names = BTreeMap<OsString, Ino>;

/// A change of a file's bytes.
#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// A change of a directory: what a name refers to from now on.
#[derive(Clone)]
struct NameChange {
    name: OsString,
    ino: Option<Ino>,
    /// The other name of a rename, which goes at the same moment.
    from: Option<(Ino, OsString)>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Change::Resize(len) => bytes.resize(*len, 0),
        }
    }

    /// What is left of it, if anything.
    fn torn(self, random: &mut Random) -> Option<Change> {
        match (random.below(3), self) {
            (0, _) => None,
            (1, Change::Write(at, mut data)) => {
                let sectors = data.len().div_ceil(SECTOR_BYTES) as u64;
                data.truncate(random.below(sectors + 1) as usize * SECTOR_BYTES);
                Some(Change::Write(at, data))
            }
            (_, whole) => Some(whole),
        }
    }
}

impl Image {
    /// An empty disk.
    pub fn new() -> Image {
        let body = Body::Directory { live: Names::new(), safe: Names::new(), pending: Vec::new() };
        let root = Node { mode: libc::S_IFDIR | 0o755, body };
        Image { nodes: BTreeMap::from([(ROOT, root)]), last: ROOT }
    }

    /// A node.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// The node that a name refers to.
    pub fn find(&self, directory: Ino, name: &OsStr) -> Option<Ino> {
        self.names(directory)?.get(name).copied()
    }

    /// The names in a directory.
    pub fn names(&self, directory: Ino) -> Option<&Names> {
        match &self.nodes.get(&directory)?.body {
            Body::Directory { live, .. } => Some(live),
            Body::File { .. } => None,
        }
    }

    /// The bytes of a file.
    pub fn bytes(&self, ino: Ino) -> Option<&[u8]> {
        match &self.nodes.get(&ino)?.body {
            Body::File { live, .. } => Some(live),
            Body::Directory { .. } => None,
        }
    }

    /// Makes what `mode` says.
    pub fn make(&mut self, directory: Ino, name: &OsStr, mode: u32) -> Ino {
        self.last += 1;
        let body = match mode & libc::S_IFMT == libc::S_IFDIR {
            true => Body::Directory { live: Names::new(), safe: Names::new(), pending: Vec::new() },
            false => Body::File { live: Vec::new(), safe: Vec::new(), pending: Vec::new() },
        };
        self.nodes.insert(self.last, Node { mode, body });
        self.set_name(directory, name, Some(self.last), None);
        self.last
    }

    /// Removes a name.
    pub fn remove(&mut self, directory: Ino, name: &OsStr) {
        self.set_name(directory, name, None, None);
    }

    /// Gives a file another name.
    pub fn link(&mut self, ino: Ino, directory: Ino, name: &OsStr) {
        self.set_name(directory, name, Some(ino), None);
    }

    /// Moves a name.
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) {
        let Some(ino) = self.find(from.0, from.1) else { return };
        if let Some(Node { body: Body::Directory { live, .. }, .. }) = self.nodes.get_mut(&from.0) {
            live.remove(from.1);
        }
        self.set_name(to.0, to.1, Some(ino), Some((from.0, from.1.to_owned())));
    }

    /// Sets permission bits.
    pub fn set_permissions(&mut self, ino: Ino, bits: u32) {
        let set = |node: &mut Node| node.mode = (node.mode & libc::S_IFMT) | (bits & 0o7777);
        self.nodes.entry(ino).and_modify(set);
    }

    /// Writes bytes.
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) {
        self.change(ino, Change::Write(offset as usize, data.to_vec()));
    }

    /// Sets the size.
    pub fn resize(&mut self, ino: Ino, size: u64) {
        self.change(ino, Change::Resize(size as usize));
    }

    /// Makes a file's bytes, or a directory's names, safe.
    pub fn sync(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        match &mut node.body {
            Body::File { safe, pending, .. } => {
                std::mem::take(pending).iter().for_each(|change| change.apply(safe));
            }
            Body::Directory { pending, .. } => {
                let changes = std::mem::take(pending);
                changes.into_iter().for_each(|change| self.make_safe(ino, change));
            }
        }
    }

    /// Makes the sync of a file fail: what it should have made durable is lost.
    pub fn fail_to_sync(&mut self, ino: Ino) {
        if let Some(Node { body: Body::File { pending, .. }, .. }) = self.nodes.get_mut(&ino) {
            pending.clear();
        }
    }

    /// What is left when the power goes.
    pub fn without_power(mut self, random: &mut Random) -> Image {
        let inos: Vec<Ino> = self.nodes.keys().copied().collect();
        for ino in inos {
            let Some(node) = self.nodes.get_mut(&ino) else { continue };
            match &mut node.body {
                Body::File { safe, pending, .. } => {
                    let some = std::mem::take(pending).into_iter();
                    let some: Vec<_> = some.filter_map(|change| change.torn(random)).collect();
                    some.iter().for_each(|change| change.apply(safe));
                }
                Body::Directory { pending, .. } => {
                    let mut changes = std::mem::take(pending);
                    changes.truncate(random.below(changes.len() as u64 + 1) as usize);
                    changes.into_iter().for_each(|change| self.make_safe(ino, change));
                }
            }
        }
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File { live, safe, .. } => live.clone_from(safe),
                Body::Directory { live, safe, .. } => live.clone_from(safe),
            }
        }
        self.forget_unreachable();
        self
    }

    fn change(&mut self, ino: Ino, change: Change) {
        if let Some(Node { body: Body::File { live, pending, .. }, .. }) = self.nodes.get_mut(&ino)
        {
            change.apply(live);
            pending.push(change);
        }
    }

    fn set_name(
        &mut self,
        directory: Ino,
        name: &OsStr,
        ino: Option<Ino>,
        from: Option<(Ino, OsString)>,
    ) {
        let Some(node) = self.nodes.get_mut(&directory) else { return };
        if let Body::Directory { live, pending, .. } = &mut node.body {
            put(live, name, ino);
            pending.push(NameChange { name: name.to_owned(), ino, from });
        }
    }

    fn make_safe(&mut self, directory: Ino, change: NameChange) {
        let NameChange { name, ino, from } = change;
        let places = from.map(|(other, name)| (other, name, None));
        for (directory, name, ino) in places.into_iter().chain([(directory, name, ino)]) {
            if let Some(Node { body: Body::Directory { safe, .. }, .. }) =
                self.nodes.get_mut(&directory)
            {
                put(safe, &name, ino);
            }
        }
    }

    /// Forgets nodes without a name.
    fn forget_unreachable(&mut self) {
        let (mut reached, mut waiting) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(directory) = waiting.pop() {
            let names = self.names(directory).into_iter().flatten();
            waiting.extend(names.map(|(_, ino)| *ino).filter(|ino| reached.insert(*ino)));
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
    }
}

impl Default for Image {
    fn default() -> Image {
        Image::new()
    }
}

impl Node {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::File { live, .. } => live.len() as u64,
            Body::Directory { .. } => 0,
        }
    }
}

fn put(names: &mut Names, name: &OsStr, ino: Option<Ino>) {
    match ino {
        Some(ino) => names.insert(name.to_owned(), ino),
        None => names.remove(name),
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A file with a safe name.
    fn with_file() -> (Image, Ino) {
        let mut image = Image::new();
        let ino = image.make(ROOT, OsStr::new("file"), libc::S_IFREG | 0o600);
        image.sync(ROOT);
        (image, ino)
    }

    #[test]
    fn what_was_synced_is_left_and_of_the_rest_any_part_may_be() {
        let mut left = BTreeSet::new();
        for seed in 0..200 {
            let (mut image, ino) = with_file();
            image.write(ino, 0, &[1; 1024]);
            image.sync(ino);
            image.write(ino, 0, &[2; 1024]);
            image.make(ROOT, OsStr::new("other"), libc::S_IFDIR | 0o700);
            let image = image.without_power(&mut Random::new(seed));
            let bytes = image.bytes(ino).unwrap();
            assert_eq!(bytes.len(), 1024);
            left.insert((bytes[0], bytes[1023], image.find(ROOT, OsStr::new("other")).is_some()));
        }
        let all = [(1, 1), (2, 1), (2, 2)].into_iter();
        assert_eq!(left, all.flat_map(|(a, b)| [(a, b, false), (a, b, true)]).collect());
    }

    #[test]
    fn a_sync_after_one_that_failed_does_not_write_what_that_did_not() {
        let (mut image, ino) = with_file();
        image.write(ino, 0, b"lost");
        image.fail_to_sync(ino);
        image.write(ino, 4, b"kept");
        image.sync(ino);
        assert_eq!(image.bytes(ino).unwrap(), b"lostkept");
        let image = image.without_power(&mut Random::new(1));
        assert_eq!(image.bytes(ino).unwrap(), b"\0\0\0\0kept");
    }

    #[test]
    fn a_rename_is_left_as_a_whole_or_not_at_all() {
        for seed in 0..50 {
            let (mut image, ino) = with_file();
            image.rename((ROOT, OsStr::new("file")), (ROOT, OsStr::new("moved")));
            let image = image.without_power(&mut Random::new(seed));
            let found = ["file", "moved"].map(|name| image.find(ROOT, OsStr::new(name)));
            assert!(found == [Some(ino), None] || found == [None, Some(ino)], "{found:?}");
        }
    }
}
