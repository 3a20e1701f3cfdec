//! Names of files that are not complete: `NAME.xfer-KEY.part`, beside the file to come. The key says what
//! they are a part of, so only a transfer of the same goes on with them.
//!
//! What goes into a mailbox is completed at the root of the tree and then moved there, which sends it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sha2::{Digest, Sha256};
use xfer_protocol::limits::NAME_BYTES_MAX;

use super::tree::{Meta, Removed, Tree};

/// The length of a key, in bytes.
const KEY_BYTES: usize = 8;

/// What a part is a part of.
pub(super) struct Key(Sha256);

impl Key {
    /// The key of what a command makes of something.
    pub(super) fn new(command: &str, of: &[&[u8]]) -> Key {
        let mut digest = Sha256::new();
        for part in [command.as_bytes()].iter().chain(of) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Key(digest)
    }

    /// Adds the state of a file: another node, or a change of it, gives another key.
    #[must_use]
    pub(super) fn with_state(mut self, meta: &Meta) -> Key {
        self.0.update(meta.inode.to_le_bytes());
        self.0.update(meta.size.to_le_bytes());
        for time in [meta.mtime, meta.ctime] {
            self.0.update(time.secs().to_le_bytes());
            self.0.update(time.nanos().to_le_bytes());
        }
        self
    }

    /// The name of the part beside a file with this name.
    pub(super) fn name(self, name: &OsStr) -> OsString {
        let ending = format!(".xfer-{}.part", hex::encode(&self.0.finalize()[..KEY_BYTES]));
        let room = NAME_BYTES_MAX - ending.len();
        let name = &name.as_bytes()[..name.len().min(room)];
        OsString::from_vec([name, ending.as_bytes()].concat())
    }

    /// The place of the part of a file in the tree that is to be at a path.
    pub(super) fn place(self, path: &Path) -> PathBuf {
        let part = self.name(path.file_name().unwrap_or_default());
        match is_in_mailbox(path) {
            true => PathBuf::from(part),
            false => path.with_file_name(part),
        }
    }
}

/// Whether a name is that of a part of a file with another name.
pub(super) fn is_part_of(name: &OsStr, file: &OsStr) -> bool {
    const ENDING_BYTES: usize = ".xfer-.part".len() + KEY_BYTES * 2;
    let room = NAME_BYTES_MAX - ENDING_BYTES;
    let file = &file.as_bytes()[..file.len().min(room)];
    let rest = name.as_bytes().strip_prefix(file);
    let key = rest.and_then(|rest| rest.strip_prefix(b".xfer-")?.strip_suffix(b".part"));
    key.is_some_and(|key| key.len() == KEY_BYTES * 2 && key.iter().all(u8::is_ascii_hexdigit))
}

/// Whether a path lies in a mailbox.
pub(super) fn is_in_mailbox(path: &Path) -> bool {
    path.starts_with("outbox") && path.components().count() > 2
}

/// Puts a complete part in its place, unless a pipe, a socket or a device is there. If that sends it, a note may go
/// along. If it fails, the part is removed.
pub(super) fn put_in_place(
    tree: &dyn Tree,
    part: &Path,
    to: &Path,
    note: Option<&str>,
) -> Result<(), Errno> {
    let is_special = tree.stat(to).is_ok_and(|there| there.is_special());
    let put = match is_special {
        true => Err(Errno::INVAL),
        false => rename_with_note(tree, part, to, note),
    };
    or_remove(tree, part, put)
}

/// The same where it is known that there is none of these.
pub(super) fn put_in_free_place(
    tree: &dyn Tree,
    part: &Path,
    to: &Path,
    note: Option<&str>,
) -> Result<(), Errno> {
    or_remove(tree, part, rename_with_note(tree, part, to, note))
}

fn or_remove(tree: &dyn Tree, part: &Path, put: Result<(), Errno>) -> Result<(), Errno> {
    put.inspect_err(|_| {
        let _ = tree.remove(part, Removed::File);
    })
}

/// Renames something; if that sends it, a note may go along.
pub(super) fn rename_with_note(
    tree: &dyn Tree,
    part: &Path,
    to: &Path,
    note: Option<&str>,
) -> Result<(), Errno> {
    note.map_or(Ok(()), |note| tree.set_note(part, note))?;
    tree.rename(part, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(command: &str) -> Key {
        Key::new(command, &[b"x"])
    }

    #[test]
    fn a_part_is_known_by_its_name() {
        let name = key("get").name("notes".as_ref());
        assert!(is_part_of(&name, "notes".as_ref()) && !is_part_of(&name, "note".as_ref()));
        assert!(!is_part_of("notes.part".as_ref(), "notes".as_ref()));
        assert_ne!(name, key("put").name("notes".as_ref()));
    }

    #[test]
    fn a_part_of_the_longest_name_has_a_name_too() {
        let long = OsString::from("x".repeat(NAME_BYTES_MAX));
        let name = key("get").name(&long);
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert!(is_part_of(&name, &long));
    }

    #[test]
    fn what_goes_into_a_mailbox_is_completed_outside() {
        let place = |path: &str| key("put").place(Path::new(path));
        assert_eq!(place("a/b").parent(), Some(Path::new("a")));
        assert_eq!(place("outbox/bob/b").parent(), Some(Path::new("")));
        assert_eq!(place("outbox/bob/d/b").parent(), Some(Path::new("")));
        assert_eq!(place("outbox2/bob/b").parent(), Some(Path::new("outbox2/bob")));
    }
}
