//! The database's counter, written to a file beside it, by which an older database is recognised.
//!
//! The counter of numbers rises with each grant and each commit, and `numbers` in the store's
//! directory has its last value. A database whose counter is lower is an older copy that was put back:
//! it does not know the newest contents.
//!
//! **Invariant:** the value in the file was durable in the database before. After a power failure it
//! may be behind; then an older database may go unnoticed, and nothing else is wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::embedded::place::options;

/// How many digits the number is written with.
const DIGITS: usize = 20;

/// The file.
pub(in crate::embedded::sqlite) struct Mark {
    file: File,
}

impl Mark {
    pub(in crate::embedded::sqlite) fn open(dir: &Path) -> io::Result<Mark> {
        Ok(Mark { file: options().create(true).open(dir.join("numbers"))? })
    }

    /// The value; none in a store that was only used by versions that did not write it.
    pub(in crate::embedded::sqlite) fn read(&self) -> io::Result<Option<u64>> {
        let mut text = [0; DIGITS];
        match self.file.read_exact_at(&mut text, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()))
    }

    /// Raises it. If another process does so at the same time, either value may stay: both were
    /// durable.
    pub(in crate::embedded::sqlite) fn raise(&self, number: u64) -> io::Result<()> {
        if self.read()?.is_some_and(|before| before >= number) {
            return Ok(());
        }
        self.file.write_all_at(format!("{number:0DIGITS$}\n").as_bytes(), 0)
    }

    /// Raises it, and makes it durable.
    pub(in crate::embedded::sqlite) fn raise_durably(&self, number: u64) -> io::Result<()> {
        self.raise(number)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_only_rises_and_says_nothing_before() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.read().unwrap(), None);
        mark.raise(7).unwrap();
        mark.raise(1 << 40).unwrap();
        mark.raise_durably(9).unwrap();
        assert_eq!(Mark::open(dir.path()).unwrap().read().unwrap(), Some(1 << 40));
    }
}
