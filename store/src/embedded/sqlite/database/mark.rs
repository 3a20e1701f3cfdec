//! The database's counter in a file beside it, which reveals an older database.
//!
//! The counter of numbers rises with each grant and each change of rows, and `numbers` in the store's
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

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use crate::embedded::place::options;

/// The number of digits, with leading zeros.
const DIGITS: usize = 20;

/// The file with the counter's last value, which only rises: threads take turns by the mutex, and
/// processes by the file's lock (flock(2)).
pub(in crate::embedded::sqlite) struct Mark {
    file: Mutex<File>,
}

impl Mark {
    pub(in crate::embedded::sqlite) fn open(dir: &Path) -> io::Result<Mark> {
        Ok(Mark { file: Mutex::new(options().create(true).open(dir.join("numbers"))?) })
    }

    /// The value; `None` in a store that was used only by versions that did not write it.
    pub(in crate::embedded::sqlite) fn read(&self) -> io::Result<Option<u64>> {
        read(&self.file.lock())
    }

    /// Raises the value, if there is one. The first comes from the check of all contents.
    pub(in crate::embedded::sqlite) fn raise(&self, number: u64) -> io::Result<()> {
        raise(&self.file.lock(), number, IfNone::Leave)
    }

    /// Raises the value and makes it durable.
    pub(in crate::embedded::sqlite) fn raise_durably(&self, number: u64) -> io::Result<()> {
        let file = self.file.lock();
        raise(&file, number, IfNone::Write)?;
        file.sync_data()
    }
}

/// What to do in a file without a value.
enum IfNone {
    Leave,
    Write,
}

fn read(file: &File) -> io::Result<Option<u64>> {
    let mut text = [0; DIGITS];
    match file.read_exact_at(&mut text, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    Ok(std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()))
}

/// Raises the value, unless it is as high already. The lock spans both steps: a lower value written
/// over a higher one would hide that the database is older.
fn raise(file: &File, number: u64, if_none: IfNone) -> io::Result<()> {
    retry_on_intr(|| flock(file, FlockOperation::LockExclusive))?;
    let raised = match (read(file), if_none) {
        (Ok(Some(before)), _) if before >= number => Ok(()),
        (Ok(None), IfNone::Leave) => Ok(()),
        (Ok(_), _) => file.write_all_at(format!("{number:0DIGITS$}\n").as_bytes(), 0),
        (Err(error), _) => Err(error),
    };
    flock(file, FlockOperation::Unlock)?;
    raised
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn it_only_rises_and_says_nothing_before() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.read().unwrap(), None);
        mark.raise(5).unwrap();
        assert_eq!(mark.read().unwrap(), None);
        mark.raise_durably(7).unwrap();
        mark.raise(1 << 40).unwrap();
        mark.raise_durably(9).unwrap();
        assert_eq!(Mark::open(dir.path()).unwrap().read().unwrap(), Some(1 << 40));
    }

    #[test]
    fn it_rises_to_the_highest_that_several_threads_and_processes_raise_it_to() {
        let dir = tempfile::tempdir().unwrap();
        // Each opening has a lock of its own, as that of another process has.
        let marks = [Mark::open(dir.path()).unwrap(), Mark::open(dir.path()).unwrap()];
        marks[0].raise_durably(1).unwrap();
        for round in 1..=300 {
            let highest = round * 100;
            let start = Barrier::new(8);
            std::thread::scope(|scope| {
                for (thread, mark) in marks.iter().cycle().take(8).enumerate() {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        mark.raise(highest - thread as u64).unwrap();
                    });
                }
            });
            assert_eq!(marks[0].read().unwrap(), Some(highest));
        }
    }
}
