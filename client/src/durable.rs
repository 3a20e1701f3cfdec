//! Files and directories of this machine that are there after it lost its power.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory that only its user can enter, unless it is there, and with it those above it that
/// are missing.
///
/// # Errors
/// If one of them can't be made or synced.
pub fn make_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let make = || DirBuilder::new().mode(0o700).create(path);
    let made = match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            make_directory(parent)?;
            make()
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.and_then(|()| sync_directory(parent)),
    }
}

/// Makes the names in a directory durable. One that may not be read can't be synced, and is left to
/// the filesystem.
///
/// # Errors
/// If it can't be synced.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        directory => directory?.sync_all(),
    }
}

/// Whether a disk, or this user's part of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Puts a file in the place of another, for good.
///
/// # Errors
/// If it can't be written or synced. If only its directory can't be synced, it is there, but may be the
/// other one again after a loss of power.
pub fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    let next = path.with_extension("new");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&next)?;
    let written = write(&file).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&next, path)) {
        // It would take room on a disk that may be full.
        let _ = fs::remove_file(&next);
        return Err(error);
    }
    // Not an error of a full disk any more: the other one is gone.
    path.parent().map_or(Ok(()), sync_directory).map_err(io::Error::other)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_made_with_those_above_it_and_may_be_there_already() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/c");
        make_directory(&path).unwrap();
        make_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "").unwrap();
        make_directory(&path.join("file")).unwrap_err();
        make_directory(&path.join("file/below")).unwrap_err();
    }
}
