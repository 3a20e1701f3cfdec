//! Making what is new: in a directory that is not shown, until it can have its name.
//!
//! **Invariant:** a name that was not there before leads to a whole node with its attributes, however
//! applying is interrupted. The next attempt takes up, or removes, what an interrupted one leaves in the
//! hidden directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::filling::{fill, free_name, has_bytes, names_beside, set_attributes};
use crate::rescue::item::{Attributes, Contents, FileBytes, Item};

/// The permissions without which a directory can't be moved or filled.
const OWNER_ALL: u32 = 0o700;

/// The directory in which nodes are made.
#[derive(Debug)]
pub(super) struct Hidden {
    path: PathBuf,
    /// The nodes that this rescue may make.
    names: Vec<String>,
}

impl Hidden {
    /// The one of a rescue that is applied to `root`, where it is made once it is needed.
    pub(super) fn new(contents: &Contents, root: &Path) -> Hidden {
        let name = format!(".xfer-rescue-{}", contents.written.replace(':', "."));
        let names = contents.items.iter().map(|item| item.ino.to_string()).collect();
        Hidden { path: root.join(name), names }
    }

    fn place(&self, ino: u64) -> io::Result<PathBuf> {
        if create_if_missing(&self.path)? {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(OWNER_ALL))?;
        }
        Ok(self.path.join(ino.to_string()))
    }

    /// Makes a file with these bytes and attributes. One that an earlier attempt has finished is
    /// taken.
    pub(super) fn make_file(
        &self,
        item: &Item,
        kept: &File,
        bytes: &FileBytes,
    ) -> io::Result<PathBuf> {
        let place = self.place(item.ino)?;
        if fs::symlink_metadata(&place).is_ok() {
            let is_whole = has_bytes(&place, kept, bytes).unwrap_or(false);
            if is_whole && set_attributes(&place, &item.attributes).is_ok() {
                return Ok(place);
            }
            fs::remove_file(&place)?;
        }
        let made =
            fill(&place, kept, bytes).and_then(|()| set_attributes(&place, &item.attributes));
        if made.is_err() {
            // Its room may be what the others lack.
            let _ = fs::remove_file(&place);
        }
        made.map(|()| place)
    }

    /// Makes a directory with these attributes at `path`, where there must be nothing.
    pub(super) fn make_directory(
        &self,
        path: &Path,
        ino: u64,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let place = self.place(ino)?;
        create_if_missing(&place)?;
        let movable = attributes.mode.map(|mode| mode | OWNER_ALL as u16);
        set_attributes(&place, &Attributes { mode: movable, ..attributes.clone() })?;
        rename_new(&place, path)?;
        if movable == attributes.mode {
            return Ok(());
        }
        set_attributes(path, attributes)
    }

    /// Removes what an attempt has left, if it was not used.
    pub(super) fn clear(&self) {
        let Ok(left) = fs::read_dir(&self.path) else { return };
        for entry in left.flatten() {
            let name = entry.file_name();
            if !self.names.iter().any(|own| *own == *name.to_string_lossy()) {
                continue;
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if remove_node(&entry.path(), is_directory).is_err() {
                return;
            }
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes a directory, and returns whether it was missing.
fn create_if_missing(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        created => created.map(|()| true),
    }
}

/// Removes a file or an empty directory.
pub(super) fn remove_node(path: &Path, is_directory: bool) -> io::Result<()> {
    if is_directory { fs::remove_dir(path) } else { fs::remove_file(path) }
}

/// Renames a node to a name that nothing has.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Puts a new file beside a path, and returns where. One with just these bytes, as an
/// interrupted attempt may have put there, is taken for it.
pub(super) fn put_beside(
    path: &Path,
    kept: &File,
    bytes: &FileBytes,
    make: impl FnOnce() -> io::Result<PathBuf>,
) -> io::Result<PathBuf> {
    let mut there = existing_beside(path);
    let is_it = |beside: &PathBuf| has_bytes(beside, kept, bytes).unwrap_or(false);
    if let Some(beside) = there.find(is_it) {
        return Ok(beside);
    }
    let made = make()?;
    loop {
        let beside = free_name(path)?;
        match rename_new(&made, &beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            renamed => return renamed.map(|()| beside),
        }
    }
}

/// What was put beside a path.
pub(super) fn existing_beside(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    names_beside(path).take_while(|beside| fs::symlink_metadata(beside).is_ok())
}

/// Whether this path leads to the node with this number.
pub(super) fn is_node(path: &Path, ino: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.ino() == ino)
}
