//! A tree written down without regard to how xfer keeps it: directories are maps, files are bytes,
//! and links are counted on demand.
//!
//! It applies a log's ops one by one and decides each itself, by POSIX, Linux and
//! `docs/SEMANTICS.md`. It knows neither contents nor extents, and so no quotas.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use xfer_client::core;
use xfer_protocol::limits::FILE_BYTES_MAX;
use xfer_protocol::tree::{
    Action, FallocateMode, Kind, Node, Op, Owner, RenameMode, STATE_XATTR, SpecialKind, XattrMode,
};
use xfer_protocol::{DeliveryId, Errno, Ino, Name, Timestamp};
use xfer_tests::links::wayward;

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    None,
    /// A new link does not change its node's time.
    LinkKeepsTime,
    /// A hole is punched one byte short.
    PunchesShort,
    /// When a session begins, a durable op is taken for lost.
    LosesAnOp,
    /// Bytes that are said to be durable are lost with the power.
    SkipsSyncs,
    /// A machine that has the tree again is not told what another has changed.
    HidesChanges,
    /// Changes are said to be kept on a machine's disk before they are there.
    KeepsLate,
    /// A bug in the rows of the store.
    OfRows(wayward::Bug),
    /// A bug in the clients.
    OfClients(core::Bug),
}

/// One user's tree.
#[derive(Clone, Debug)]
pub struct Model {
    things: BTreeMap<Ino, Thing>,
    flaw: Flaw,
}

/// A node of the model.
#[derive(Clone, Debug)]
struct Thing {
    what: What,
    mode: u16,
    uid: u32,
    gid: u32,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    xattrs: BTreeMap<Bytes, Bytes>,
    sent: Option<DeliveryId>,
}

#[derive(Clone, PartialEq)]
enum What {
    File(Vec<u8>),
    Directory { parent: Ino, entries: BTreeMap<Name, Ino> },
    Symlink(Bytes),
    Special(SpecialKind),
}

/// The part that a directory plays in sending.
#[derive(PartialEq)]
enum Part {
    Ordinary,
    Outbox,
    Mailbox,
    Record,
}

/// A delivery from one user to the other.
#[derive(Debug)]
pub struct Parcel {
    from: Name,
    sent: Timestamp,
    thing: Packed,
}

#[derive(Debug)]
struct Packed {
    /// The sender's number of the node, of which several names may be sent.
    of: Ino,
    what: What,
    mode: u16,
    mtime: Timestamp,
    xattrs: BTreeMap<Bytes, Bytes>,
    inside: Vec<(Name, Packed)>,
}

type Done = Result<(), Errno>;

impl Model {
    /// A tree with only these nodes, which are directories.
    pub fn new(fixtures: &[(Ino, Node)], names: &[(Name, Ino)], flaw: Flaw) -> Model {
        let thing = |(ino, node): &(Ino, Node)| {
            let entries = if *ino == Ino::ROOT { names.to_vec() } else { Vec::new() };
            let entries = entries.into_iter().collect();
            let what = What::Directory { parent: Ino::ROOT, entries };
            let owner = Owner { uid: node.uid, gid: node.gid };
            let mut thing = Thing::new(what, node.mode, owner, node.mtime);
            (thing.atime, thing.ctime) = (node.atime, node.ctime);
            (*ino, thing)
        };
        Model { things: fixtures.iter().map(thing).collect(), flaw }
    }

    /// Applies an op. Returns the parcel if the op sends one.
    pub fn apply(
        &mut self,
        op: &Op,
        data: &[u8],
        parcel: Option<&Parcel>,
    ) -> Result<Option<Arc<Parcel>>, Errno> {
        let time = op.time;
        match &op.action {
            Action::Create { parent, name, ino, mode, owner } => {
                let thing = Thing::new(What::File(Vec::new()), *mode, *owner, time);
                self.make(*parent, name, *ino, thing)?;
            }
            Action::Mkdir { parent, name, ino, mode, owner } => {
                let what = What::Directory { parent: *parent, entries: BTreeMap::new() };
                self.make(*parent, name, *ino, Thing::new(what, mode & 0o1777, *owner, time))?;
            }
            Action::Symlink { parent, name, ino, target, owner } => {
                let thing = Thing::new(What::Symlink(target.clone()), 0o777, *owner, time);
                self.make(*parent, name, *ino, thing)?;
            }
            Action::Mknod { parent, name, ino, mode, owner, kind } => {
                let thing = Thing::new(What::Special(*kind), *mode, *owner, time);
                self.make(*parent, name, *ino, thing)?;
            }
            Action::Link { ino, parent, name } => self.link(time, *ino, *parent, name)?,
            Action::Unlink { parent, name } => self.unlink(time, *parent, name)?,
            Action::Rmdir { parent, name } => self.rmdir(time, *parent, name)?,
            Action::Rename { from, to, mode } => self.rename(time, from, to, *mode)?,
            Action::SetAttr { ino, .. } => self.set_attributes(time, *ino, &op.action)?,
            Action::SetXattr { ino, name, value, mode } => {
                self.set_xattr(time, *ino, name, value, *mode)?;
            }
            Action::RemoveXattr { ino, name } => {
                let thing = self.thing_mut(*ino)?;
                thing.xattrs.remove(name).ok_or(Errno::ENODATA)?;
                if name != STATE_XATTR {
                    thing.ctime = time;
                }
            }
            Action::ForgetOrphan { ino } => {
                if self.links(*ino) > 0 {
                    return Err(Errno::EBUSY);
                }
                self.things.remove(ino);
            }
            Action::Mailbox { user, ino, owner } => {
                let what = What::Directory { parent: Ino::OUTBOX, entries: BTreeMap::new() };
                self.enter_new(Ino::OUTBOX, user, *ino, Thing::new(what, 0o700, *owner, time))?;
            }
            Action::Send { to, name, from, delivery } => {
                let mailbox = self.entry(Ino::OUTBOX, to).ok_or(Errno::ENOENT)?;
                let ino = self.entry(mailbox, name).ok_or(Errno::ENOENT)?;
                let thing = self.pack(ino).ok_or(Errno::EPERM)?;
                self.make_records(time, &thing, *delivery);
                return Ok(Some(Arc::new(Parcel { from: from.clone(), sent: time, thing })));
            }
            Action::Accept { parent, name, first, owner, .. } => {
                let parcel = parcel.ok_or(Errno::ENOENT)?;
                self.unpack(time, parcel, (*parent, name), *first, *owner)?;
            }
            Action::Revise { ino } => {
                let id = self.thing(*ino)?.sent.ok_or(Errno::EINVAL)?;
                self.revise(time, *ino, id);
            }
            Action::Decline { .. } => {}
            Action::Write { ino, .. }
            | Action::Fallocate { ino, .. }
            | Action::CopyRange { to: ino, .. } => {
                if self.change_bytes(*ino, &op.action, data)? {
                    let thing = self.thing_mut(*ino)?;
                    (thing.mtime, thing.ctime) = (time, time);
                }
            }
        }
        Ok(None)
    }

    /// Removes orphans: open files go with their session.
    pub fn forget_orphans(&mut self) {
        self.orphans().iter().for_each(|ino| drop(self.things.remove(ino)));
    }

    /// The nodes without a name.
    pub fn orphans(&self) -> Vec<Ino> {
        self.things.keys().copied().filter(|ino| self.links(*ino) == 0).collect()
    }

    /// The number of nodes.
    pub fn len(&self) -> u64 {
        self.things.len() as u64
    }

    /// The node that an entry refers to.
    pub fn entry(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.entries(parent)?.get(name).copied()
    }

    /// All entries of a directory.
    pub fn entries(&self, ino: Ino) -> Option<&BTreeMap<Name, Ino>> {
        match &self.things.get(&ino)?.what {
            What::Directory { entries, .. } => Some(entries),
            What::File(_) | What::Symlink(_) | What::Special(_) => None,
        }
    }

    /// The bytes of a file.
    pub fn bytes(&self, ino: Ino) -> Option<&[u8]> {
        match &self.things.get(&ino)?.what {
            What::File(bytes) => Some(bytes),
            What::Directory { .. } | What::Symlink(_) | What::Special(_) => None,
        }
    }

    /// The bytes of a file, to be changed.
    pub fn bytes_mut(&mut self, ino: Ino) -> Option<&mut [u8]> {
        match &mut self.things.get_mut(&ino)?.what {
            What::File(bytes) => Some(bytes),
            What::Directory { .. } | What::Symlink(_) | What::Special(_) => None,
        }
    }

    /// Describes the first difference between a node and the one that was shown.
    pub fn differs(&self, ino: Ino, node: &Node) -> Option<String> {
        let Some(thing) = self.things.get(&ino) else { return Some("is not there".into()) };
        let xattrs = node.xattrs.all().expect("a model's nodes have all that is theirs");
        let xattrs = xattrs.iter();
        let same = [
            ("kind", thing.is(&node.kind)),
            ("mode", thing.mode == node.mode),
            ("owner", (thing.uid, thing.gid) == (node.uid, node.gid)),
            ("links", self.links(ino) == node.nlink),
            ("atime", thing.atime == node.atime),
            ("mtime", thing.mtime == node.mtime),
            ("ctime", thing.ctime == node.ctime),
            ("xattrs", thing.xattrs.iter().eq(xattrs)),
            ("delivery", thing.sent == node.sent),
        ];
        let (what, _) = same.into_iter().find(|(_, same)| !same)?;
        Some(format!("{what} should be as in {thing:?} with {} links", self.links(ino)))
    }

    fn thing(&self, ino: Ino) -> Result<&Thing, Errno> {
        self.things.get(&ino).ok_or(Errno::ENOENT)
    }

    fn thing_mut(&mut self, ino: Ino) -> Result<&mut Thing, Errno> {
        self.things.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.entries(ino).is_some()
    }

    /// The link count that stat(2) shows.
    fn links(&self, ino: Ino) -> u32 {
        let names = self.things.values().filter_map(|thing| match &thing.what {
            What::Directory { entries, .. } => Some(entries.values().filter(|i| **i == ino)),
            What::File(_) | What::Symlink(_) | What::Special(_) => None,
        });
        let names = names.flatten().count() as u32;
        match self.entries(ino) {
            Some(_) if ino != Ino::ROOT && names == 0 => 0,
            Some(entries) => 2 + entries.values().filter(|i| self.is_directory(**i)).count() as u32,
            None => names,
        }
    }

    /// Refuses a parent that is not a directory or was removed.
    fn must_be_place(&self, parent: Ino) -> Result<Part, Errno> {
        let thing = self.thing(parent)?;
        let What::Directory { parent: above, .. } = thing.what else { return Err(Errno::ENOTDIR) };
        if self.links(parent) == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(match () {
            () if parent == Ino::OUTBOX => Part::Outbox,
            () if thing.sent.is_some() => Part::Record,
            () if above == Ino::OUTBOX => Part::Mailbox,
            () => Part::Ordinary,
        })
    }

    fn is_fixture(&self, ino: Ino) -> bool {
        ino < Ino(Ino::FIRST_GRANTED) || self.must_be_place(ino) == Ok(Part::Mailbox)
    }

    fn make(&mut self, parent: Ino, name: &Name, ino: Ino, mut thing: Thing) -> Done {
        let part = self.must_be_place(parent)?;
        if self.entry(parent, name).is_some() {
            return Err(Errno::EEXIST);
        }
        match (part, &thing.what) {
            (Part::Ordinary, _) | (Part::Mailbox, What::File(_) | What::Directory { .. }) => {}
            (Part::Outbox, _) => return Err(Errno::ENOENT),
            (Part::Mailbox | Part::Record, _) => return Err(Errno::EPERM),
        }
        let directory = self.thing(parent)?;
        if directory.mode & SET_GID != 0 {
            thing.gid = directory.gid;
            if let What::Directory { .. } = thing.what {
                thing.mode |= SET_GID;
            }
        }
        self.enter_new(parent, name, ino, thing)
    }

    fn enter_new(&mut self, parent: Ino, name: &Name, ino: Ino, thing: Thing) -> Done {
        if self.entry(parent, name).is_some() {
            return Err(Errno::EEXIST);
        }
        assert!(!self.things.contains_key(&ino), "{ino:?} is used twice");
        self.set_entry(thing.ctime, parent, name, Some(ino));
        self.things.insert(ino, thing);
        Ok(())
    }

    fn set_entry(&mut self, time: Timestamp, parent: Ino, name: &Name, ino: Option<Ino>) {
        let thing = self.things.get_mut(&parent).expect("a directory that was looked at");
        (thing.mtime, thing.ctime) = (time, time);
        let What::Directory { entries, .. } = &mut thing.what else { unreachable!() };
        match ino {
            Some(ino) => entries.insert(name.clone(), ino),
            None => entries.remove(name),
        };
    }

    fn link(&mut self, time: Timestamp, ino: Ino, parent: Ino, name: &Name) -> Done {
        self.thing(ino)?;
        let part = self.must_be_place(parent)?;
        if self.entry(parent, name).is_some() {
            return Err(Errno::EEXIST);
        }
        if self.is_directory(ino) || part != Part::Ordinary || self.thing(ino)?.sent.is_some() {
            return Err(Errno::EPERM);
        }
        if self.links(ino) == 0 {
            return Err(Errno::ENOENT);
        }
        self.set_entry(time, parent, name, Some(ino));
        if self.flaw != Flaw::LinkKeepsTime {
            self.thing_mut(ino)?.ctime = time;
        }
        Ok(())
    }

    fn unlink(&mut self, time: Timestamp, parent: Ino, name: &Name) -> Done {
        self.must_be_place(parent)?;
        let ino = self.entry(parent, name).ok_or(Errno::ENOENT)?;
        if self.is_directory(ino) {
            return Err(Errno::EISDIR);
        }
        self.set_entry(time, parent, name, None);
        self.thing_mut(ino)?.ctime = time;
        Ok(())
    }

    fn rmdir(&mut self, time: Timestamp, parent: Ino, name: &Name) -> Done {
        self.must_be_place(parent)?;
        let ino = self.entry(parent, name).ok_or(Errno::ENOENT)?;
        self.must_be_removable(ino)?;
        self.set_entry(time, parent, name, None);
        self.thing_mut(ino)?.ctime = time;
        Ok(())
    }

    fn must_be_removable(&self, ino: Ino) -> Done {
        match self.entries(ino) {
            None => Err(Errno::ENOTDIR),
            Some(entries) if !entries.is_empty() => Err(Errno::ENOTEMPTY),
            Some(_) if self.is_fixture(ino) => Err(Errno::EPERM),
            Some(_) => Ok(()),
        }
    }

    fn rename(
        &mut self,
        time: Timestamp,
        from: &(Ino, Name),
        to: &(Ino, Name),
        mode: RenameMode,
    ) -> Done {
        self.must_be_place(from.0)?;
        self.must_be_place(to.0)?;
        let moved = self.entry(from.0, &from.1).ok_or(Errno::ENOENT)?;
        let target = self.entry(to.0, &to.1);
        match mode {
            RenameMode::NoReplace if target.is_some() => return Err(Errno::EEXIST),
            RenameMode::Exchange if target.is_none() => return Err(Errno::ENOENT),
            RenameMode::Replace | RenameMode::NoReplace | RenameMode::Exchange => {}
        }
        self.must_be_movable(moved, from.0, to.0)?;
        if target == Some(moved) {
            return Ok(());
        }
        let swapped = target.filter(|_| mode == RenameMode::Exchange);
        match (swapped, target) {
            (Some(target), _) => self.must_be_movable(target, to.0, from.0)?,
            (None, Some(target)) => {
                match (self.is_directory(moved), self.is_directory(target)) {
                    (true, true) => self.must_be_removable(target)?,
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) if self.is_in(from.0, target) => return Err(Errno::ENOTEMPTY),
                    (false, true) => return Err(Errno::EISDIR),
                    (false, false) => {}
                }
                self.thing_mut(target)?.ctime = time;
            }
            (None, None) => {}
        }
        self.set_entry(time, from.0, &from.1, swapped);
        self.set_entry(time, to.0, &to.1, Some(moved));
        self.settle(time, moved, to.0);
        swapped.into_iter().for_each(|target| self.settle(time, target, from.0));
        Ok(())
    }

    /// Records a moved node's new parent.
    fn settle(&mut self, time: Timestamp, ino: Ino, to: Ino) {
        let thing = self.things.get_mut(&ino).expect("it was moved");
        thing.ctime = time;
        if let What::Directory { parent, .. } = &mut thing.what {
            *parent = to;
        }
    }

    fn must_be_movable(&self, ino: Ino, from: Ino, to: Ino) -> Done {
        let thing = self.thing(ino)?;
        if self.is_fixture(ino) {
            return Err(Errno::EPERM);
        }
        let is_part = self.is_directory(ino) && self.thing(from)?.sent.is_some();
        if thing.sent.is_some() && (from != to || is_part) {
            return Err(Errno::EXDEV);
        }
        match (self.must_be_place(to)?, &thing.what) {
            (Part::Ordinary, _) | (Part::Mailbox, What::Directory { .. }) => {}
            (Part::Mailbox, What::File(_)) if self.links(ino) == 1 => {}
            (Part::Mailbox, What::File(_)) => return Err(Errno::EXDEV),
            (Part::Mailbox | Part::Record, _) => return Err(Errno::EPERM),
            (Part::Outbox, _) => return Err(Errno::ENOENT),
        }
        if self.is_directory(ino) && self.is_in(to, ino) { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Whether one directory is another, or below it.
    fn is_in(&self, mut place: Ino, ino: Ino) -> bool {
        while place != ino && place != Ino::ROOT {
            let What::Directory { parent, .. } = self.things[&place].what else { unreachable!() };
            place = parent;
        }
        place == ino
    }

    fn set_attributes(&mut self, time: Timestamp, ino: Ino, action: &Action) -> Done {
        let Action::SetAttr { mode, uid, gid, size, atime, mtime, clear_set_id, .. } = action
        else {
            unreachable!()
        };
        let is_directory = self.is_directory(ino);
        let thing = self.thing_mut(ino)?;
        if let Some(size) = *size {
            let bytes = thing.bytes_mut()?;
            if size > FILE_BYTES_MAX {
                return Err(Errno::EFBIG);
            }
            bytes.resize(size as usize, 0);
            thing.mtime = time;
        }
        if (*clear_set_id || uid.is_some() || gid.is_some()) && !is_directory {
            thing.clear_set_id();
        }
        thing.mode = mode.map_or(thing.mode, |mode| mode & 0o7777);
        thing.uid = uid.unwrap_or(thing.uid);
        thing.gid = gid.unwrap_or(thing.gid);
        thing.atime = atime.unwrap_or(thing.atime);
        thing.mtime = mtime.unwrap_or(thing.mtime);
        thing.ctime = time;
        Ok(())
    }

    fn set_xattr(
        &mut self,
        time: Timestamp,
        ino: Ino,
        name: &Bytes,
        value: &Bytes,
        mode: XattrMode,
    ) -> Done {
        let thing = self.thing_mut(ino)?;
        match (mode, thing.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace, false) => return Err(Errno::ENODATA),
            (XattrMode::Either | XattrMode::Create | XattrMode::Replace, _) => {}
        }
        thing.xattrs.insert(name.clone(), value.clone());
        if name != STATE_XATTR {
            thing.ctime = time;
        }
        Ok(())
    }

    /// Changes bytes; returns whether that counts as a change.
    fn change_bytes(&mut self, ino: Ino, action: &Action, data: &[u8]) -> Result<bool, Errno> {
        let short = u64::from(self.flaw == Flaw::PunchesShort);
        match action {
            Action::Write { offset, clear_set_id, .. } => {
                must_fit(*offset, data.len() as u64)?;
                let thing = self.thing_mut(ino)?;
                let bytes = thing.bytes_mut()?;
                if data.is_empty() {
                    return Ok(false);
                }
                put(bytes, *offset, data);
                if *clear_set_id {
                    thing.clear_set_id();
                }
            }
            Action::Fallocate { offset, len, mode, .. } => {
                let end = must_fit(*offset, *len)?;
                let bytes = self.thing_mut(ino)?.bytes_mut()?;
                if *len == 0 {
                    return Err(Errno::EINVAL);
                }
                let grows = matches!(mode, FallocateMode::Allocate | FallocateMode::Zero);
                if grows && end as usize > bytes.len() {
                    bytes.resize(end as usize, 0);
                }
                let end = match mode {
                    FallocateMode::Allocate | FallocateMode::AllocateKeepSize => *offset,
                    FallocateMode::PunchHole => end - short,
                    FallocateMode::Zero | FallocateMode::ZeroKeepSize => end,
                };
                let size = bytes.len() as u64;
                bytes[(*offset).min(size) as usize..end.min(size) as usize].fill(0);
            }
            Action::CopyRange { from, from_offset, to, to_offset, len, .. } => {
                let source = self.bytes(*from).ok_or(match self.is_directory(*from) {
                    true => Errno::EISDIR,
                    false => Errno::EINVAL,
                })?;
                let end = (from_offset + len).min(source.len() as u64);
                let part = source.get(*from_offset as usize..end as usize).unwrap_or(&[]).to_vec();
                self.thing_mut(*to)?.bytes_mut()?;
                if part.is_empty() {
                    return Ok(false);
                }
                let there = must_fit(*to_offset, part.len() as u64)?;
                if from == to && *from_offset < there && *to_offset < end {
                    return Err(Errno::EINVAL);
                }
                put(self.thing_mut(*to)?.bytes_mut()?, *to_offset, &part);
            }
            other => unreachable!("{other:?} changes no bytes"),
        }
        Ok(true)
    }

    /// Takes a snapshot of a node and everything in it.
    fn pack(&self, ino: Ino) -> Option<Packed> {
        let thing = &self.things[&ino];
        if let What::Special(_) = thing.what {
            return None;
        }
        let travels = |(name, _): &(&Bytes, &Bytes)| {
            name.starts_with(b"user.") && !name.starts_with(b"user.xfer.")
        };
        let xattrs = thing.xattrs.iter().filter(travels);
        let mut packed = Packed {
            of: ino,
            what: thing.what.clone(),
            mode: thing.mode & 0o777,
            mtime: thing.mtime,
            xattrs: xattrs.map(|(name, value)| (name.clone(), value.clone())).collect(),
            inside: Vec::new(),
        };
        if let What::Directory { entries, .. } = &thing.what {
            for (name, ino) in entries {
                packed.inside.extend(self.pack(*ino).map(|inside| (name.clone(), inside)));
            }
        }
        Some(packed)
    }

    /// Turns what was sent into records, but for files that have names elsewhere.
    fn make_records(&mut self, time: Timestamp, packed: &Packed, id: DeliveryId) {
        let mut names = BTreeMap::new();
        packed.count_names(&mut names);
        for (ino, sent) in names {
            if ino == packed.of || self.is_directory(ino) || self.links(ino) == sent {
                let thing = self.things.get_mut(&ino).expect("it was packed");
                thing.xattrs.remove(STATE_XATTR);
                thing.sent = Some(id);
                thing.ctime = time;
            }
        }
    }

    /// Turns a record, with all of it that is in a directory, into what it was before it was sent.
    fn revise(&mut self, time: Timestamp, ino: Ino, id: DeliveryId) {
        for inside in
            self.entries(ino).into_iter().flatten().map(|(_, ino)| *ino).collect::<Vec<_>>()
        {
            self.revise(time, inside, id);
        }
        let thing = self.things.get_mut(&ino).expect("it has a name");
        if thing.sent == Some(id) {
            thing.sent = None;
            thing.ctime = time;
        }
    }

    fn unpack(
        &mut self,
        time: Timestamp,
        parcel: &Parcel,
        (parent, name): (Ino, &Name),
        first: Ino,
        owner: Owner,
    ) -> Done {
        if self.must_be_place(parent)? != Part::Ordinary {
            return Err(Errno::EPERM);
        }
        let mut made = Made { next: first, nodes: BTreeMap::new() };
        self.place(time, &parcel.thing, (parent, name), &mut made, owner)?;
        let xattrs = &mut self.thing_mut(first)?.xattrs;
        let from = parcel.from.as_bytes().to_vec();
        xattrs.insert(Bytes::from_static(b"user.xfer.from"), from.into());
        xattrs.insert(Bytes::from_static(b"user.xfer.sent"), parcel.sent.to_rfc3339().into());
        Ok(())
    }

    fn place(
        &mut self,
        time: Timestamp,
        packed: &Packed,
        (parent, name): (Ino, &Name),
        made: &mut Made,
        owner: Owner,
    ) -> Done {
        let ino = made.next;
        made.next = Ino(ino.0 + 1);
        if let Some(first) = made.nodes.get(&packed.of) {
            self.set_entry(time, parent, name, Some(*first));
            self.thing_mut(*first)?.ctime = time;
            return Ok(());
        }
        made.nodes.insert(packed.of, ino);
        let what = match &packed.what {
            What::Directory { .. } => What::Directory { parent, entries: BTreeMap::new() },
            What::File(_) | What::Symlink(_) | What::Special(_) => packed.what.clone(),
        };
        let mut thing = Thing::new(what, packed.mode, owner, time);
        thing.xattrs = packed.xattrs.clone();
        self.enter_new(parent, name, ino, thing)?;
        for (name, inside) in &packed.inside {
            self.place(time, inside, (ino, name), made, owner)?;
        }
        let thing = self.thing_mut(ino)?;
        (thing.atime, thing.mtime) = (packed.mtime, packed.mtime);
        Ok(())
    }
}

/// What an arrival has made so far.
struct Made {
    next: Ino,
    /// The numbers of nodes, by those that the sender has for them.
    nodes: BTreeMap<Ino, Ino>,
}

impl Packed {
    fn count_names(&self, names: &mut BTreeMap<Ino, u32>) {
        *names.entry(self.of).or_default() += 1;
        self.inside.iter().for_each(|(_, inside)| inside.count_names(names));
    }
}

impl Thing {
    fn new(what: What, mode: u16, owner: Owner, time: Timestamp) -> Thing {
        let (uid, gid, mode) = (owner.uid, owner.gid, mode & 0o7777);
        let (xattrs, sent) = (BTreeMap::new(), None);
        Thing { what, mode, uid, gid, atime: time, mtime: time, ctime: time, xattrs, sent }
    }

    /// The bytes, for changing.
    fn bytes_mut(&mut self) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.what {
            What::File(_) if self.sent.is_some() => Err(Errno::EPERM),
            What::File(bytes) => Ok(bytes),
            What::Directory { .. } => Err(Errno::EISDIR),
            What::Symlink(_) | What::Special(_) => Err(Errno::EINVAL),
        }
    }

    fn clear_set_id(&mut self) {
        self.mode &= !SET_UID;
        if self.mode & GROUP_EXECUTE != 0 {
            self.mode &= !SET_GID;
        }
    }

    fn is(&self, kind: &Kind) -> bool {
        use SpecialKind as Special;
        match (kind, &self.what) {
            (Kind::File(data), What::File(bytes)) => data.size == bytes.len() as u64,
            (
                Kind::Directory { parent, entries, name_bytes },
                What::Directory { parent: p, entries: e },
            ) => {
                let bytes = e.keys().map(|name| name.as_bytes().len() as u64).sum::<u64>();
                parent == p && *entries == e.len() as u64 && *name_bytes == bytes
            }
            (Kind::Symlink { target }, What::Symlink(to)) => target == to,
            (Kind::Special(kind), What::Special(special)) => match (kind, special) {
                (SpecialKind::Fifo, Special::Fifo) | (SpecialKind::Socket, Special::Socket) => true,
                (SpecialKind::CharDevice { rdev }, Special::CharDevice { rdev: r })
                | (SpecialKind::BlockDevice { rdev }, Special::BlockDevice { rdev: r }) => {
                    rdev == r
                }
                _ => false,
            },
            _ => false,
        }
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::File(bytes) => write!(f, "file of {} bytes", bytes.len()),
            What::Directory { parent, entries } => write!(f, "{parent:?}/ with {entries:?}"),
            What::Symlink(to) => write!(f, "link to {to:?}"),
            What::Special(kind) => write!(f, "{kind:?}"),
        }
    }
}

/// The end of a range; an error if no file can have it.
fn must_fit(offset: u64, len: u64) -> Result<u64, Errno> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Errno::EFBIG)
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let range = offset as usize..offset as usize + data.len();
    if bytes.len() < range.end {
        bytes.resize(range.end, 0);
    }
    bytes[range].copy_from_slice(data);
}
