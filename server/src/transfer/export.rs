//! Exports an account's tree into a directory of this machine.
//!
//! It reads the store's committed state and changes nothing there. Owners are set only if root runs
//! it; set-id bits never are; devices are skipped.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, fsync, ftruncate, linkat, mkdir, openat, statat, syncfs,
};
use rustix::io::{Errno as HostError, pwrite, retry_on_intr};
use xfer_protocol::tree::{FileData, Kind, Need, Node, SpecialKind, Xattrs};
use xfer_protocol::{Ino, Name};
use xfer_store::embedded::syncs_as_a_whole;
use xfer_store::{Account, ListMax, Listing, Part, Store, StoreError};

use super::landing::{Found, Landing};
use super::progress::{Path, Progress};
use super::walk::{self, Attributes, DIRECTORY, FileId, Way};
use super::{CHUNK_BYTES, Interruption, Tally, interrupted, open_directory, unusable};
use crate::program::exit::{Exit, Failure};
use crate::program::rights::Own;
use crate::program::waiting::Waiter;

/// How much is listed at a time.
const PAGE_MAX: ListMax = ListMax { count: 100, bytes: 1 << 20 };

/// Entries of a directory, with their nodes.
type Entries = std::vec::IntoIter<(Name, Ino, Node)>;

/// The target of an export.
pub struct Export<'a> {
    /// The directory, created if it is missing.
    pub to: &'a std::path::Path,
    /// Whether the directory may have entries; if so, those that differ are replaced.
    pub replace: bool,
}

/// Exports the tree of an account without a session. Returns a summary line.
///
/// # Errors
/// If the work ended early, keeping what was done so far; or if some entries could not be copied.
pub fn export(
    waiter: &Waiter,
    store: Store,
    account: &Account,
    what: &Export<'_>,
) -> (String, Result<Tally, Failure>) {
    // The root exists already.
    let mut progress = Progress::new("exported", Some(account.usage.nodes.saturating_sub(1)));
    // Modes are to be exactly those given.
    let umask = rustix::process::umask(Mode::empty());
    let done = prepare(what).and_then(|root| {
        let owners = rustix::process::getuid().is_root();
        let syncs_each = !syncs_as_a_whole(&root).unwrap_or(false);
        let landing = Landing { replace: what.replace, owners, syncs_each };
        let way = Way::new(root);
        let links = HashMap::new();
        let progress = &mut progress;
        Exporter { waiter, store, account, landing, progress, way, links }.run()
    });
    rustix::process::umask(umask);
    let tally = progress.tally;
    let (line, whole) = progress.finish();
    (line, done.and(whole).map(|()| tally))
}

struct Exporter<'a> {
    waiter: &'a Waiter,
    store: Store,
    account: &'a Account,
    landing: Landing,
    progress: &'a mut Progress,
    way: Way,
    /// Where nodes with several names were exported.
    links: HashMap<Ino, Landed>,
}

/// The first exported name of a node with several names.
struct Landed {
    directories: Vec<Name>,
    name: Name,
    id: FileId,
}

/// A directory whose entries are being exported.
struct Frame {
    ino: Ino,
    page: Entries,
    /// The last name of this page, after which the next begins; `None` after the last page.
    after: Option<Name>,
    /// The directory's node; `None` for the top one, which keeps its attributes.
    node: Option<Arc<Node>>,
}

impl Exporter<'_> {
    fn run(mut self) -> Result<(), Failure> {
        let mut frames = vec![self.frame(Ino::ROOT, None)?];
        while let Some(frame) = frames.last_mut() {
            let Some((name, ino, node)) = self.next(frame)? else {
                if let Some(frame) = frames.pop() {
                    self.leave(&frame)?;
                }
                continue;
            };
            match self.entry(&name, ino, node) {
                Ok(Some(inner)) => frames.push(inner),
                Ok(None) => {}
                Err(Interruption::Entry(why)) => self.fail(&name, &why),
                Err(Interruption::All(failure)) => return Err(failure),
            }
        }
        self.must_be_unchanged()?;
        let root = self.way.root();
        let synced = if self.landing.syncs_each { fsync(root) } else { syncfs(root) };
        synced.map_err(|error| {
            let error = std::io::Error::from(error);
            let line = format!("the disk did not take it all ({error}); check it, and export anew");
            Failure::new(Exit::Directory, line)
        })
    }

    fn frame(&self, ino: Ino, node: Option<Arc<Node>>) -> Result<Frame, Failure> {
        let (page, after) = self.page(ino, None)?;
        Ok(Frame { ino, after, page, node })
    }

    fn next(&self, frame: &mut Frame) -> Result<Option<(Name, Ino, Node)>, Failure> {
        if let Some(entry) = frame.page.next() {
            return Ok(Some(entry));
        }
        let Some(after) = frame.after.take() else { return Ok(None) };
        (frame.page, frame.after) = self.page(frame.ino, Some(after))?;
        Ok(frame.page.next())
    }

    /// Entries of a directory after a name, with all that their nodes have, and the last name if there are
    /// more.
    fn page(
        &self,
        directory: Ino,
        after: Option<Name>,
    ) -> Result<(Entries, Option<Name>), Failure> {
        let trees = &self.store.trees;
        let part = Part { directory, after, max: PAGE_MAX };
        let mut listed = self.waiter.wait(trees.list(self.account.id, vec![part]))?;
        let Some(Listing { mut rows, last }) = listed.pop() else {
            return Ok((Vec::new().into_iter(), None));
        };
        let lacks = |node: &Node| matches!(node.xattrs, Xattrs::LeftOut { .. });
        let lacking = rows.iter().filter(|(_, _, node)| lacks(node));
        let needs: Vec<_> = lacking.map(|(_, ino, _)| Need::Node(*ino)).collect();
        if !needs.is_empty() {
            let found = self.waiter.wait(trees.load(self.account.id, needs))?;
            let mut whole: HashMap<Ino, Node> =
                found.nodes.into_iter().filter_map(|(ino, node)| Some((ino, node?))).collect();
            for (_, ino, node) in &mut rows {
                if let Some(whole) = whole.remove(ino) {
                    *node = whole;
                }
            }
        }
        let after = rows.last().filter(|_| !last).map(|(name, _, _)| name.clone());
        Ok((rows.into_iter(), after))
    }

    /// Gives a complete directory its attributes. The modification time must come after its entries.
    fn leave(&mut self, frame: &Frame) -> Result<(), Failure> {
        let Some(node) = &frame.node else { return Ok(()) };
        let name = self.way.names().last().cloned();
        match (self.landing.finish(&self.way.here(), node), name) {
            (Err(Interruption::All(failure)), _) => return Err(failure),
            (Err(Interruption::Entry(why)), Some(name)) => self.fail(&name, &why),
            (Err(Interruption::Entry(_)), None) | (Ok(()), _) => {}
        }
        self.way.leave().map_err(|error| {
            let error = std::io::Error::from(error);
            let line = format!("a directory changed places meanwhile ({error}); run this again");
            Failure::new(Exit::Incomplete, line)
        })
    }

    /// Exports an entry. For a directory, returns the frame for descending into it.
    fn entry(&mut self, name: &Name, ino: Ino, node: Node) -> Result<Option<Frame>, Interruption> {
        match &node.kind {
            Kind::Directory { .. } => {
                let (directory, there) = self.landing.directory(self.way.here(), name)?;
                self.way.enter(name.clone(), directory)?;
                if there {
                    self.progress.kept()
                } else {
                    self.progress.moved()
                }
                return self.frame(ino, Some(Arc::new(node))).map(Some).map_err(Interruption::All);
            }
            Kind::Special(SpecialKind::CharDevice { .. } | SpecialKind::BlockDevice { .. }) => {
                let path = Path { directories: self.way.names(), name };
                self.progress.skip(&path, "a device; skipped");
            }
            Kind::File(_)
            | Kind::Symlink { .. }
            | Kind::Special(SpecialKind::Fifo | SpecialKind::Socket) => {
                self.place(name, ino, &node)?;
            }
        }
        Ok(None)
    }

    /// Makes sure that an equal of the node is there.
    fn place(&mut self, name: &Name, ino: Ino, node: &Node) -> Result<(), Interruption> {
        if self.links.contains_key(&ino) {
            return self.link(name, ino);
        }
        match self.landing.clear(self.way.here(), name, node)? {
            Found::Same => self.progress.kept(),
            Found::Free => {
                self.make(name, node)?;
                self.progress.moved();
            }
        }
        if node.nlink > 1 {
            let stat = statat(self.way.here(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
            let (directories, name) = (self.way.names().to_vec(), name.clone());
            self.links.insert(ino, Landed { directories, name, id: Attributes::of(&stat).id });
        }
        Ok(())
    }

    fn make(&mut self, name: &Name, node: &Node) -> Result<(), Interruption> {
        if let Kind::File(data) = &node.kind {
            let file = self.landing.file(self.way.here(), name)?;
            self.fill(&file, data)?;
            self.must_be_unchanged().map_err(Interruption::All)?;
            return self.landing.finish(&file, node);
        }
        let at = self.way.here();
        match &node.kind {
            Kind::Symlink { target } => self.landing.symlink(at, name, target, node),
            Kind::Special(SpecialKind::Fifo) => {
                self.landing.special(at, name, FileType::Fifo, node)
            }
            Kind::Special(SpecialKind::Socket) => {
                self.landing.special(at, name, FileType::Socket, node)
            }
            Kind::File(_)
            | Kind::Directory { .. }
            | Kind::Special(SpecialKind::CharDevice { .. } | SpecialKind::BlockDevice { .. }) => {
                Ok(())
            }
        }
    }

    /// Writes a file's data; holes stay holes.
    fn fill(&mut self, file: &OwnedFd, data: &FileData) -> Result<(), Interruption> {
        ftruncate(file, data.size)?;
        let Some(content) = data.content else { return Ok(()) };
        for run in data.extents.data_in(data.size, 0..data.size) {
            let mut at = run.start;
            while at < run.end {
                let range = at..run.end.min(at + CHUNK_BYTES);
                let read = self.waiter.wait(self.store.contents.read(content, range));
                let data = match read {
                    Ok(data) => data,
                    // If a session changed the file meanwhile, its old content may be gone.
                    Err(error) => {
                        self.must_be_unchanged().map_err(Interruption::All)?;
                        return Err(match error {
                            // One damaged file must not stop the others.
                            StoreError::Damaged(what) => {
                                Interruption::Entry(format!("it is damaged: {what}"))
                            }
                            other => other.into(),
                        });
                    }
                };
                if data.is_empty() {
                    // Reserved by an older version past the content's end, and never written.
                    break;
                }
                write_all(file, &data, at)?;
                self.progress.bytes(data.len() as u64);
                at += data.len() as u64;
            }
        }
        Ok(())
    }

    /// Links another name to a node that is already exported.
    fn link(&mut self, name: &Name, ino: Ino) -> Result<(), Interruption> {
        let Some(first) = self.links.get(&ino) else { return Ok(()) };
        let here = self.way.here();
        let there = statat(here, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        match there.map(|stat| Attributes::of(&stat)) {
            Ok(there) if there.id == first.id => {
                self.progress.kept();
                return Ok(());
            }
            Ok(there) => self.landing.remove(here, name, &there)?,
            Err(HostError::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let _own = Own::regain()?;
        let directory = self.open(&first.directories)?;
        let flags = AtFlags::empty();
        linkat(&directory, first.name.as_bytes(), here, name.as_bytes(), flags)?;
        self.progress.moved();
        Ok(())
    }
}

/// State checks and error handling.
impl Exporter<'_> {
    /// Makes sure that no session began, so that everything read since the start is one state.
    fn must_be_unchanged(&self) -> Result<(), Failure> {
        let now = self.waiter.wait(self.store.accounts.find(self.account.name.clone()))?;
        let same = now.is_some_and(|now| {
            (now.id, now.epoch, now.applied)
                == (self.account.id, self.account.epoch, self.account.applied)
        });
        if same { Ok(()) } else { Err(interrupted(&self.account.name)) }
    }

    /// Opens a directory by its path from the top.
    fn open(&self, directories: &[Name]) -> Result<OwnedFd, HostError> {
        let mut directory = openat(self.way.root(), c".", DIRECTORY, Mode::empty())?;
        for name in directories {
            directory = openat(&directory, name.as_bytes(), DIRECTORY, Mode::empty())?;
        }
        Ok(directory)
    }

    fn fail(&mut self, name: &Name, why: &str) {
        self.progress.fail(&Path { directories: self.way.names(), name }, why);
    }
}

/// Opens the target directory: created if missing, and it must be empty unless it may be replaced.
fn prepare(what: &Export<'_>) -> Result<OwnedFd, Failure> {
    let _own = Own::regain().map_err(|error| unusable(what.to, error))?;
    match mkdir(what.to, Mode::RWXU) {
        Ok(()) | Err(HostError::EXIST) => {}
        Err(error) => return Err(unusable(what.to, error)),
    }
    let root = open_directory(what.to)?;
    let (names, nameless) = walk::names(root.as_fd()).map_err(|error| unusable(what.to, error))?;
    if !what.replace && (!names.is_empty() || nameless > 0) {
        let line = format!(
            "{} is not empty; choose another directory, or use --force to go on with an export there",
            what.to.display()
        );
        return Err(Failure::new(Exit::Directory, line));
    }
    Ok(root)
}

fn write_all(file: &OwnedFd, data: &[u8], at: u64) -> Result<(), HostError> {
    let mut done = 0;
    while done < data.len() {
        done += retry_on_intr(|| pwrite(file, &data[done..], at + done as u64))?;
    }
    Ok(())
}
