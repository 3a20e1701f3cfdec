//! Imports a directory of this machine into an account, through the same ops that a mount sends.
//!
//! A partly imported file is resumed (`filling` says how it is recognised); other entries that
//! differ are replaced. `outbox` is skipped: files put there would be sent.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno as HostError;
use xfer_protocol::tree::{Action, Kind, Node, Owner, SpecialKind};
use xfer_protocol::{Errno, Ino, Name};
use xfer_store::{Account, Store};

use super::progress::{Path, Progress};
use super::walk::{self, Attributes, FileId, Way};
use super::{Interruption, Tally, interrupted, open_directory, unusable};
use crate::engine::solo::{Solo, SoloError};
use crate::program::exit::{Exit, Failure};
use crate::program::rights::Own;
use crate::program::waiting::Waiter;

/// The permission bits of directories created on the path to the target.
const WAY_MODE: u16 = 0o755;

/// The source and target of an import.
pub struct Import<'a> {
    /// The directory whose entries are imported.
    pub from: &'a std::path::Path,
    /// The path of the target directory within the account.
    pub into: &'a [Name],
}

/// Imports a tree into an account without a session. Returns a summary line.
///
/// # Errors
/// If the work ended early, keeping what was done so far; or if some entries could not be copied.
pub fn import(
    waiter: &Waiter,
    store: Store,
    account: &Account,
    what: &Import<'_>,
) -> (String, Result<Tally, Failure>) {
    let mut progress = Progress::new("imported", None);
    let done = Solo::begin(waiter, store, account.id)
        .map_err(Failure::from)
        .and_then(|solo| Importer::run(solo, &account.name, what, &mut progress));
    let tally = progress.tally;
    let (line, whole) = progress.finish();
    (line, done.and(whole).map(|()| tally))
}

pub(super) struct Importer<'a> {
    pub(super) solo: Solo<'a>,
    user: &'a Name,
    pub(super) progress: &'a mut Progress,
    way: Way,
    /// The nodes of files that have several names.
    links: HashMap<FileId, Ino>,
}

/// A directory whose entries are being imported.
struct Frame {
    ino: Ino,
    names: std::vec::IntoIter<Name>,
    /// The directory's final attributes; `None` for the top one, which keeps its own.
    attributes: Option<Attributes>,
}

/// The source of an entry that is not a directory.
pub(super) enum What {
    File(OwnedFd),
    Symlink(Bytes),
    Special(SpecialKind),
}

/// How an entry of the account compares with the source.
enum There {
    Absent,
    /// It has the same kind, size and modification time.
    Same(Ino),
    /// It is a file that an interrupted import left incomplete.
    Part(Ino),
    Other(Ino, Arc<Node>),
}

impl<'a> Importer<'a> {
    fn run(
        solo: Solo<'a>,
        user: &'a Name,
        what: &Import<'_>,
        progress: &'a mut Progress,
    ) -> Result<(), Failure> {
        let root = open_directory(what.from)?;
        let owner = Attributes::of(&fstat(&root).map_err(|error| unusable(what.from, error))?);
        let (names, nameless) =
            walk::names(root.as_fd()).map_err(|error| unusable(what.from, error))?;
        let way = Way::new(root);
        let mut importer = Importer { solo, user, progress, way, links: HashMap::new() };
        importer.progress.tally.failed += nameless;
        let done = importer.target(what.into, &owner).and_then(|ino| {
            importer.walk(Frame { ino, names: names.into_iter(), attributes: None })
        });
        importer.end(done)
    }

    /// Commits what was done, whatever ended the work, unless it can't be kept.
    fn end(mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        let committed = match &done {
            Err(Failure {
                exit: Exit::AccountInUse | Exit::Store | Exit::StoreGone | Exit::DiskFull,
                ..
            }) => Ok(()),
            Ok(()) | Err(_) => self.solo.commit().map_err(|error| self.failure(error)),
        };
        if let Err(error) = self.solo.abandon() {
            tracing::warn!(%error, "what was not kept stays on the disk until the next start");
        }
        done.and(committed)
    }

    /// The target directory, created if it is missing.
    fn target(&mut self, into: &[Name], owner: &Attributes) -> Result<Ino, Failure> {
        let mut ino = Ino::ROOT;
        for name in into {
            let there = self.solo.entry(ino, name).map_err(|error| self.failure(error))?;
            ino = match there {
                Some((Ino::OUTBOX, _)) => {
                    return Err(bad_target("what is put there would be sent"));
                }
                Some((child, node)) if node.is_directory() => child,
                Some(_) => return Err(bad_target(&format!("{name} is not a directory"))),
                None => {
                    let attributes = Attributes { mode: WAY_MODE, ..*owner };
                    self.mkdir(ino, name, &attributes).map_err(|stop| match stop {
                        Interruption::Entry(why) => bad_target(&why),
                        Interruption::All(failure) => failure,
                    })?
                }
            };
        }
        Ok(ino)
    }

    fn walk(&mut self, first: Frame) -> Result<(), Failure> {
        let mut frames = vec![first];
        while let Some(frame) = frames.last_mut() {
            let Some(name) = frame.names.next() else {
                if let Some(frame) = frames.pop() {
                    self.leave(&frame)?;
                }
                continue;
            };
            match self.entry(frame.ino, &name) {
                Ok(Some(inner)) => frames.push(inner),
                Ok(None) => {}
                Err(Interruption::Entry(why)) => self.fail(&name, &why),
                Err(Interruption::All(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Gives a complete directory its attributes. The modification time must come after its entries.
    fn leave(&mut self, frame: &Frame) -> Result<(), Failure> {
        let Some(attributes) = frame.attributes else { return Ok(()) };
        let name = self.way.names().last().cloned();
        let finished = walk::xattrs(self.way.here())
            .map_err(Interruption::from)
            .and_then(|xattrs| self.finish(frame.ino, &attributes, &xattrs));
        let left = self.way.leave();
        match (finished, name) {
            (Err(Interruption::All(failure)), _) => return Err(failure),
            (Err(Interruption::Entry(why)), Some(name)) => self.fail(&name, &why),
            (Err(Interruption::Entry(_)), None) | (Ok(()), _) => {}
        }
        left.map_err(|error| {
            let error = std::io::Error::from(error);
            let line = format!("a directory changed places meanwhile ({error}); run this again");
            Failure::new(Exit::Incomplete, line)
        })
    }

    /// Imports an entry. For a directory, returns the frame for descending into it.
    fn entry(&mut self, parent: Ino, name: &Name) -> Result<Option<Frame>, Interruption> {
        let stat = statat(self.way.here(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
        let attributes = Attributes::of(&stat);
        let what = match attributes.kind {
            FileType::Directory => return self.directory(parent, name),
            FileType::RegularFile => {
                let file = self.open(name, OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)?;
                let opened = Attributes::of(&fstat(&file)?);
                if opened.kind != FileType::RegularFile {
                    return Err(Interruption::Entry(
                        "it changed while it was looked at".to_owned(),
                    ));
                }
                self.place(parent, name, &opened, &What::File(file))?;
                return Ok(None);
            }
            FileType::Symlink => {
                let target = readlinkat(self.way.here(), name.as_bytes(), Vec::new())?;
                What::Symlink(target.into_bytes().into())
            }
            FileType::Fifo => What::Special(SpecialKind::Fifo),
            FileType::Socket => What::Special(SpecialKind::Socket),
            _ => {
                self.skip(name, "a device; skipped");
                return Ok(None);
            }
        };
        self.place(parent, name, &attributes, &what)?;
        Ok(None)
    }

    fn directory(&mut self, parent: Ino, name: &Name) -> Result<Option<Frame>, Interruption> {
        let there = self.lookup(parent, name)?;
        if let Some((Ino::OUTBOX, _)) = there {
            self.skip(name, "what is put there would be sent; skipped");
            return Ok(None);
        }
        let directory = openat(self.way.here(), name.as_bytes(), walk::DIRECTORY, Mode::empty())?;
        let attributes = Attributes::of(&fstat(&directory)?);
        let (names, nameless) = walk::names(directory.as_fd())?;
        let ino = match there {
            Some((ino, node)) if node.is_directory() => {
                self.progress.kept();
                ino
            }
            Some((ino, node)) => {
                self.remove(parent, name, ino, &node)?;
                self.mkdir(parent, name, &attributes)?
            }
            None => self.mkdir(parent, name, &attributes)?,
        };
        self.way.enter(name.clone(), directory)?;
        self.progress.tally.failed += nameless;
        Ok(Some(Frame { ino, names: names.into_iter(), attributes: Some(attributes) }))
    }

    fn mkdir(&mut self, parent: Ino, name: &Name, of: &Attributes) -> Result<Ino, Interruption> {
        let ino = Ino(self.fresh()?);
        let name = name.clone();
        self.act(Action::Mkdir { parent, name, ino, mode: of.mode, owner: owner(of) })?;
        self.progress.moved();
        Ok(ino)
    }

    /// Makes sure that the name refers to an equal of the source.
    fn place(
        &mut self,
        parent: Ino,
        name: &Name,
        of: &Attributes,
        what: &What,
    ) -> Result<(), Interruption> {
        if let Some(ino) = self.links.get(&of.id).copied().filter(|_| of.links > 1) {
            return self.link(parent, name, ino);
        }
        let there = match self.lookup(parent, name)? {
            Some((ino, node)) => compare(ino, node, of, what),
            None => There::Absent,
        };
        let ino = match there {
            There::Same(ino) => {
                self.progress.kept();
                ino
            }
            There::Part(ino) => {
                self.fill(ino, of, what)?;
                self.progress.moved();
                ino
            }
            There::Other(ino, node) => {
                self.remove(parent, name, ino, &node)?;
                self.make(parent, name, of, what)?
            }
            There::Absent => self.make(parent, name, of, what)?,
        };
        if of.links > 1 {
            self.links.insert(of.id, ino);
        }
        let xattrs = match what {
            What::File(file) => walk::xattrs(file.as_fd())?,
            What::Symlink(_) | What::Special(_) => BTreeMap::new(),
        };
        self.finish(ino, of, &xattrs)
    }

    /// Links another name to a file that is already imported.
    fn link(&mut self, parent: Ino, name: &Name, ino: Ino) -> Result<(), Interruption> {
        match self.lookup(parent, name)? {
            Some((there, _)) if there == ino => {
                self.progress.kept();
                return Ok(());
            }
            Some((there, node)) => self.remove(parent, name, there, &node)?,
            None => {}
        }
        self.act(Action::Link { ino, parent, name: name.clone() })?;
        self.progress.moved();
        Ok(())
    }

    fn make(
        &mut self,
        parent: Ino,
        name: &Name,
        of: &Attributes,
        what: &What,
    ) -> Result<Ino, Interruption> {
        let ino = Ino(self.fresh()?);
        let (name, mode, owner) = (name.clone(), of.mode, owner(of));
        match what {
            What::File(_) => {
                self.act(Action::Create { parent, name, ino, mode, owner })?;
                self.fill(ino, of, what)?;
            }
            What::Symlink(target) => {
                let target = target.clone();
                self.act(Action::Symlink { parent, name, ino, target, owner })?;
            }
            What::Special(kind) => {
                self.act(Action::Mknod { parent, name, ino, mode, owner, kind: *kind })?;
            }
        }
        self.progress.moved();
        Ok(ino)
    }

    /// Removes an entry that is in the way; fails for a directory that is not empty.
    fn remove(
        &mut self,
        parent: Ino,
        name: &Name,
        ino: Ino,
        node: &Node,
    ) -> Result<(), Interruption> {
        let name = name.clone();
        if node.is_directory() {
            return self.act(Action::Rmdir { parent, name });
        }
        self.act(Action::Unlink { parent, name })?;
        if node.nlink == 1 { self.act(Action::ForgetOrphan { ino }) } else { Ok(()) }
    }
}

/// State checks and error handling.
impl Importer<'_> {
    /// Opens an entry for reading, without changing its access time where that is allowed.
    fn open(&self, name: &Name, flags: OFlags) -> Result<OwnedFd, HostError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags;
        // Only the file's owner and root may use `O_NOATIME`.
        let _own = Own::regain()?;
        let open = |flags| openat(self.way.here(), name.as_bytes(), flags, Mode::empty());
        match open(flags | OFlags::NOATIME) {
            Err(HostError::PERM) => open(flags),
            opened => opened,
        }
    }

    fn lookup(
        &mut self,
        parent: Ino,
        name: &Name,
    ) -> Result<Option<(Ino, Arc<Node>)>, Interruption> {
        self.solo.entry(parent, name).map_err(|error| self.stop(error))
    }

    pub(super) fn fresh(&mut self) -> Result<u64, Interruption> {
        self.solo.fresh().map_err(|error| self.stop(error))
    }

    pub(super) fn act(&mut self, action: Action) -> Result<(), Interruption> {
        let now = SystemTime::now().into();
        self.solo.act(now, action, Bytes::new()).map_err(|error| self.stop(error))
    }

    fn skip(&mut self, name: &Name, what: &str) {
        self.progress.skip(&Path { directories: self.way.names(), name }, what);
    }

    fn fail(&mut self, name: &Name, why: &str) {
        self.progress.fail(&Path { directories: self.way.names(), name }, why);
    }

    pub(super) fn stop(&self, error: SoloError) -> Interruption {
        match error {
            SoloError::Refused(Errno::EDQUOT | Errno::ENOSPC)
            | SoloError::Fenced
            | SoloError::Storage(_) => Interruption::All(self.failure(error)),
            SoloError::Refused(Errno::ENOTEMPTY) => Interruption::Entry(
                "a directory of the account that is not empty is in the way".to_owned(),
            ),
            SoloError::Refused(errno) => Interruption::Entry(errno.to_string()),
        }
    }

    fn failure(&self, error: SoloError) -> Failure {
        let user = self.user;
        match error {
            SoloError::Refused(Errno::EDQUOT) => {
                let line = format!(
                    "the quota of {user} is used up; raise it with `xfer-server user quota`, and run this again to go on"
                );
                Failure::new(Exit::Quota, line)
            }
            SoloError::Refused(Errno::ENOSPC) => xfer_store::StoreError::Full.into(),
            SoloError::Refused(errno) => Failure::new(
                Exit::Other,
                format!("the account refused it ({errno}); look at its tree"),
            ),
            SoloError::Fenced => interrupted(user),
            SoloError::Storage(error) => error.into(),
        }
    }
}

fn compare(ino: Ino, node: Arc<Node>, of: &Attributes, what: &What) -> There {
    let same_kind = match (what, &node.kind) {
        (What::File(_), Kind::File(_))
        | (What::Special(SpecialKind::Fifo), Kind::Special(SpecialKind::Fifo))
        | (What::Special(SpecialKind::Socket), Kind::Special(SpecialKind::Socket)) => true,
        (What::Symlink(target), Kind::Symlink { target: there }) => target == there,
        (What::File(_) | What::Symlink(_) | What::Special(_), _) => false,
    };
    if !same_kind || node.mtime != of.mtime || node.sent.is_some() {
        return There::Other(ino, node);
    }
    match node.file().map(|data| data.size) {
        None => There::Same(ino),
        Some(size) if size == of.size => There::Same(ino),
        Some(size) if size < of.size && node.ctime == node.mtime && node.nlink == 1 => {
            There::Part(ino)
        }
        Some(_) => There::Other(ino, node),
    }
}

fn owner(of: &Attributes) -> Owner {
    Owner { uid: of.uid, gid: of.gid }
}

fn bad_target(why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("--into does not work ({why}); choose another directory"))
}
