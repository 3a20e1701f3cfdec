//! One file from the tree to this machine.
//!
//! Its bytes gather in a part beside the target. A part that is there is continued: its name says which
//! state of which file it is of, and its bytes were written in order.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock, futimens};
use rustix::io::Errno;

use super::super::errno::of_io;
use super::super::staging::Key;
use super::super::tree::{Kind, Meta, Source, Stream, times};
use super::{Transfer, Trouble, are_alike};

/// Files from this size on are on this machine's disk before they get their names, in bytes.
const SYNCED_BYTES_MIN: u64 = 8 << 20;

impl Transfer<'_> {
    /// Fetches a file.
    pub(super) fn fetch(&self, from: &Path, meta: &Meta, to: &Path) -> Result<(), Trouble> {
        self.report.at(to);
        let writing = |errno| Trouble::here("write", to, errno);
        let before = replaceable(to).map_err(writing)?;
        if let Some(there) = &before
            && self.is_there(meta, (there, Path::new("")), || self.is_same(from, meta, to))?
        {
            self.report.skip(meta.size);
            let file = File::open(to).map_err(|error| writing(of_io(error)))?;
            return settle(&file, meta).map_err(writing);
        }
        let reading = |errno| Trouble::there("read", from, errno);
        let source = self.tree.open(from).map_err(reading)?;
        let key = Key::new("get", &[self.label.as_bytes(), from.as_os_str().as_bytes()]);
        let part = to.with_file_name(key.with_state(meta).name(to.file_name().unwrap_or_default()));
        self.drop_other_parts(to, &part);
        let file = match own(&part).map_err(|errno| Trouble::here("write", &part, errno))? {
            Part::Own(file) => file,
            Part::Taken => {
                return Err(Trouble::because("write", to, "another xfer is fetching it"));
            }
            Part::Foreign => {
                let why = "it belongs to another user or has hard links; remove it";
                return Err(Trouble::because("write", &part, why));
            }
        };
        let done = file.metadata().map_err(|error| writing(of_io(error)))?.len();
        let done = if done <= meta.size { done } else { 0 };
        file.set_len(done).map_err(|error| writing(of_io(error)))?;
        if done > 0 {
            self.report.skip(done);
        }
        let moved = self.move_bytes((&*source, &reading), (&file, &writing), done, meta.size);
        let is_whole = moved.inspect_err(|trouble| {
            // Without room, the part only keeps others from it.
            if trouble.is_of_room() {
                let _ = fs::remove_file(&part);
            }
        })?;
        let is_same = is_whole && self.tree.stat(from).map_err(reading)? == *meta;
        if !is_same {
            let _ = fs::remove_file(&part);
            return Err(Trouble::because("read", &super::absolute(from), "it changed meanwhile"));
        }
        if self.checksum && !are_alike((&*source, &reading), (&file, &writing), meta.size)? {
            let _ = fs::remove_file(&part);
            return Err(Trouble::because(
                "write",
                to,
                "it does not have the bytes that were written",
            ));
        }
        settle(&file, meta).map_err(writing)?;
        if before.is_some() || meta.size >= SYNCED_BYTES_MIN {
            file.sync_all().map_err(|error| writing(of_io(error)))?;
        }
        fs::rename(&part, to).map_err(|error| {
            let _ = fs::remove_file(&part);
            writing(of_io(error))
        })
    }

    /// Writes the bytes of a file into a pipe or a device.
    pub(super) fn fetch_into(&self, from: &Path, meta: &Meta, to: &Path) -> Result<(), Trouble> {
        let reading = |errno| Trouble::there("read", from, errno);
        let writing = |errno| Trouble::here("write", to, errno);
        let source = self.tree.open(from).map_err(reading)?;
        let file = OpenOptions::new().write(true).open(to);
        let sink = Stream(file.map_err(|error| writing(of_io(error)))?);
        let is_whole = self.move_bytes((&*source, &reading), (&sink, &writing), 0, meta.size)?;
        let changed = || Trouble::because("read", &super::absolute(from), "it changed meanwhile");
        is_whole.then_some(()).ok_or_else(changed)
    }

    fn is_same(&self, from: &Path, meta: &Meta, to: &Path) -> Result<bool, Trouble> {
        let reading = |errno| Trouble::there("read", from, errno);
        let reading_here = |errno| Trouble::here("read", to, errno);
        let source = self.tree.open(from).map_err(reading)?;
        let file = File::open(to).map_err(|error| reading_here(of_io(error)))?;
        are_alike((&*source, &reading), (&file as &dyn Source, &reading_here), meta.size)
    }

    /// Removes parts of other states of the file, which no transfer goes on with.
    fn drop_other_parts(&self, to: &Path, own_part: &Path) {
        let (Some(name), Some(own_name)) = (to.file_name(), own_part.file_name()) else { return };
        let directory = to.parent().unwrap_or(Path::new("")).to_owned();
        let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
        let names = || {
            let entries = fs::read_dir(listed).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name()).collect()
        };
        for other in self.parts.others(&directory, name, own_name, names) {
            let path = directory.join(other);
            // Unless another process is at it.
            if let Ok(Part::Own(_file)) = own(&path) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// A file of this machine, if there is one. A link is not followed.
pub(super) fn here(path: &Path) -> Result<Option<Meta>, Errno> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(of_io)?,
    };
    let target = match found.is_symlink() {
        true => Some(fs::read_link(path).map_err(of_io)?.into_os_string()),
        false => None,
    };
    Ok(Some(Meta::of_here(&found, target)))
}

/// The same, if a transfer may put something in its place.
fn replaceable(path: &Path) -> Result<Option<Meta>, Errno> {
    match here(path)? {
        Some(there) if there.is_special() => Err(Errno::INVAL),
        there => Ok(there),
    }
}

/// A part that was opened.
enum Part {
    /// For this process alone.
    Own(File),
    /// Another process has it.
    Taken,
    /// Somebody else may have made it, or it has hard links.
    Foreign,
}

/// Opens a part for this process alone.
fn own(path: &Path) -> Result<Part, Errno> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // A pipe is not waited for.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        // One that is made now is this user's, whatever a network filesystem shows.
        let made = options.clone().create_new(true).custom_flags(flags).open(path);
        let (file, is_new) = match made {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (options.custom_flags(flags).open(path).map_err(of_io)?, false)
            }
            Err(error) => return Err(of_io(error)),
        };
        let metadata = file.metadata().map_err(of_io)?;
        let is_mine = is_new || metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || !is_mine || metadata.nlink() > 1 {
            return Ok(Part::Foreign);
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Part::Taken),
            // Some network filesystems have no locks.
            Err(_) => return Ok(Part::Own(file)),
        }
        // The one that had it may have given it its name meanwhile.
        let is_same =
            |there: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == there.ino());
        if fs::symlink_metadata(path).is_ok_and(is_same) {
            return Ok(Part::Own(file));
        }
    }
}

/// Gives a file the permissions and the time of its source.
fn settle(file: &File, meta: &Meta) -> Result<(), Errno> {
    let mode = fs::Permissions::from_mode(u32::from(meta.mode & 0o777));
    file.set_permissions(mode).map_err(of_io)?;
    futimens(file, &times(meta.mtime))
}

impl Transfer<'_> {
    /// Makes a symbolic link of the tree on this machine.
    pub(super) fn fetch_link(&self, meta: &Meta, to: &Path) -> Result<(), Trouble> {
        let Kind::Symlink(target) = &meta.kind else { return Ok(()) };
        let writing = |errno| Trouble::here("write", to, errno);
        if replaceable(to).map_err(writing)?.is_some_and(|there| there.kind == meta.kind) {
            return Ok(());
        }
        let key = Key::new("get", &[self.label.as_bytes(), target.as_bytes()]);
        let part = to.with_file_name(key.name(to.file_name().unwrap_or_default()));
        let _ = fs::remove_file(&part);
        let made = std::os::unix::fs::symlink(target, &part).and_then(|()| fs::rename(&part, to));
        made.map_err(|error| {
            let _ = fs::remove_file(&part);
            writing(of_io(error))
        })
    }
}
