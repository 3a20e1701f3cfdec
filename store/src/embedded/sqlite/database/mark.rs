//! The database's counter in a file beside it, which reveals an older database.
//!
//! The counter of numbers rises with each grant and each commit, and `numbers` in the store's
//! directory has its last value. A database with a lower counter is an older copy that was put
//! back, and does not know the newest contents.
//!
//! **Invariant:** a value is durable in the database before it is written to the file. After a
//! power failure the file may be behind; then an older database may go unnoticed, but no data is
//! harmed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::embedded::place::options;

/// The number of digits, with leading zeros.
const DIGITS: usize = 20;

/// The file with the counter's last value.
pub(in crate::embedded::sqlite) struct Mark {
    file: File,
}

impl Mark {
    pub(in crate::embedded::sqlite) fn open(dir: &Path) -> io::Result<Mark> {
        Ok(Mark { file: options().create(true).open(dir.join("numbers"))? })
    }

    /// The value; `None` in a store that was used only by versions that did not write it.
    pub(in crate::embedded::sqlite) fn read(&self) -> io::Result<Option<u64>> {
        let mut text = [0; DIGITS];
        match self.file.read_exact_at(&mut text, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()))
    }

    /// Raises the value. If another process does so at the same time, either value may stay; both
    /// were durable.
    pub(in crate::embedded::sqlite) fn raise(&self, number: u64) -> io::Result<()> {
        if self.read()?.is_some_and(|before| before >= number) {
            return Ok(());
        }
        self.file.write_all_at(format!("{number:0DIGITS$}\n").as_bytes(), 0)
    }

    /// Raises the value and makes it durable.
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
