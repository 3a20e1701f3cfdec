//! Making the changes of a trace in a directory of this machine, to find out what they come to.
//!
//! Only the bytes of files are written to the directory, each file under its number, until
//! [`Shadow::settle`] gives it its path. Everything else is kept in memory. No symbolic link is ever
//! made, so no path leads out of the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xfer_client::core::{Change, Place, Subject, Trace, Whereabouts};
use xfer_protocol::tree::{Action, RenameMode, STATE_XATTR};
use xfer_protocol::{Ino, Timestamp};

use super::item::{Attributes, Contents, FileBytes, Item, Kind, TreePath, moment};
use super::written::Written;

/// The most times that are kept for one node. The server can't have got further than that through
/// the changes of one node without this machine being told.
const TIMES_MAX: usize = 1000;

/// The most names that are kept for one node besides those that it had and is to have.
const PASSED_MAX: usize = 32;

/// The directory, within a rescue, of the files in their directories.
const FILES: &str = "files";

/// What the changes come to.
#[derive(Debug)]
pub struct Shadow {
    directory: PathBuf,
    nodes: BTreeMap<Ino, Node>,
    notes: Vec<String>,
    changes: u64,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    is_new: bool,
    /// Whether it has a name on the server that is not known here.
    is_lost: bool,
    /// Its places on the server, and those that it has now, as far as they are known.
    was: Vec<Place>,
    places: Vec<Place>,
    /// Every place that it had at some time.
    ever: Vec<Place>,
    /// Whether the changes are about it, and not only within it.
    is_changed: bool,
    times: BTreeSet<Timestamp>,
    bytes: Option<Written>,
    target: Option<Bytes>,
    attributes: Attributes,
}

impl Node {
    fn new(kind: Kind) -> Node {
        Node {
            kind,
            is_new: false,
            is_lost: false,
            was: Vec::new(),
            places: Vec::new(),
            ever: Vec::new(),
            is_changed: false,
            times: BTreeSet::new(),
            bytes: None,
            target: None,
            attributes: Attributes::default(),
        }
    }

    /// Gives it a place, which is its first one from now on.
    fn put(&mut self, place: Place) {
        self.note_place(&place);
        self.places.insert(0, place);
    }

    fn note_place(&mut self, place: &Place) {
        if !self.ever.contains(place) && self.ever.len() < PASSED_MAX {
            self.ever.push(place.clone());
        }
    }
}

impl Shadow {
    /// A shadow that keeps its files in this directory, which must exist and be empty.
    pub fn new(directory: &Path) -> Shadow {
        let directory = directory.to_owned();
        Shadow { directory, nodes: BTreeMap::new(), notes: Vec::new(), changes: 0 }
    }

    /// Follows one part of a trace. A file that this machine's disk can't hold, as one that is too
    /// large, is left out and noted.
    ///
    /// # Errors
    /// If the disk is full, or fails.
    pub fn follow(&mut self, trace: Trace) -> io::Result<()> {
        match trace {
            Trace::Node(node) => {
                self.place(node);
                Ok(())
            }
            Trace::Change(change) => {
                let seq = change.seq;
                match self.make(change) {
                    Err(error) if is_of_the_file(&error) => {
                        self.notes
                            .push(format!("change {seq} of a file could not be kept: {error}"));
                        Ok(())
                    }
                    made => made,
                }
            }
        }
    }

    /// Gives the files their paths, and returns what the changes come to, with the nodes that
    /// changed, parents first.
    ///
    /// # Errors
    /// If a file can't be moved.
    pub fn settle(mut self) -> io::Result<Contents> {
        let inos: Vec<Ino> = self.nodes.keys().copied().collect();
        let (mut items, mut passing) = (Vec::new(), Vec::new());
        for ino in inos {
            match self.item(ino)? {
                Some(item) if item.names.is_empty() && item.was.is_empty() => passing.push(item),
                item => items.extend(item),
            }
        }
        items.sort_by(|a, b| (&a.names, &a.was).cmp(&(&b.names, &b.was)));
        let (notes, changes) = (self.notes, self.changes);
        Ok(Contents { items, passing, notes, changes, ..Contents::default() })
    }

    fn place(&mut self, whereabouts: Whereabouts) {
        let Whereabouts { ino, places, is_orphan } = whereabouts;
        let node = self.nodes.entry(ino).or_insert_with(|| Node::new(Kind::File));
        node.is_lost = places.is_empty() && !is_orphan;
        places.iter().for_each(|place| node.note_place(place));
        node.was.extend(places.iter().cloned());
        node.places.extend(places);
    }

    fn make(&mut self, change: Change) -> io::Result<()> {
        let Change { op, subjects: [first, second], payload, seq: _ } = change;
        self.changes += 1;
        [first, second].into_iter().flatten().for_each(|subject| self.touch(subject, op.time));
        let [first, second] = [first, second].map(|subject| subject.map(|subject| subject.ino));
        match op.action {
            Action::Create { parent, name, ino, mode, .. } => {
                self.add(ino, Kind::File, (parent, name), Some(mode));
                self.written(ino)?.note_whole();
            }
            Action::Mkdir { parent, name, ino, mode, .. } => {
                self.add(ino, Kind::Directory, (parent, name), Some(mode));
            }
            Action::Symlink { parent, name, ino, target, .. } => {
                self.add(ino, Kind::Symlink, (parent, name), None).target = Some(target);
            }
            Action::Mknod { parent, name, ino, mode, .. } => {
                self.add(ino, Kind::Special, (parent, name), Some(mode));
            }
            Action::Mailbox { user, ino, .. } => {
                self.add(ino, Kind::Directory, (Ino::OUTBOX, user), None);
            }
            Action::Link { ino, parent, name } => {
                let node = self.node(ino);
                node.note_place(&(parent, name.clone()));
                node.places.push((parent, name));
            }
            Action::Unlink { parent, name } | Action::Rmdir { parent, name } => {
                self.leave(first, &(parent, name));
            }
            Action::Rename { from, to, mode } => self.rename((first, from), (second, to), mode),
            Action::SetAttr { ino, mode, uid, gid, size, mtime, .. } => {
                let attributes = &mut self.node(ino).attributes;
                attributes.mode = mode.or(attributes.mode);
                attributes.uid = uid.or(attributes.uid);
                attributes.gid = gid.or(attributes.gid);
                attributes.mtime = mtime.map(moment).or(attributes.mtime);
                size.map_or(Ok(()), |size| self.written(ino)?.resize(size))?;
            }
            Action::SetXattr { ino, name, value, .. } => self.set_xattr(ino, &name, Some(&value)),
            Action::RemoveXattr { ino, name } => self.set_xattr(ino, &name, None),
            Action::Write { ino, offset, .. } => self.write(ino, offset, &payload, op.time)?,
            Action::Fallocate { ino, offset, len, mode, .. } => {
                self.written(ino)?.allocate(offset, len, mode)?;
            }
            Action::CopyRange { to, to_offset, len, .. } if payload.len() as u64 == len => {
                self.write(to, to_offset, &payload, op.time)?;
            }
            Action::CopyRange { from, from_offset, to, to_offset, len, .. } => {
                self.copy((from, from_offset), (to, to_offset), len)?;
            }
            Action::Send { to, name, .. } => {
                self.notes.push(format!("outbox/{to}/{name} was to be sent to {to}"));
            }
            Action::Decline { delivery } => {
                self.notes.push(format!("delivery {delivery} was to be declined"));
            }
            Action::ForgetOrphan { .. } | Action::Revise { .. } | Action::Accept { .. } => {}
        }
        Ok(())
    }

    /// Notes that a node is changed at this time.
    fn touch(&mut self, subject: Subject, time: Timestamp) {
        let Subject { ino, changed, is_directory } = subject;
        // One that is older than the changes was described before, unless a part of them is lost.
        let new = || Node { is_lost: changed.is_some(), ..Node::new(Kind::File) };
        let node = self.nodes.entry(ino).or_insert_with(new);
        node.is_changed = true;
        if is_directory {
            node.kind = Kind::Directory;
        }
        if node.times.len() < TIMES_MAX {
            node.times.extend(changed.into_iter().chain([time]));
        }
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.entry(ino).or_insert_with(|| Node::new(Kind::File))
    }

    fn add(&mut self, ino: Ino, kind: Kind, place: Place, mode: Option<u16>) -> &mut Node {
        let node = self.node(ino);
        node.kind = kind;
        node.is_new = true;
        node.put(place);
        node.attributes.mode = mode;
        node
    }

    /// Takes a place from a node. If it was not known to have it, it has it on the server.
    fn leave(&mut self, ino: Option<Ino>, place: &Place) {
        let Some(ino) = ino else { return };
        let node = self.node(ino);
        let count = node.places.len();
        node.places.retain(|at| at != place);
        if node.places.len() == count && !node.is_new && !node.was.contains(place) {
            node.was.push(place.clone());
        }
    }

    fn rename(&mut self, from: (Option<Ino>, Place), to: (Option<Ino>, Place), mode: RenameMode) {
        let ((moved, from), (other, to)) = (from, to);
        if moved == other {
            return;
        }
        self.leave(moved, &from);
        self.leave(other, &to);
        if let Some(moved) = moved {
            self.node(moved).put(to);
        }
        if let (Some(other), RenameMode::Exchange) = (other, mode) {
            self.node(other).put(from);
        }
    }

    fn set_xattr(&mut self, ino: Ino, name: &[u8], value: Option<&[u8]>) {
        if name == STATE_XATTR {
            return;
        }
        let xattrs = &mut self.node(ino).attributes.xattrs;
        xattrs.retain(|(given, _)| given.as_bytes() != name);
        xattrs.push((TreePath::new(name), value.map(<[u8]>::to_vec)));
    }

    fn written(&mut self, ino: Ino) -> io::Result<&mut Written> {
        let path = self.file_of(ino);
        let bytes = &mut self.node(ino).bytes;
        if bytes.is_none() {
            *bytes = Some(Written::create(path)?);
        }
        bytes.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_of(&self, ino: Ino) -> PathBuf {
        self.directory.join(ino.to_string())
    }

    fn write(&mut self, ino: Ino, offset: u64, data: &[u8], time: Timestamp) -> io::Result<()> {
        self.node(ino).attributes.mtime = Some(moment(time));
        self.written(ino)?.write(offset, data)
    }

    /// Copies a range of which the bytes did not come with the op.
    fn copy(&mut self, from: (Ino, u64), to: (Ino, u64), len: u64) -> io::Result<()> {
        let source = from.1..from.1 + len;
        let bytes = self.nodes.get(&from.0).and_then(|node| node.bytes.as_ref());
        let known = bytes.map(|bytes| bytes.share(&source)).transpose()?.flatten();
        self.written(to.0)?.copy(known.as_ref(), source.start, to.1, len)
    }

    /// The path of a place, as it is now or as it was on the server. A directory that is not known
    /// is called by its number.
    fn path(&self, place: &Place, when: When) -> PathBuf {
        let (mut parent, name) = (place.0, &place.1);
        let mut names = vec![name.as_bytes()];
        let unknown;
        while parent != Ino::ROOT && names.len() < usize::from(u16::MAX) {
            let place = self.nodes.get(&parent).and_then(|node| match when {
                When::Before => node.was.first(),
                When::After => node.places.first(),
                When::Moved => node.places.first().or(node.was.first()),
            });
            let Some((above, name)) = place else {
                unknown = format!("directory-{parent}");
                names.push(unknown.as_bytes());
                break;
            };
            names.push(name.as_bytes());
            parent = *above;
        }
        names.iter().rev().map(|name| Path::new(std::ffi::OsStr::from_bytes(name))).collect()
    }

    /// The paths that a node may have on the server, whichever of the changes it has by now.
    fn every_path(&self, ino: Ino) -> Vec<TreePath> {
        let mut paths = Vec::new();
        self.climb(ino, &mut Vec::new(), &mut paths);
        paths
    }

    /// Adds the paths of a node, of which those below are given, from the deepest up.
    fn climb<'a>(&'a self, ino: Ino, below: &mut Vec<(Ino, &'a [u8])>, paths: &mut Vec<TreePath>) {
        for (parent, name) in self.nodes.get(&ino).into_iter().flat_map(|node| &node.ever) {
            // A directory is never within itself, though its places of different times may say so.
            let is_known = below.iter().any(|(seen, _)| seen == parent);
            if is_known || paths.len() >= PASSED_MAX {
                continue;
            }
            below.push((ino, name.as_bytes()));
            if *parent == Ino::ROOT {
                let names: Vec<_> = below.iter().rev().map(|(_, name)| *name).collect();
                paths.push(TreePath::new(&names.join(&b'/')));
            } else {
                self.climb(*parent, below, paths);
            }
            below.pop();
        }
    }

    fn item(&mut self, ino: Ino) -> io::Result<Option<Item>> {
        let Some(node) = self.nodes.get_mut(&ino) else { return Ok(None) };
        // A name that it keeps comes first.
        node.places.sort_by_key(|place| !node.was.contains(place));
        let Some(node) = self.nodes.get(&ino) else { return Ok(None) };
        let is_gone = node.places.is_empty();
        let is_passing = is_gone && node.was.is_empty() && !node.is_lost;
        if !node.is_changed || is_passing && !node.is_new {
            let _ = fs::remove_file(self.file_of(ino));
            return Ok(None);
        }
        let paths = |places: &[Place], when| -> Vec<TreePath> {
            places.iter().map(|place| TreePath::from(&self.path(place, when))).collect()
        };
        let keeps_one = node.was.iter().any(|place| node.places.contains(place));
        let moved = node.was.first().filter(|_| !keeps_one && !is_gone);
        let moved_from = [When::Before, When::Moved].iter();
        let moved_from = moved_from
            .flat_map(|when| paths(&moved.cloned().into_iter().collect::<Vec<_>>(), *when));
        let left =
            node.was.iter().filter(|place| !node.places.contains(place) && Some(*place) != moved);
        let left: Vec<Place> = left.cloned().collect();
        let mut names = paths(&node.places, When::After);
        if node.is_lost && node.was.is_empty() && is_gone {
            names.push(TreePath::new(format!("node-{ino}").as_bytes()));
        }
        let is_gone = names.is_empty();
        let path = names.first().map(|name| name.as_path().to_owned());
        let bytes = match (&node.bytes, &path) {
            (Some(written), Some(path)) => Some(self.keep(ino, written, path)?),
            (Some(_), None) | (None, _) => None,
        };
        if is_gone {
            let _ = fs::remove_file(self.file_of(ino));
        }
        let times = node.times.iter().copied().map(moment).collect();
        let (unchanged_if, own_if) =
            if node.is_new { (Vec::new(), times) } else { (times, Vec::new()) };
        let was = paths(&node.was, When::Before);
        let (moved_from, left) = (moved_from.collect(), paths(&left, When::Moved));
        let mut passed = self.every_path(ino);
        passed
            .retain(|path| [&was, &names, &moved_from, &left].iter().all(|it| !it.contains(path)));
        Ok(Some(Item {
            ino: ino.0,
            kind: node.kind,
            was,
            unchanged_if,
            names,
            moved_from,
            left,
            passed,
            own_if,
            bytes,
            target: node.target.as_deref().map(TreePath::new),
            attributes: node.attributes.clone(),
            applied: false,
        }))
    }

    /// Moves a file to its path among the others.
    fn keep(&self, ino: Ino, written: &Written, path: &Path) -> io::Result<FileBytes> {
        let (from, within) = (self.file_of(ino), Path::new(FILES).join(path));
        let to = self.directory.join(&within);
        let parent = to.parent().unwrap_or(&self.directory);
        let moved = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        // A path may be too long here, or in the way of another. The file then keeps its number.
        let kept = match moved.and_then(|()| fs::hard_link(&from, &to)) {
            Ok(()) => {
                fs::remove_file(&from)?;
                within
            }
            Err(_) => PathBuf::from(ino.to_string()),
        };
        written.describe(&kept, &self.directory.join(&kept))
    }
}

#[derive(Clone, Copy)]
enum When {
    Before,
    After,
    /// Once nodes were moved, and none were removed.
    Moved,
}

/// Whether an error is about one file and not about the disk.
fn is_of_the_file(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput)
}
