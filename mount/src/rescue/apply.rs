//! Applying a rescue to a directory, which is a mount of its account.
//!
//! **Invariant:** nothing is overwritten or removed that anything but the rescued session has changed
//! since. A node of the server is recognised by the time of its last change.
//!
//! **Invariant:** what was applied is not applied again, also if this is interrupted: each item is
//! noted once it is done, and a file that is as it should be counts as done.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::filling::{fill, free_name, has_bytes, set_attributes};
use super::item::{Contents, FileBytes, Item, Kind, TreePath};

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
    /// What was not applied, and why.
    pub skipped: Vec<String>,
}

/// How often it is noted how far applying is.
const NOTE_EVERY: Duration = Duration::from_secs(1);

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
    let mut noted = Instant::now();
    let mut outcome = Outcome::default();
    let applying = Applying::new(&contents.items, kept, root);
    let mut failed = applying.move_all(&contents.items, &mut outcome);
    // Names go before others take their places. Directories go last, when all that was in them has
    // left; paths are in order, so a directory comes before what is in it.
    let count = contents.items.len();
    let steps =
        [Step::Unlink, Step::Make].into_iter().flat_map(|step| (0..count).map(move |i| (step, i)));
    for (step, index) in steps.chain((0..count).rev().map(|index| (Step::Remove, index))) {
        if contents.items[index].applied || failed.contains(&index) {
            continue;
        }
        if matches!(step, Step::Make) && applying.changes_a_file(&contents.items[index], index) {
            // If this is interrupted, the change of the file is known to be this one.
            contents.items[index].begun = true;
            note(contents)?;
        }
        let item = &mut contents.items[index];
        match applying.take(step, item, index) {
            Ok(remark) => {
                item.applied = matches!(step, Step::Remove) == item.names.is_empty()
                    && !matches!(step, Step::Unlink);
                outcome.notes.extend(remark.map(|remark| format!("{}: {remark}", item.name())));
            }
            Err(skip) => {
                failed.insert(index);
                outcome.skipped.push(format!("{}: {skip}", item.name()));
            }
        }
        if noted.elapsed() > NOTE_EVERY {
            note(contents)?;
            noted = Instant::now();
        }
    }
    outcome.applied = contents.items.iter().filter(|item| item.applied).count();
    note(contents)?;
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
    /// It is new, so there is none.
    None,
    /// Only the rescued session has changed it.
    Unchanged,
    /// Something else has changed it.
    Changed,
    /// It is gone.
    Gone,
}

/// How a file was made.
enum Made {
    AsMeant,
    /// It was as it should be.
    Already,
    /// Beside the one that is there, with this name.
    Beside(String),
}

/// What happened to a move.
enum Moved {
    Done,
    /// Another node has the place, which may be moved away later.
    Blocked(PathBuf),
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
    /// Directories that were made for what is to be in them.
    made: RefCell<BTreeSet<PathBuf>>,
}

impl<'a> Applying<'a> {
    fn new(items: &[Item], kept: &'a Path, root: &'a Path) -> Applying<'a> {
        let removed = (0..items.len()).filter(|index| items[*index].names.is_empty()).collect();
        let (existing, leaving, taken) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let inos = items.iter().map(|item| item.ino).collect();
        let made = RefCell::default();
        let mut applying = Applying { kept, root, inos, existing, removed, leaving, taken, made };
        applying.existing = items.iter().map(|item| applying.find(item)).collect();
        for (index, item) in items.iter().enumerate() {
            let left = item.left.iter().map(|path| (applying.at(path), index));
            let left: Vec<_> = left.collect();
            applying.leaving.extend(left);
        }
        let taken = items.iter().flat_map(|item| &item.names);
        applying.taken = taken.map(|name| applying.at(name)).collect();
        applying
    }

    fn at(&self, path: &TreePath) -> PathBuf {
        self.root.join(path.as_path())
    }

    /// Finds the node of an item, by its number. The server may have made the first changes already.
    fn find(&self, item: &Item) -> Existing {
        if item.was.is_empty() {
            return Existing::None;
        }
        let names = item.was.iter().chain(&item.moved_from).chain(&item.left).chain(&item.names);
        let mut there = names.filter_map(|path| fs::symlink_metadata(self.at(path)).ok());
        match there.find(|there| there.ino() == item.ino) {
            Some(there) if item.begun || is_unchanged(item, &there) => Existing::Unchanged,
            Some(_) => Existing::Changed,
            None => Existing::Gone,
        }
    }

    /// Moves all nodes that are to be moved, in an order in which each finds its place free. Returns
    /// the items that were not moved.
    fn move_all(&self, items: &[Item], outcome: &mut Outcome) -> BTreeSet<usize> {
        let is_moved = |item: &Item| !item.applied && !item.moved_from.is_empty();
        let mut left: BTreeSet<usize> =
            (0..items.len()).filter(|index| is_moved(&items[*index])).collect();
        let mut failed = BTreeSet::new();
        let mut aside = BTreeMap::new();
        loop {
            let mut blocked = None;
            let before = left.len();
            for index in left.clone() {
                match self.move_one(&items[index], index, aside.get(&index)) {
                    Ok(Moved::Done) => {
                        left.remove(&index);
                    }
                    Ok(Moved::Blocked(place)) => blocked = Some((index, place)),
                    Err(skip) => {
                        left.remove(&index);
                        failed.insert(index);
                        outcome.skipped.push(format!("{}: {skip}", items[index].name()));
                    }
                }
            }
            let Some((index, place)) = blocked else { return failed };
            if left.len() < before {
                continue;
            }
            // They wait for each other, or for a node that stays.
            match self.put_aside(&place, &left) {
                Some((waiting, path)) => {
                    aside.insert(waiting, path);
                }
                None => {
                    left.remove(&index);
                    failed.insert(index);
                    let line = format!(
                        "was to be moved to {}, where something else is now",
                        place.display()
                    );
                    outcome.skipped.push(format!("{}: {line}", items[index].name()));
                }
            }
        }
    }

    /// Moves the node at a place aside, if it is one that waits to be moved itself.
    fn put_aside(&self, place: &Path, waiting: &BTreeSet<usize>) -> Option<(usize, PathBuf)> {
        let number = fs::symlink_metadata(place).ok()?.ino();
        let index = *waiting.iter().find(|index| self.inos[**index] == number)?;
        let beside = free_name(place).ok()?;
        fs::rename(place, &beside).ok()?;
        Some((index, beside))
    }

    fn move_one(&self, item: &Item, index: usize, aside: Option<&PathBuf>) -> Result<Moved, Skip> {
        let Some(to) = item.names.first().map(|name| self.at(name)) else { return Ok(Moved::Done) };
        self.check_paths(item)?;
        let is_it = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|there| there.ino() == self.inos[index])
        };
        if is_it(&to) {
            return Ok(Moved::Done);
        }
        let candidates = item.moved_from.iter().map(|path| self.at(path));
        let from = candidates.chain(aside.cloned()).find(is_it);
        let Some(from) = from else { return Err(gone()) };
        self.make_parents(&to)?;
        let there = fs::symlink_metadata(&to).ok();
        if there.is_some_and(|there| !self.is_free(&to, &there)) {
            return Ok(Moved::Blocked(to));
        }
        Ok(fs::rename(&from, &to).map(|()| Moved::Done)?)
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
            let above = path.as_path().ancestors().skip(1);
            let is_link = |above: &Path| {
                fs::symlink_metadata(self.root.join(above)).is_ok_and(|there| there.is_symlink())
            };
            if above.filter(|above| *above != Path::new("")).any(is_link) {
                return Err(Skip::Conflict("a symbolic link is in its path now".into()));
            }
        }
        Ok(())
    }

    /// Whether an item changes a file of the server in place.
    fn changes_a_file(&self, item: &Item, index: usize) -> bool {
        item.bytes.is_some() && self.existing[index] == Existing::Unchanged && !item.begun
    }

    /// Makes the directories that a path needs and that are not there.
    fn make_parents(&self, path: &Path) -> io::Result<()> {
        let above = path.ancestors().skip(1).take_while(|above| !above.exists());
        let missing: Vec<_> = above.map(Path::to_owned).collect();
        for directory in missing.into_iter().rev() {
            fs::create_dir(&directory)?;
            self.made.borrow_mut().insert(directory);
        }
        Ok(())
    }

    /// Removes the names that a node does not keep.
    fn unlink(&self, item: &Item, index: usize) -> Result<(), Skip> {
        if item.kind == Kind::Directory {
            return Ok(());
        }
        for path in item.left.iter().map(|path| self.at(path)) {
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(there) => match self.existing[index] {
                    Existing::Unchanged if there.ino() == item.ino => fs::remove_file(&path)?,
                    _ if self.taken.contains(&path) => {}
                    _ => {
                        return Err(Skip::Conflict(
                            "was to be removed, but has changed on the server, so it was left"
                                .into(),
                        ));
                    }
                },
            }
        }
        Ok(())
    }

    /// Removes a directory, if it is empty.
    fn remove(&self, item: &Item) -> Result<(), Skip> {
        let is_removed = item.kind == Kind::Directory && item.names.is_empty();
        for path in item.left.iter().filter(|_| is_removed).map(|path| self.at(path)) {
            if fs::symlink_metadata(&path).is_ok_and(|there| there.ino() != item.ino) {
                continue;
            }
            match fs::remove_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if self.taken.contains(&path) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    fn make(&self, item: &Item, index: usize) -> Result<Note, Skip> {
        let Some((first, others)) = item.names.split_first() else { return Ok(None) };
        let path = self.at(first);
        if item.was.is_empty() && !item.unchanged_if.is_empty() {
            return Err(Skip::Conflict("its place is not known".into()));
        }
        self.make_parents(&path)?;
        if item.kind == Kind::Directory {
            return self.make_directory(&path, item).map(|()| None);
        }
        let note = match (item.kind, &item.bytes, &item.target) {
            (Kind::Symlink, _, Some(target)) => {
                self.make_link(&path, target)?;
                None
            }
            (Kind::Special, ..) if fs::symlink_metadata(&path).is_err() => {
                return Err(Skip::Conflict("a pipe, socket or device is not made again".into()));
            }
            (Kind::File, Some(bytes), _) => match self.make_file(&path, item, bytes, index)? {
                Made::AsMeant => unknown_parts(bytes),
                // Its attributes, and its other names, are those that somebody gave it.
                Made::Already => return Ok(None),
                Made::Beside(name) => {
                    return Ok(Some(format!(
                        "has changed on the server, so it was put beside it, as {name}"
                    )));
                }
            },
            (Kind::File | Kind::Symlink | Kind::Special | Kind::Directory, ..) => {
                let there = fs::symlink_metadata(&path).map_err(|_| gone())?;
                let is_it = there.ino() == item.ino && self.existing[index] == Existing::Unchanged;
                if !is_it {
                    return Err(Skip::Conflict("has changed on the server, so it was left".into()));
                }
                None
            }
        };
        for other in others.iter().map(|other| self.at(other)) {
            self.link(&path, &other)?;
        }
        set_attributes(&path, &item.attributes)?;
        Ok(note)
    }

    /// Gives a node another name.
    fn link(&self, path: &Path, other: &Path) -> Result<(), Skip> {
        self.make_parents(other)?;
        let number = fs::symlink_metadata(path)?.ino();
        match fs::symlink_metadata(other) {
            Ok(there) if there.ino() == number => return Ok(()),
            Ok(there) if self.is_free(other, &there) => fs::remove_file(other)?,
            Ok(_) => return Err(in_the_way()),
            Err(_) => {}
        }
        Ok(fs::hard_link(path, other)?)
    }

    /// Makes a directory, or sets the attributes of the one that it was. Another one stays as it is.
    fn make_directory(&self, path: &Path, item: &Item) -> Result<(), Skip> {
        match fs::symlink_metadata(path) {
            Err(_) => fs::create_dir(path)?,
            Ok(there) if !there.is_dir() => return Err(in_the_way()),
            Ok(_) if self.made.borrow().contains(path) => {}
            Ok(there) if there.ino() != item.ino => return Ok(()),
            Ok(_) => {}
        }
        Ok(set_attributes(path, &item.attributes)?)
    }

    fn make_link(&self, path: &Path, target: &TreePath) -> Result<(), Skip> {
        if fs::read_link(path).is_ok_and(|there| there == target.as_path()) {
            return Ok(());
        }
        if fs::symlink_metadata(path).is_ok_and(|there| self.is_free(path, &there)) {
            fs::remove_file(path)?;
        }
        match symlink(target.as_path(), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(in_the_way()),
            made => Ok(made?),
        }
    }

    fn make_file(
        &self,
        path: &Path,
        item: &Item,
        bytes: &FileBytes,
        index: usize,
    ) -> Result<Made, Skip> {
        let source = self.kept.join(bytes.file.as_path());
        let kept = File::open(&source)?;
        let there = fs::symlink_metadata(path).ok();
        let may_change = match (self.existing[index], &there) {
            (Existing::Unchanged, Some(there)) => there.ino() == item.ino,
            (Existing::None, Some(there)) => self.is_free(path, there) && !there.is_dir(),
            (Existing::None, None) => true,
            (Existing::Unchanged, None) | (Existing::Changed | Existing::Gone, _) => false,
        };
        if may_change {
            if self.existing[index] == Existing::None && there.is_some() {
                // What was there goes; it may have other names.
                fs::remove_file(path)?;
            }
            fill(path, &kept, bytes)?;
            return Ok(Made::AsMeant);
        }
        if there.is_some_and(|there| there.is_file()) && has_bytes(path, &kept, bytes)? {
            return Ok(Made::Already);
        }
        if !bytes.is_whole {
            return Err(Skip::Conflict(format!(
                "has changed on the server or is gone, so the parts that are kept were not written \
                 to it; they are in {}",
                source.display()
            )));
        }
        let beside = free_name(path)?;
        fill(&beside, &kept, bytes)?;
        set_attributes(&beside, &item.attributes)?;
        let name = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Made::Beside(name))
    }
}

fn gone() -> Skip {
    Skip::Conflict("is not on the server any more".into())
}

fn in_the_way() -> Skip {
    Skip::Conflict("something else is there now".into())
}

fn unknown_parts(bytes: &FileBytes) -> Note {
    (!bytes.unknown.is_empty()).then(|| {
        "parts of it were copied on the server from bytes that are not kept, and are zeros or old \
         now; see `xfer rescue show`"
            .to_owned()
    })
}

/// Directories change with every name in them, so they are not compared.
fn is_unchanged(item: &Item, there: &Metadata) -> bool {
    let changed = (there.ctime(), there.ctime_nsec() as u32);
    there.is_dir() && item.kind == Kind::Directory || item.unchanged_if.contains(&changed)
}
