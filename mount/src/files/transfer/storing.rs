//! One file from this machine to the tree.
//!
//! Its bytes gather in a part, beside the target or at the root of the tree (see `staging`). A part that is
//! there is continued: its name says which state of which file of which machine it is of, and a server
//! that lost its client has the bytes of it up to some point.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::io::Errno;
use xfer_client::machine;

use super::super::changing::{clear, sending};
use super::super::errno::of_io;
use super::super::place::absolute;
use super::super::staging::{Key, is_in_mailbox, put_in_free_place, put_in_place};
use super::super::tree::{Kind, Meta, Removed, Source};
use super::fetching::here;
use super::{CHUNK_BYTES, Transfer, Trouble, are_alike};

impl Transfer<'_> {
    /// Stores a file.
    pub(super) fn store(&self, from: &Path, meta: &Meta, to: &Path) -> Result<(), Trouble> {
        self.report.at(from);
        let reading = |errno| Trouble::here("read", from, errno);
        let writing = |errno| Trouble::there("write", to, errno);
        let mode = meta.mode & 0o777;
        match self.tree.stat(to) {
            Ok(there)
                if self.is_there(meta, (&there, to), || self.is_stored(from, meta, to))? =>
            {
                self.report.skip(meta.size);
                let is_settled = there.mtime == meta.mtime && there.mode == mode;
                let settle = || self.tree.set(to, mode, Some(meta.mtime));
                return if is_settled { Ok(()) } else { settle().map_err(writing) };
            }
            Ok(there) if there.is_directory() => return Err(writing(Errno::ISDIR)),
            Ok(there) if there.is_special() => return Err(writing(Errno::INVAL)),
            Ok(_) | Err(_) => {}
        }
        let file = File::open(from).map_err(|error| reading(of_io(error)))?;
        let part = self.part(from, meta, to);
        self.drop_other_stored_parts(to, &part);
        self.fill(&file, from, meta, &part, to)?;
        let is_same = here(from).map_err(reading)?.is_some_and(|now| is_same_state(&now, meta));
        if !is_same {
            let _ = self.tree.remove(&part, Removed::File);
            return Err(Trouble::because("read", from, "it changed meanwhile"));
        }
        if self.checksum {
            self.check(&file, from, meta, &part, to)?;
        }
        self.tree.set(&part, mode, Some(meta.mtime)).map_err(writing)?;
        let note = self.note.filter(|_| is_in_mailbox(to));
        put_in_free_place(self.tree, &part, to, note).map_err(|errno| placing(errno, from, to))
    }

    /// Where the part of a file is.
    fn part(&self, from: &Path, meta: &Meta, to: &Path) -> PathBuf {
        let whole = std::path::absolute(from).unwrap_or_else(|_| from.to_owned());
        let machine = machine::identity();
        let of = [machine.as_bytes(), whole.as_os_str().as_bytes(), to.as_os_str().as_bytes()];
        Key::new("put", &of).with_state(meta).place(to)
    }

    /// Writes all bytes of a file into its part, or the rest of them.
    fn fill(
        &self,
        file: &File,
        from: &Path,
        meta: &Meta,
        part: &Path,
        to: &Path,
    ) -> Result<(), Trouble> {
        let reading = |errno| Trouble::here("read", from, errno);
        let writing = |errno| Trouble::there("write", to, errno);
        let done = match self.tree.stat(part) {
            Ok(there) if there.is_file() && there.size <= meta.size => there.size,
            Ok(_) => {
                clear(self.tree, part).map_err(writing)?;
                0
            }
            Err(Errno::NOENT) => 0,
            Err(errno) => return Err(writing(errno)),
        };
        if done > 0 {
            self.report.skip(done);
        }
        let sink = self.tree.write(part).map_err(writing)?;
        let moved = self.move_bytes((file, &reading), (&*sink, &writing), done, meta.size);
        let closed = sink.close().map_err(writing);
        let is_whole = match moved.and_then(|is_whole| closed.map(|()| is_whole)) {
            Ok(is_whole) => is_whole,
            Err(trouble) => {
                // Without room, the part only keeps others from it.
                if trouble.is_of_room() {
                    let _ = self.tree.remove(part, Removed::File);
                }
                return Err(trouble);
            }
        };
        if is_whole {
            return Ok(());
        }
        let _ = self.tree.remove(part, Removed::File);
        Err(Trouble::because("read", from, "it changed meanwhile"))
    }

    /// Compares a part with its source, once the server has it.
    fn check(
        &self,
        file: &File,
        from: &Path,
        meta: &Meta,
        part: &Path,
        to: &Path,
    ) -> Result<(), Trouble> {
        let reading = |errno| Trouble::here("read", from, errno);
        let writing = |errno| Trouble::there("write", to, errno);
        self.tree.sync_and_forget().map_err(writing)?;
        let stored = self.tree.open(part).map_err(writing)?;
        match are_alike((file as &dyn Source, &reading), (&*stored, &writing), meta.size)? {
            true => Ok(()),
            false => {
                let _ = self.tree.remove(part, Removed::File);
                let why = "it does not have the bytes that were written";
                Err(Trouble::because("write", &absolute(to), why))
            }
        }
    }

    fn is_stored(&self, from: &Path, meta: &Meta, to: &Path) -> Result<bool, Trouble> {
        let reading = |errno| Trouble::here("read", from, errno);
        let reading_there = |errno| Trouble::there("read", to, errno);
        let file = File::open(from).map_err(|error| reading(of_io(error)))?;
        let stored = self.tree.open(to).map_err(reading_there)?;
        are_alike((&file as &dyn Source, &reading), (&*stored, &reading_there), meta.size)
    }

    /// Removes parts of other states of the file, which no transfer goes on with.
    fn drop_other_stored_parts(&self, to: &Path, part: &Path) {
        let (Some(name), Some(own)) = (to.file_name(), part.file_name()) else { return };
        let directory = part.parent().unwrap_or(Path::new("")).to_owned();
        let names = || {
            let entries = self.tree.list(&directory).unwrap_or_default();
            entries.into_iter().map(|(name, _)| name).collect()
        };
        for other in self.parts.others(&directory, name, own, names) {
            let _ = self.tree.remove(&directory.join(other), Removed::File);
        }
    }

    /// Makes a symbolic link of this machine in the tree.
    pub(super) fn store_link(&self, from: &Path, meta: &Meta, to: &Path) -> Result<(), Trouble> {
        let Kind::Symlink(target) = &meta.kind else { return Ok(()) };
        let writing = |errno| Trouble::there("write", to, errno);
        if self.tree.stat(to).is_ok_and(|there| there.kind == meta.kind) {
            return Ok(());
        }
        let part = Key::new("put", &[target.as_bytes(), to.as_os_str().as_bytes()]).place(to);
        clear(self.tree, &part).map_err(writing)?;
        self.tree.make_link(&part, target).map_err(writing)?;
        put_in_place(self.tree, &part, to, None).map_err(|errno| placing(errno, from, to))
    }

    /// Stores what comes from standard input.
    pub(super) fn store_input(&self, to: &Path, mode: u16) -> Result<(), Trouble> {
        let input = Path::new("standard input");
        let writing = |errno| Trouble::there("write", to, errno);
        let part = Key::new("put -", &[to.as_os_str().as_bytes()]).place(to);
        clear(self.tree, &part).map_err(writing)?;
        let stored = self.tree.write(&part).map_err(writing).and_then(|sink| {
            let (mut stdin, mut at) = (std::io::stdin().lock(), 0);
            loop {
                let mut data = Vec::with_capacity(CHUNK_BYTES);
                let read = stdin.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data);
                let read = read.map_err(|error| Trouble::here("read", input, of_io(error)))?;
                if read == 0 {
                    return sink.close().map_err(writing);
                }
                sink.write_at(at, Bytes::from(data)).map_err(writing)?;
                at += read as u64;
            }
        });
        let stored = stored.and_then(|()| self.tree.set(&part, mode, None).map_err(writing));
        let stored = stored.inspect_err(|_| {
            let _ = self.tree.remove(&part, Removed::File);
        });
        stored.and_then(|()| {
            put_in_place(self.tree, &part, to, None).map_err(|errno| placing(errno, input, to))
        })
    }
}

fn placing(errno: Errno, from: &Path, to: &Path) -> Trouble {
    match is_in_mailbox(to) {
        true => Trouble::because("send", from, sending(errno, to)),
        false => Trouble::there("write", to, errno),
    }
}

/// Whether a file of this machine is as it was.
fn is_same_state(now: &Meta, before: &Meta) -> bool {
    let state = |meta: &Meta| (meta.inode, meta.size, meta.mtime, meta.ctime);
    // A link on the command line is followed.
    matches!(now.kind, Kind::Symlink(_)) || state(now) == state(before)
}

/// The file that a link leads to.
pub(super) fn followed(path: &Path) -> Result<Meta, Errno> {
    fs::metadata(path).map(|found| Meta::of_here(&found, None)).map_err(of_io)
}
