//! Listings of directories: at once, and in parts while entries come and go.
//!
//! An entry that comes or goes during a listing may be shown or not. An entry that exists all the
//! time must be shown exactly once; those are the entries of a crowd, which no operation names.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, openat, seek, statat};

use crate::differential::operation::Operation;
use crate::differential::side::{Side, not_open};

/// The number of entries in a crowd.
const CROWD_ENTRIES: usize = 150;

/// The buffer of one call, in bytes: room for one or two dozen entries.
const ROOM: usize = 600;

/// A directory being read, with the number of times each crowd entry has been shown.
pub(in crate::differential) struct OpenDirectory {
    file: OwnedFd,
    shown: BTreeMap<String, usize>,
}

/// The names of a crowd.
pub(in crate::differential) fn crowd() -> impl Iterator<Item = String> {
    (0..CROWD_ENTRIES).map(|index| format!("one of the crowd {index}"))
}

pub(in crate::differential) fn apply(side: &mut Side, operation: &Operation) -> io::Result<String> {
    match operation {
        Operation::OpenDirectory { path, directory } => {
            let open = OpenDirectory::new(side, path)?;
            side.directories[*directory] = Some(open);
            Ok(String::new())
        }
        Operation::ReadSome { directory, rewind } => {
            let directory = side.directories[*directory].as_mut().ok_or_else(not_open)?;
            if *rewind {
                directory.rewind()?;
            }
            directory.read_some()?;
            Ok(String::new())
        }
        Operation::ReadRest { directory } => {
            let directory = side.directories[*directory].as_mut().ok_or_else(not_open)?;
            while directory.read_some()? {}
            let found = directory.told();
            directory.rewind()?;
            Ok(found)
        }
        Operation::List { path } => {
            let mut directory = OpenDirectory::new(side, path)?;
            let mut names = Vec::new();
            while directory.read(|name| names.push(name.to_owned()))? {}
            names.sort();
            Ok(names.join(" "))
        }
        _ => unreachable!("not about listings: {operation:?}"),
    }
}

impl OpenDirectory {
    fn new(side: &Side, path: &str) -> io::Result<OpenDirectory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = openat(&side.root, path, flags, Mode::empty())?;
        Ok(OpenDirectory { file, shown: BTreeMap::new() })
    }

    /// Counts one crowd entry twice.
    pub(in crate::differential) fn show_twice(&mut self) {
        self.shown.extend(crowd().take(1).map(|name| (name, 1)));
    }

    fn rewind(&mut self) -> io::Result<()> {
        seek(&self.file, SeekFrom::Start(0))?;
        self.shown.clear();
        Ok(())
    }

    /// Reads the entries of one call. Returns false at the end.
    fn read(&mut self, mut show: impl FnMut(&str)) -> io::Result<bool> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut entries = RawDir::new(&self.file, &mut room);
        let Some(first) = entries.next() else { return Ok(false) };
        show(&first?.file_name().to_string_lossy());
        while !entries.is_buffer_empty() {
            let Some(entry) = entries.next() else { break };
            show(&entry?.file_name().to_string_lossy());
        }
        Ok(true)
    }

    fn read_some(&mut self) -> io::Result<bool> {
        let mut shown = std::mem::take(&mut self.shown);
        let more = self.read(|name| *shown.entry(name.to_owned()).or_default() += 1);
        self.shown = shown;
        more
    }

    /// Describes how the crowd was shown, if there is one.
    fn told(&self) -> String {
        let there =
            |name: &String| statat(&self.file, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if !crowd().all(|name| there(&name)) {
            return "no crowd".to_owned();
        }
        let wrong = |name: &String| self.shown.get(name) != Some(&1);
        let wrong: Vec<String> = crowd().filter(wrong).collect();
        format!("not shown once: {wrong:?}")
    }
}
