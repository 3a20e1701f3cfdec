//! Applying a rescue to a directory, which is a mount of its account.
//!
//! **Invariant:** nothing is overwritten or removed that anything but the rescued session, or an earlier
//! attempt, has changed since. A node of the server is recognised by its number, and the time of its last
//! change. So is a new one of which the first changes reached the server.
//!
//! **Invariant:** what was applied is not applied again, also if this is interrupted: each item is
//! noted once the server has it for good, and a file that is as it should be counts as done.

mod filling;
mod hidden;
mod moving;
mod making;
mod own;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::io::Errno;

use filling::has_a_part;
use hidden::{Hidden, existing_beside};
use own::{Left, Own, State, What, last_change};
use progress::Progress;

use super::item::{Attributes, Contents, Item, Kind, TreePath};

/// Why an item was not applied.
#[derive(Debug, thiserror::Error)]
enum Skip {
    /// Something else changed or took its place.
    #[error("{0}")]
    Conflict(String),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The outcome of applying a rescue.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The number of items that are applied, now or before.
    pub applied: usize,
    /// What was applied otherwise than it was meant, and how.
    pub notes: Vec<String>,
    /// What was not applied since something else changed, and how.
    pub skipped: Vec<String>,
    /// What could not be applied, and why.
    pub failed: Vec<String>,
}

impl Outcome {
    fn add(&mut self, item: &Item, skip: &Skip) {
        let line = format!("{}: {skip}", item.name());
        match skip {
            Skip::Conflict(_) => self.skipped.push(line),
            Skip::Io(_) => self.failed.push(line),
        }
    }
}

/// How an item was applied, if it was not as it was meant.
type Note = Option<String>;

/// Applies what can be applied of a rescue kept in `kept` to the directory `root`, and has `note`
/// write down how far that is.
///
/// # Errors
/// If it can't be written down.
pub fn apply(
    contents: &mut Contents,
    kept: &Path,
    root: &Path,
    note: impl Fn(&Contents) -> io::Result<()>,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut progress = Progress::new(root, note);
    let applying = Applying::new(contents, kept, root)?;
    let mut failed = applying.move_all(&contents.items, &mut outcome);
    applying.move_passed(&contents.items, &mut failed, &mut outcome);
    applying.remove_passing(contents);
    // Names go before others take their places. Directories go last, when all that was in them has
    // left; paths are in order, so a directory comes before what is in it.
    let count = contents.items.len();
    let steps =
        [Step::Unlink, Step::Make].into_iter().flat_map(|step| (0..count).map(move |i| (step, i)));
    for (step, index) in steps.chain((0..count).rev().map(|index| (Step::Remove, index))) {
        if contents.items[index].applied || failed.contains(&index) {
            continue;
        }
        let item = &mut contents.items[index];
        match applying.take(step, item, index) {
            Ok(remark) => {
                item.applied = matches!(step, Step::Remove) == item.names.is_empty()
                    && !matches!(step, Step::Unlink);
                outcome.notes.extend(remark.map(|remark| format!("{}: {remark}", item.name())));
                progress.add(index);
            }
            Err(skip) => {
                failed.insert(index);
                outcome.add(item, &skip);
            }
        }
        if progress.is_due() {
            progress.note(contents, &mut outcome)?;
        }
    }
    applying.hidden.clear();
    progress.note(contents, &mut outcome)?;
    outcome.applied = count - contents.unapplied();
    Ok(outcome)
}

/// A step of applying, after nodes have been moved.
#[derive(Clone, Copy)]
enum Step {
    Unlink,
    Make,
    Remove,
}

/// The node of an item as the server has it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Existing {
    /// The item is new: the server has no node of it.
    None,
    /// Only the rescued session has changed it, or an earlier attempt.
    Unchanged,
    /// Something else has changed it.
    Changed,
    /// It is gone.
    Gone,
}

/// A node of the server that only the rescued session, or an attempt, has changed.
struct Noted {
    /// Where it may be.
    places: Vec<PathBuf>,
    /// How it was last. If it is otherwise, something else has changed it since.
    is: Mutex<Option<State>>,
}

struct Applying<'a> {
    kept: &'a Path,
    root: &'a Path,
    /// The numbers of the items' nodes.
    inos: Vec<u64>,
    /// The nodes themselves, as they were before anything was applied.
    existing: Vec<Existing>,
    /// The items that are to be removed.
    removed: Vec<usize>,
    /// The names that are to be removed, each with its item.
    leaving: BTreeMap<PathBuf, usize>,
    /// The places that nodes are to have.
    taken: BTreeSet<PathBuf>,
    /// The places that directories are to have, each with its number and attributes.
    directories: BTreeMap<PathBuf, (u64, Attributes)>,
    /// Where new nodes are made.
    hidden: Hidden,
    /// What this attempt changes, and earlier ones have changed.
    own: Own,
    /// The nodes whose changes are noted there, by their numbers.
    noted: BTreeMap<u64, Noted>,
}

impl<'a> Applying<'a> {
    fn new(contents: &Contents, kept: &'a Path, root: &'a Path) -> io::Result<Applying<'a>> {
        let items = &contents.items;
        let at = |path: &TreePath| root.join(path.as_path());
        let left = items.iter().enumerate();
        let left = left.flat_map(|(index, item)| item.left.iter().map(move |path| (path, index)));
        let directories = items.iter().filter(|item| item.kind == Kind::Directory);
        let directories = directories.filter_map(|item| Some((item.names.first()?, item)));
        let mut applying = Applying {
            kept,
            root,
            inos: items.iter().map(|item| item.ino).collect(),
            existing: Vec::new(),
            removed: (0..items.len()).filter(|index| items[*index].names.is_empty()).collect(),
            leaving: left.map(|(path, index)| (at(path), index)).collect(),
            taken: items.iter().flat_map(|item| &item.names).map(at).collect(),
            directories: directories
                .map(|(path, item)| (at(path), (item.ino, item.attributes.clone())))
                .collect(),
            hidden: Hidden::new(contents, root),
            own: Own::open(kept)?,
            noted: BTreeMap::new(),
        };
        for item in items {
            let places: Vec<_> = applying.places(item).collect();
            let there = node_at(&places, item.ino)?;
            let existing = applying.compare(item, there.as_ref());
            applying.existing.push(existing);
            // Directories are not compared.
            if existing == Existing::Unchanged && item.kind != Kind::Directory {
                let is = Mutex::new(there.map(|(there, _)| State::of(&there)));
                applying.noted.insert(item.ino, Noted { places, is });
            }
        }
        Ok(applying)
    }

    fn at(&self, path: &TreePath) -> PathBuf {
        self.root.join(path.as_path())
    }

    /// Compares an item with its node as it was found, and where. The server may have made the first
    /// changes already.
    fn compare(&self, item: &Item, found: Option<&(Metadata, &Path)>) -> Existing {
        let is_new = item.was.is_empty() && item.unchanged_if.is_empty();
        match found {
            Some((there, _)) if is_unchanged(item, there) => Existing::Unchanged,
            Some((there, path)) if self.is_own(item, there, path) => Existing::Unchanged,
            // Its changes can still be made elsewhere.
            Some((_, path)) if is_new && !self.taken.contains(*path) => Existing::None,
            Some(_) => Existing::Changed,
            None if is_new => Existing::None,
            None => Existing::Gone,
        }
    }

    /// Where the node of an item may be.
    fn places(&self, item: &Item) -> impl Iterator<Item = PathBuf> {
        let names = item.was.iter().chain(&item.moved_from).chain(&item.left).chain(&item.names);
        let names = names.map(|path| self.at(path));
        let aside = item.moved_from.iter().flat_map(|path| existing_beside(&self.at(path)));
        names.chain(aside).chain(self.passed(item))
    }

    /// Whether a node is as an earlier attempt has left it.
    fn is_own(&self, item: &Item, there: &Metadata, path: &Path) -> bool {
        match self.own.left(there) {
            Left::So | Left::InTheMiddleOf(What::Names) => true,
            Left::InTheMiddleOf(What::Bytes) => self.is_begun(item, path),
            Left::Otherwise => false,
        }
    }

    /// Changes a node. If only the rescued session had changed it, the next attempt knows that this one
    /// has, even if it is interrupted.
    fn change<T>(
        &self,
        ino: u64,
        what: What,
        change: impl FnOnce() -> Result<T, Skip>,
    ) -> Result<T, Skip> {
        let Some(Noted { places, is }) = self.noted.get(&ino) else { return change() };
        let Some((before, _)) = node_at(places, ino)? else { return change() };
        // While this attempt runs, others may change it: programs here, or another machine that gets the
        // tree.
        if is.lock().is_some_and(|is| is != State::of(&before)) {
            return Err(Skip::Conflict(
                "it has changed on the server just now, so it was left".into(),
            ));
        }
        self.own.begin(&before, what)?;
        let changed = change();
        // If it can't be seen now, it is not known how it is.
        let after = node_at(places, ino).ok().flatten();
        *is.lock() = after.as_ref().map(|(after, _)| State::of(after));
        if let Some((after, _)) = after {
            self.own.end(&after)?;
        }
        changed
    }

    /// Whether a file may be one that an interrupted attempt was filling. Of one that was changed in
    /// part, nothing more is known.
    fn is_begun(&self, item: &Item, path: &Path) -> bool {
        item.bytes.as_ref().filter(|bytes| bytes.is_whole).is_none_or(|bytes| {
            let kept = File::open(self.kept.join(bytes.file.as_path()));
            kept.and_then(|kept| has_a_part(path, &kept, bytes)).unwrap_or(false)
        })
    }

    /// The names that the node of an item had meanwhile, but for those that a symbolic link leads to.
    fn passed(&self, item: &Item) -> impl Iterator<Item = PathBuf> {
        let passed = item.passed.iter().filter(|path| !self.has_link_above(path));
        passed.map(|path| self.at(path))
    }

    /// Whether the node at a place is to leave it, and only the rescued session has changed it.
    fn is_free(&self, place: &Path, there: &Metadata) -> bool {
        let is_it = |index: &usize| {
            self.inos[*index] == there.ino() && self.existing[*index] == Existing::Unchanged
        };
        self.leaving.get(place).is_some_and(is_it) || self.removed.iter().any(is_it)
    }

    fn take(&self, step: Step, item: &Item, index: usize) -> Result<Note, Skip> {
        self.check_paths(item)?;
        match step {
            Step::Unlink => self.unlink(item, index).map(|()| None),
            Step::Make => self.make(item, index),
            Step::Remove => self.remove(item).map(|()| None),
        }
    }

    /// Refuses an item whose path leads through a symbolic link, which may lead out of the tree.
    fn check_paths(&self, item: &Item) -> Result<(), Skip> {
        let paths = item.was.iter().chain(&item.moved_from).chain(&item.left).chain(&item.names);
        for path in paths {
            if self.has_link_above(path) {
                return Err(Skip::Conflict("a symbolic link is in its path now".into()));
            }
        }
        Ok(())
    }

    fn has_link_above(&self, path: &TreePath) -> bool {
        let mut above = path.as_path().ancestors().skip(1).filter(|above| *above != Path::new(""));
        above.any(|above| {
            fs::symlink_metadata(self.root.join(above)).is_ok_and(|there| there.is_symlink())
        })
    }
}

/// Whether a mount failed, and not a path: it is gone, or has no server or no tree.
fn is_of_the_mount(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::TIMEDOUT | Errno::BUSY | Errno::IO | Errno::NOTCONN))
}

/// The node with this number and its place, if it is at one of these.
///
/// # Errors
/// If the mount can't say: a node that is not seen then is not gone.
fn node_at(places: &[PathBuf], ino: u64) -> io::Result<Option<(Metadata, &Path)>> {
    for path in places {
        match fs::symlink_metadata(path) {
            Ok(there) if there.ino() == ino => return Ok(Some((there, path))),
            Err(error) if is_of_the_mount(&error) => {
                let line = format!("{}: {error}; apply it again", path.display());
                return Err(io::Error::new(error.kind(), line));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

fn gone() -> Skip {
    Skip::Conflict("it is not on the server any more".into())
}

fn in_the_way() -> Skip {
    Skip::Conflict("something else is there now".into())
}

/// Directories change with every name in them, so they are not compared.
fn is_unchanged(item: &Item, there: &Metadata) -> bool {
    let changed = last_change(there);
    there.is_dir() && item.kind == Kind::Directory
        || item.unchanged_if.contains(&changed)
        || item.own_if.contains(&changed)
}
