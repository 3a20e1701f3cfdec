//! What is at rest in a mailbox, for how long it has to be left alone, and what was touched lately. Plain
//! data; [`super::quiet`] decides by it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xfer_protocol::Ino;

/// For how long a file must not have changed.
const FILE_QUIET: Duration = Duration::from_secs(1);

/// For how long nothing in a directory must have changed.
const DIRECTORY_QUIET: Duration = Duration::from_secs(2);

/// For how long a file must not have changed that may be some program's aid, and no result.
const DOUBTFUL_QUIET: Duration = Duration::from_secs(10);

/// What is at rest. This decides for how long, and what people read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Rest {
    /// A file.
    File,
    /// A directory, with all in it.
    Directory,
    /// A file whose name is one that tools give to incomplete files.
    Temporary,
    /// A file without data: programs make those to try whether they can write.
    Empty,
}

impl Rest {
    /// For how long nothing of it must have changed.
    pub(in crate::core) fn quiet(self) -> Duration {
        match self {
            Rest::File => FILE_QUIET,
            Rest::Directory => DIRECTORY_QUIET,
            Rest::Temporary | Rest::Empty => DOUBTFUL_QUIET,
        }
    }

    /// Whether it may be some program's aid, which is not worth sending.
    pub(in crate::core) fn is_doubtful(self) -> bool {
        matches!(self, Rest::Temporary | Rest::Empty)
    }

    /// The text that people read, and that a node is marked with.
    pub(in crate::core) fn text(self) -> String {
        let since = match self {
            Rest::File | Rest::Directory => "",
            Rest::Temporary => ", since its name looks temporary",
            Rest::Empty => ", since it is empty",
        };
        let seconds = self.quiet().as_secs();
        format!("{}{seconds} s without a change{since}", Rest::PREFIX)
    }

    /// Whether a mark says that a node was at rest.
    pub(in crate::core) fn is_text(mark: &str) -> bool {
        mark.starts_with(Rest::PREFIX)
    }

    const PREFIX: &'static str = "waiting: sent after ";
}

/// When nodes were last touched. Touches of more than [`DOUBTFUL_QUIET`] ago are forgotten.
#[derive(Debug, Default)]
pub(in crate::core) struct Touches {
    newer: BTreeMap<Ino, Instant>,
    /// Those of the time before `newer` was begun.
    older: BTreeMap<Ino, Instant>,
    begun: Option<Instant>,
}

impl Touches {
    pub(super) fn note(&mut self, ino: Ino, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        if now.saturating_duration_since(begun) > DOUBTFUL_QUIET {
            self.older = std::mem::take(&mut self.newer);
            self.begun = Some(now);
        }
        self.newer.insert(ino, now);
    }

    /// When a node was last touched, if it was lately.
    pub(super) fn last(&self, ino: Ino) -> Option<Instant> {
        self.newer.get(&ino).or_else(|| self.older.get(&ino)).copied()
    }

    pub(super) fn clear(&mut self) {
        *self = Touches::default();
    }
}
