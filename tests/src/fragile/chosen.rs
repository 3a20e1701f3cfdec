//! Calls on chosen files that fail, or that are held back for a while. A file is chosen by the bytes that
//! it begins with.

use fuser::{Errno, ReplyEmpty};

use super::image::Ino;

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// A write of the file's first bytes.
    Write,
    /// A sync of the file.
    Sync,
    /// A read of any of the file's bytes.
    Read,
}

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// With `EIO`.
    Broken,
    /// With `ENOSPC`.
    Full,
}

impl Failure {
    fn errno(self) -> Errno {
        match self {
            Failure::Broken => Errno::EIO,
            Failure::Full => Errno::ENOSPC,
        }
    }
}

/// The calls that are chosen.
#[derive(Default)]
pub(super) struct Chosen {
    /// Fail if their file begins so.
    pub(super) failing: Option<(Call, Vec<u8>, Failure)>,
    /// Syncs are held if their file begins so.
    holding: Vec<&'static [u8]>,
    /// The syncs that are held, and what their files begin with.
    held: Vec<(&'static [u8], Ino, ReplyEmpty)>,
}

impl Chosen {
    /// How such a call on a file that begins with `bytes` fails, if it does.
    pub(super) fn failure(&self, call: Call, bytes: &[u8]) -> Option<Errno> {
        let (failing, beginning, failure) = self.failing.as_ref()?;
        (*failing == call && bytes.starts_with(beginning)).then(|| failure.errno())
    }

    /// Has syncs held from now on.
    pub(super) fn begin_to_hold(&mut self, beginning: &'static [u8]) {
        self.holding.push(beginning);
    }

    /// Holds a sync of a file that begins with `bytes`, or gives it back.
    pub(super) fn hold(&mut self, ino: Ino, bytes: &[u8], reply: ReplyEmpty) -> Option<ReplyEmpty> {
        match self.holding.iter().find(|beginning| bytes.starts_with(beginning)) {
            Some(beginning) => {
                self.held.push((beginning, ino, reply));
                None
            }
            None => Some(reply),
        }
    }

    /// How many syncs of files that begin so are held.
    pub(super) fn held(&self, beginning: &[u8]) -> usize {
        self.held.iter().filter(|(held, ..)| *held == beginning).count()
    }

    /// Takes the syncs of files that begin so, and holds none of them any more.
    pub(super) fn release(&mut self, beginning: &[u8]) -> Vec<(Ino, ReplyEmpty)> {
        self.holding.retain(|held| *held != beginning);
        let released = self.held.extract_if(.., |(held, ..)| *held == beginning);
        released.map(|(_, ino, reply)| (ino, reply)).collect()
    }
}
