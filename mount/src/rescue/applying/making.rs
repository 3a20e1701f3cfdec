//! Making an item: a node that is new, or the changes of one that is there.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::filling::{fill, has_attributes, has_bytes, set_attributes};
use super::hidden::{put_beside, rename_new};
use super::own::What;
use super::{Applying, Existing, Note, Skip, gone, in_the_way};
use crate::rescue::item::{FileBytes, Item, Kind, TreePath};

/// A file to be made.
struct Making<'a> {
    path: PathBuf,
    /// Its other names.
    others: Vec<PathBuf>,
    item: &'a Item,
    bytes: &'a FileBytes,
    /// The place of the item among all.
    index: usize,
}

impl Applying<'_> {
    pub(super) fn make(&self, item: &Item, index: usize) -> Result<Note, Skip> {
        let Some((first, others)) = item.names.split_first() else { return Ok(None) };
        let path = self.at(first);
        if item.was.is_empty() && !item.unchanged_if.is_empty() {
            return Err(Skip::Conflict("its place is not known".into()));
        }
        self.make_parents(&path)?;
        if item.kind == Kind::Directory {
            return self.make_directory(&path, item).map(|()| None);
        }
        match (item.kind, &item.bytes, &item.target) {
            (Kind::Symlink, _, Some(target)) => {
                self.make_link(&path, target)?;
            }
            (Kind::Special, ..) if fs::symlink_metadata(&path).is_err() => {
                return Err(Skip::Conflict("a pipe, socket or device is not made again".into()));
            }
            (Kind::File, Some(bytes), _) => {
                let others = others.iter().map(|other| self.at(other)).collect();
                return self.make_file(&Making { path, others, item, bytes, index });
            }
            (Kind::File | Kind::Symlink | Kind::Special | Kind::Directory, ..) => {
                let there = fs::symlink_metadata(&path).map_err(|_| gone())?;
                if there.ino() != item.ino {
                    return Err(Skip::Conflict(
                        "it has changed on the server, so it was left".into(),
                    ));
                }
            }
        }
        // A name more takes nothing from others' changes.
        self.link_all(&path, others.iter().map(|other| self.at(other)))?;
        if has_attributes(&path, &item.attributes).unwrap_or(false) {
            return Ok(None);
        }
        if self.existing[index] == Existing::Changed {
            let why = "it has changed on the server, so its attributes were left";
            return Err(Skip::Conflict(why.into()));
        }
        self.change(item.ino, What::Bytes, || Ok(set_attributes(&path, &item.attributes)?))?;
        Ok(None)
    }

    /// Gives a node its other names. One that can't be had does not keep it from the rest.
    fn link_all(&self, path: &Path, others: impl Iterator<Item = PathBuf>) -> Result<(), Skip> {
        others.map(|other| self.link(path, &other)).fold(Ok(()), Result::and)
    }

    /// Gives a node another name.
    fn link(&self, path: &Path, other: &Path) -> Result<(), Skip> {
        self.make_parents(other)?;
        let number = fs::symlink_metadata(path)?.ino();
        match fs::symlink_metadata(other) {
            Ok(there) if there.ino() == number => return Ok(()),
            Ok(there) if self.is_free(other, &there) => self.remove_free(other, &there)?,
            Ok(_) => return Err(in_the_way()),
            Err(_) => {}
        }
        self.change(number, What::Names, || Ok(fs::hard_link(path, other)?))
    }

    /// Makes a directory, or sets the attributes of the one that it was. Another one stays as it is.
    fn make_directory(&self, path: &Path, item: &Item) -> Result<(), Skip> {
        match fs::symlink_metadata(path) {
            Err(_) => self.hidden.make_directory(path, item.ino, &item.attributes)?,
            Ok(there) if !there.is_dir() => return Err(in_the_way()),
            Ok(there) if there.ino() == item.ino => set_attributes(path, &item.attributes)?,
            Ok(_) => {}
        }
        Ok(())
    }

    /// Removes a name whose node is to leave it.
    fn remove_free(&self, path: &Path, there: &Metadata) -> Result<(), Skip> {
        self.change(there.ino(), What::Names, || Ok(fs::remove_file(path)?))
    }

    fn make_link(&self, path: &Path, target: &TreePath) -> Result<(), Skip> {
        if fs::read_link(path).is_ok_and(|there| there == target.as_path()) {
            return Ok(());
        }
        if let Ok(there) = fs::symlink_metadata(path)
            && self.is_free(path, &there)
        {
            self.remove_free(path, &there)?;
        }
        match symlink(target.as_path(), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(in_the_way()),
            made => Ok(made?),
        }
    }

    fn make_file(&self, making: &Making) -> Result<Note, Skip> {
        let Making { path, item, bytes, index, .. } = making;
        let source = self.kept.join(bytes.file.as_path());
        let kept = File::open(&source)?;
        let there = fs::symlink_metadata(path).ok();
        match (self.existing[*index], &there) {
            (Existing::Unchanged, Some(there)) if there.ino() == item.ino => {
                self.change(item.ino, What::Bytes, || {
                    fill(path, &kept, bytes)?;
                    Ok(set_attributes(path, &item.attributes)?)
                })?;
                self.link_all(path, making.others.iter().cloned())?;
                return Ok(unknown_parts(bytes));
            }
            (Existing::None, None) => return self.make_new(making, &kept, None),
            (Existing::None, Some(there)) if !there.is_dir() && self.is_free(path, there) => {
                return self.make_new(making, &kept, Some(there.ino()));
            }
            (
                Existing::None | Existing::Unchanged | Existing::Changed | Existing::Gone,
                Some(_) | None,
            ) => {}
        }
        if has_bytes(path, &kept, bytes).unwrap_or(false) {
            // Its attributes are those that somebody gave it.
            self.link_all(path, making.others.iter().cloned())?;
            return Ok(None);
        }
        if !bytes.is_whole {
            return Err(Skip::Conflict(format!(
                "it has changed on the server or is gone, so the parts that are kept were not written \
                 to it; they are in {}",
                source.display()
            )));
        }
        let beside = put_beside(path, &kept, bytes, || self.hidden.make_file(item, &kept, bytes))?;
        let is_new = |other: &&PathBuf| !item.was.iter().any(|was| self.at(was) == **other);
        self.link_all(&beside, making.others.iter().filter(is_new).cloned())?;
        let name = beside.file_name().unwrap_or_default().to_string_lossy();
        Ok(Some(format!("it has changed on the server, so it was put beside it, as {name}")))
    }

    /// Makes a file that is not there yet. It has its first name last, so if this is interrupted, the
    /// next attempt finds that it is not complete. It may take that name from a node with the number
    /// `replaces`.
    fn make_new(&self, making: &Making, kept: &File, replaces: Option<u64>) -> Result<Note, Skip> {
        let Making { path, others, item, bytes, .. } = making;
        let made = self.hidden.make_file(item, kept, bytes)?;
        let linked = self.link_all(&made, others.iter().cloned());
        match replaces {
            Some(other) => self.change(other, What::Names, || Ok(fs::rename(&made, path)?))?,
            None => rename_new(&made, path)?,
        }
        linked.map(|()| unknown_parts(bytes))
    }

    /// Makes the directories that a path needs and that are not there.
    pub(super) fn make_parents(&self, path: &Path) -> Result<(), Skip> {
        let mut above = path.ancestors().skip(1).take_while(|above| above.starts_with(self.root));
        if above.any(is_no_directory) {
            return Err(Skip::Conflict("a directory above it is something else now".into()));
        }
        let above = path.ancestors().skip(1).take_while(|above| !above.exists());
        let missing: Vec<_> = above.map(Path::to_owned).collect();
        for directory in missing.into_iter().rev() {
            match self.directories.get(&directory) {
                Some((ino, attributes)) => {
                    self.hidden.make_directory(&directory, *ino, attributes)?;
                }
                None => fs::create_dir(&directory)?,
            }
        }
        Ok(())
    }
}

fn is_no_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| !there.is_dir() && !there.is_symlink())
}

fn unknown_parts(bytes: &FileBytes) -> Note {
    (!bytes.unknown.is_empty()).then(|| {
        "parts of it were copied on the server from bytes that are not kept, and are zeros or old \
         now; see: xfer rescue show"
            .to_owned()
    })
}
