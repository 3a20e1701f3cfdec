//! Operations on names: creating, moving and removing them.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs as sys;
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};

use crate::differential::operation::{Operation, Special, Target};
use crate::differential::side::Side;

pub(in crate::differential) fn apply(side: &mut Side, operation: &Operation) -> io::Result<String> {
    let done = |()| String::new();
    let root = &side.root;
    match operation {
        Operation::Mkdir { path, mode } => {
            Ok(sys::mkdirat(root, path, Mode::from_bits_retain(*mode)).map(done)?)
        }
        Operation::Mknod { path, kind, mode } => {
            let kind = match kind {
                Special::File => FileType::RegularFile,
                Special::Fifo => FileType::Fifo,
                Special::Socket => FileType::Socket,
            };
            Ok(sys::mknodat(root, path, kind, Mode::from_bits_retain(*mode), 0).map(done)?)
        }
        Operation::Symlink { target, path } => Ok(sys::symlinkat(target, root, path).map(done)?),
        Operation::Readlink { path } => {
            Ok(sys::readlinkat(root, path, Vec::new())?.to_string_lossy().into_owned())
        }
        Operation::Link { from, to } => {
            let (directory, path, how) = side.place(from)?;
            let follow = matches!(from, Target::Path { follow: true, .. });
            let follow = if follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
            let how = (how - AtFlags::SYMLINK_NOFOLLOW) | follow;
            Ok(sys::linkat(directory, path, root, to, how).map(done)?)
        }
        Operation::Unlink { path } => Ok(sys::unlinkat(root, path, AtFlags::empty()).map(done)?),
        Operation::Rmdir { path } => Ok(sys::unlinkat(root, path, AtFlags::REMOVEDIR).map(done)?),
        Operation::Rename { from, to, flags } => {
            let flags = RenameFlags::from_bits_retain(*flags);
            Ok(sys::renameat_with(root, from, root, to, flags).map(done)?)
        }
        Operation::Clear { path } => {
            // Without `.` and `..`, since a side's root must stay.
            let names: Vec<&str> = path.split('/').filter(|name| !name.starts_with('.')).collect();
            clear(&side.full(&names.join("/"))).map(done)
        }
        _ => unreachable!("not about names: {operation:?}"),
    }
}

/// Removes a directory with its contents, up to the first entry that can't be removed. It goes in
/// order, so that both sides have the same entries left then.
fn clear(directory: &Path) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        match path.symlink_metadata()?.is_dir() {
            true => clear(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
    fs::remove_dir(directory)
}
