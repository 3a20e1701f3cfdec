//! What attempts to apply a rescue have changed themselves, so that the next one does not take it for
//! others' work.
//!
//! Before a node of the server is changed, this is noted for good with the time of its last change; and
//! once it is done, the new time. An attempt changes one node at a time. So if it is interrupted, there is
//! at most one of which it is not known how far that came.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The file in a rescue's directory.
const FILE: &str = "changes.jsonl";

/// How a node is: by its times, in seconds and nanoseconds, and its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct State {
    changed: (i64, u32),
    modified: (i64, u32),
    size: u64,
}

/// What is changed of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// Its names.
    Names,
    /// Its bytes and attributes.
    Bytes,
}

/// A line of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// It is about to be changed.
    Begun { ino: u64, is: State, what: What },
    /// It was changed.
    Done { ino: u64, is: State },
}

/// How an earlier attempt has left a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// As it is now.
    So,
    /// Perhaps as it is now: it was interrupted while it changed this.
    InTheMiddleOf(What),
    /// Otherwise, or it has not changed it.
    Otherwise,
}

/// The changes of all attempts.
#[derive(Debug)]
pub(super) struct Own {
    /// Those of each node before this attempt.
    earlier: BTreeMap<u64, Vec<Line>>,
    file: Mutex<File>,
}

impl Own {
    /// Those of a rescue in this directory.
    ///
    /// # Errors
    /// If they can't be read, or no more can be added.
    pub(super) fn open(rescue: &Path) -> io::Result<Own> {
        let path = rescue.join(FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read?,
        };
        // A line that was not finished says nothing: what it was about was not done.
        let lines = text.split('\n').filter_map(|line| serde_json::from_str(line).ok());
        let mut earlier: BTreeMap<_, Vec<Line>> = BTreeMap::new();
        for line in lines {
            let line: Line = line;
            earlier.entry(line.ino()).or_default().push(line);
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        if text.is_empty() {
            File::open(rescue)?.sync_all()?;
        }
        Ok(Own { earlier, file: Mutex::new(file) })
    }

    /// How an earlier attempt has left a node.
    pub(super) fn left(&self, node: &Metadata) -> Left {
        let (now, lines) = (State::of(node), self.earlier.get(&node.ino()));
        // Any of them: what came after it may not have become durable.
        if lines.into_iter().flatten().any(|line| line.is() == now) {
            return Left::So;
        }
        match lines.and_then(|lines| lines.last()) {
            Some(Line::Begun { is, what: What::Names, .. }) if !is.has_other_bytes(&now) => {
                Left::InTheMiddleOf(What::Names)
            }
            Some(Line::Begun { what: What::Bytes, .. }) => Left::InTheMiddleOf(What::Bytes),
            Some(Line::Begun { .. } | Line::Done { .. }) | None => Left::Otherwise,
        }
    }

    /// Notes for good that a node is about to be changed.
    pub(super) fn begin(&self, node: &Metadata, what: What) -> io::Result<()> {
        self.add(Line::Begun { ino: node.ino(), is: State::of(node), what })?;
        self.file.lock().sync_data()
    }

    /// Notes that it was changed.
    pub(super) fn end(&self, node: &Metadata) -> io::Result<()> {
        self.add(Line::Done { ino: node.ino(), is: State::of(node) })
    }

    fn add(&self, line: Line) -> io::Result<()> {
        // Begins a line even if the last one was cut off.
        let line = format!("\n{}\n", serde_json::to_string(&line)?);
        self.file.lock().write_all(line.as_bytes())
    }
}

impl State {
    pub(super) fn of(node: &Metadata) -> State {
        State {
            changed: last_change(node),
            modified: (node.mtime(), node.mtime_nsec() as u32),
            size: node.size(),
        }
    }

    /// Whether its bytes were changed in between.
    fn has_other_bytes(&self, later: &State) -> bool {
        (self.modified, self.size) != (later.modified, later.size)
    }
}

/// The time of a node's last change, in seconds and nanoseconds.
pub(super) fn last_change(node: &Metadata) -> (i64, u32) {
    (node.ctime(), node.ctime_nsec() as u32)
}

impl Line {
    fn ino(&self) -> u64 {
        match self {
            Line::Begun { ino, .. } | Line::Done { ino, .. } => *ino,
        }
    }

    fn is(&self) -> State {
        match self {
            Line::Begun { is, .. } | Line::Done { is, .. } => *is,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// A file that was modified at this second.
    fn modify(path: &Path, secs: u64) -> Metadata {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
        file.metadata().unwrap()
    }

    #[test]
    fn what_an_attempt_has_changed_is_known_to_the_next_and_what_others_have_is_not() {
        let rescue = tempfile::tempdir().unwrap();
        let [done, named, filled] =
            ["done", "named", "filled"].map(|name| rescue.path().join(name));
        let own = Own::open(rescue.path()).unwrap();
        own.begin(&modify(&done, 1), What::Names).unwrap();
        own.end(&modify(&done, 2)).unwrap();
        own.begin(&modify(&named, 3), What::Names).unwrap();
        own.begin(&modify(&filled, 4), What::Bytes).unwrap();
        let left =
            |path: &Path| Own::open(rescue.path()).unwrap().left(&fs::metadata(path).unwrap());
        assert_eq!(own.left(&fs::metadata(&done).unwrap()), Left::Otherwise, "not an earlier one");
        assert_eq!([&done, &named, &filled].map(|path| left(path)), [Left::So; 3]);
        fs::hard_link(&named, rescue.path().join("link")).unwrap();
        assert_eq!(left(&named), Left::InTheMiddleOf(What::Names));
        modify(&filled, 5);
        assert_eq!(left(&filled), Left::InTheMiddleOf(What::Bytes));
        // As if the last change had not become durable.
        let own = Own::open(rescue.path()).unwrap();
        own.begin(&fs::metadata(&done).unwrap(), What::Names).unwrap();
        own.end(&fs::metadata(&filled).unwrap()).unwrap();
        assert_eq!(left(&done), Left::So);
        // Others change bytes.
        for path in [&done, &named] {
            modify(path, 9);
            assert_eq!(left(path), Left::Otherwise);
        }
    }

    #[test]
    fn a_note_that_was_interrupted_hides_none_before_or_after_it() {
        let rescue = tempfile::tempdir().unwrap();
        let files = ["first", "second"].map(|name| modify(&rescue.path().join(name), 1));
        Own::open(rescue.path()).unwrap().end(&files[0]).unwrap();
        let file = OpenOptions::new().append(true).open(rescue.path().join(FILE));
        file.unwrap().write_all(br#"{"done":{"ino":1,"#).unwrap();
        Own::open(rescue.path()).unwrap().end(&files[1]).unwrap();
        let next = Own::open(rescue.path()).unwrap();
        assert_eq!(files.map(|file| next.left(&file)), [Left::So; 2]);
    }
}
