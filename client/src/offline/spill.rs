//! Memory that the kernel may write to disk: data of an offline client beyond what it may keep in
//! memory.
//!
//! It is not for surviving a crash, as the journal is, and its files have no names. A file is freed
//! when the last bytes in it are dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};

use crate::core::Spill;

/// The size of a file, in bytes. It is that of several of the largest writes.
const FILE_BYTES: usize = 16 << 20;

/// The files of one client.
pub struct SpillFiles {
    directory: PathBuf,
    last: Mutex<Option<SpillFile>>,
}

struct SpillFile {
    file: File,
    /// All of the file, as memory.
    mapped: Bytes,
    used: usize,
}

impl SpillFiles {
    /// Files in this directory.
    pub fn within(directory: &Path) -> SpillFiles {
        SpillFiles { directory: directory.to_owned(), last: Mutex::default() }
    }
}

impl Spill for SpillFiles {
    fn store(&self, bytes: &Bytes) -> Option<Bytes> {
        let mut last = self.last.lock();
        let fits = |file: &SpillFile| file.used + bytes.len() <= FILE_BYTES;
        if !last.as_ref().is_some_and(fits) {
            *last = Some(SpillFile::create(&self.directory).ok()?);
        }
        let file = last.as_mut().filter(|file| fits(file))?;
        file.put(bytes).ok()
    }
}

impl SpillFile {
    fn create(directory: &Path) -> io::Result<SpillFile> {
        let file = tempfile::tempfile_in(directory)?;
        // Otherwise a full disk would be noticed only when the memory is written to.
        fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES as u64)?;
        // SAFETY: the file has no name, so nothing else can shrink or change it. Bytes of it are
        // written before the slice that has them is made, and never again.
        let mapped = unsafe { Mmap::map(&file)? };
        Ok(SpillFile { file, mapped: Bytes::from_owner(mapped), used: 0 })
    }

    fn put(&mut self, bytes: &Bytes) -> io::Result<Bytes> {
        let start = self.used;
        self.file.write_all_at(bytes, start as u64)?;
        self.used += bytes.len();
        Ok(self.mapped.slice(start..self.used))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_that_are_spilled_stay_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let files = SpillFiles::within(directory.path());
        let parts: Vec<Bytes> = (0..40).map(|index| vec![index; 1_000_000].into()).collect();
        let spilled: Vec<Bytes> = parts.iter().map(|part| files.store(part).unwrap()).collect();
        assert_eq!(parts, spilled);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_disk_nothing_is_spilled() {
        let files = SpillFiles::within(Path::new("/nowhere"));
        assert_eq!(files.store(&Bytes::from_static(b"bytes")), None);
        let directory = tempfile::tempdir().unwrap();
        let too_large = vec![0; FILE_BYTES + 1].into();
        assert_eq!(SpillFiles::within(directory.path()).store(&too_large), None);
    }
}
