//! Moving nodes to their places, and removing what leaves its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::filling::free_name;
use super::hidden::{existing_beside, is_node, remove_node};
use super::own::What;
use super::{Applying, Existing, Outcome, Skip, gone, in_the_way, is_unchanged};
use crate::rescue::item::{Contents, Item, Kind};

/// What happened to a move.
enum Moved {
    Done,
    /// Another node has the place, which may be moved away later.
    Blocked(PathBuf),
}

impl Applying<'_> {
    /// Moves all nodes that are to be moved, in an order in which each finds its place free. Returns
    /// the items that were not moved.
    pub(super) fn move_all(&self, items: &[Item], outcome: &mut Outcome) -> BTreeSet<usize> {
        let is_moved = |item: &Item| !item.applied && !item.moved_from.is_empty();
        let mut left: BTreeSet<usize> =
            (0..items.len()).filter(|index| is_moved(&items[*index])).collect();
        let mut failed = BTreeSet::new();
        let mut aside = BTreeMap::new();
        loop {
            let mut blocked = None;
            let before = left.len();
            for index in left.clone() {
                match self.move_one(&items[index], aside.get(&index)) {
                    Ok(Moved::Done) => {
                        left.remove(&index);
                    }
                    Ok(Moved::Blocked(place)) => blocked = Some((index, place)),
                    Err(skip) => {
                        left.remove(&index);
                        failed.insert(index);
                        outcome.add(&items[index], &skip);
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
                        "it was to be moved to {}, where something else is now",
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
        self.change(number, What::Names, || Ok(fs::rename(place, &beside)?)).ok()?;
        Some((index, beside))
    }

    fn move_one(&self, item: &Item, aside: Option<&PathBuf>) -> Result<Moved, Skip> {
        let Some(to) = item.names.first().map(|name| self.at(name)) else { return Ok(Moved::Done) };
        self.check_paths(item)?;
        if is_node(&to, item.ino) {
            return Ok(Moved::Done);
        }
        let from = item.moved_from.iter().map(|path| self.at(path));
        // An interrupted attempt may have put it aside.
        let beside = from.clone().flat_map(|path| existing_beside(&path));
        let mut from = from.chain(aside.cloned()).chain(beside).chain(self.passed(item));
        let from = from.find(|path| is_node(path, item.ino));
        let Some(from) = from else { return Err(gone()) };
        self.make_parents(&to)?;
        let there = fs::symlink_metadata(&to).ok();
        if there.as_ref().is_some_and(|there| !self.is_free(&to, there)) {
            return Ok(Moved::Blocked(to));
        }
        let rename = || Ok(fs::rename(&from, &to).map(|()| Moved::Done)?);
        self.change(item.ino, What::Names, || match there {
            Some(there) => self.change(there.ino(), What::Names, rename),
            None => rename(),
        })
    }

    /// Moves the new nodes that the server has under names that they had meanwhile.
    pub(super) fn move_passed(
        &self,
        items: &[Item],
        failed: &mut BTreeSet<usize>,
        outcome: &mut Outcome,
    ) {
        for (index, item) in items.iter().enumerate() {
            let is_there = self.existing[index] == Existing::Unchanged && !item.own_if.is_empty();
            if item.applied
                || !is_there
                || item.names.iter().any(|to| is_node(&self.at(to), item.ino))
            {
                continue;
            }
            match self.move_one(item, None) {
                Ok(Moved::Done) => {}
                Ok(Moved::Blocked(_)) => {
                    failed.insert(index);
                    outcome.add(item, &in_the_way());
                }
                Err(skip) => {
                    failed.insert(index);
                    outcome.add(item, &skip);
                }
            }
        }
    }

    /// Removes the names that a node does not keep.
    pub(super) fn unlink(&self, item: &Item, index: usize) -> Result<(), Skip> {
        if item.kind == Kind::Directory {
            return Ok(());
        }
        for path in item.left.iter().map(|path| self.at(path)) {
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(there) => match self.existing[index] {
                    Existing::Unchanged if there.ino() == item.ino => {
                        self.change(item.ino, What::Names, || Ok(fs::remove_file(&path)?))?;
                    }
                    _ if self.taken.contains(&path) => {}
                    _ => {
                        return Err(Skip::Conflict(
                            "it was to be removed, but has changed on the server, so it was left"
                                .into(),
                        ));
                    }
                },
            }
        }
        self.unlink_passed(item, index)
    }

    /// Removes the names that a node had meanwhile, and not any more.
    fn unlink_passed(&self, item: &Item, index: usize) -> Result<(), Skip> {
        let is_placed = item.names.first().is_none_or(|path| is_node(&self.at(path), item.ino));
        if is_placed && self.existing[index] == Existing::Unchanged {
            for path in self.passed(item).filter(|path| is_node(path, item.ino)) {
                self.change(item.ino, What::Names, || Ok(fs::remove_file(&path)?))?;
            }
        }
        Ok(())
    }

    /// Removes a directory, if it is empty.
    pub(super) fn remove(&self, item: &Item) -> Result<(), Skip> {
        let is_removed = item.kind == Kind::Directory && item.names.is_empty();
        for path in item.left.iter().filter(|_| is_removed).map(|path| self.at(path)) {
            if fs::symlink_metadata(&path).is_ok_and(|there| there.ino() != item.ino) {
                continue;
            }
            match fs::remove_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if self.taken.contains(&path) => {}
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    let why = "it was to be removed, but is not empty, so it was left";
                    return Err(Skip::Conflict(why.into()));
                }
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Removes the nodes that the session has made and removed, if they reached the server.
    pub(super) fn remove_passing(&self, contents: &Contents) {
        for item in contents.passing.iter().rev() {
            let places = self.passed(item).map(|path| (fs::symlink_metadata(&path), path));
            for (there, path) in places.filter_map(|(there, path)| Some((there.ok()?, path))) {
                if there.ino() == item.ino && is_unchanged(item, &there) {
                    // It may have become the place of something else.
                    let _ = remove_node(&path, there.is_dir());
                }
            }
        }
    }
}
