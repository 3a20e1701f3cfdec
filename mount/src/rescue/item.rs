//! What a rescue holds, as it is written to its `rescue.json`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xfer_protocol::Timestamp;

/// All that a session held that did not reach the server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Contents {
    /// The account and its server: `user@host:port`.
    pub account: String,
    /// When this was written, as in RFC 3339.
    pub written: String,
    /// Why the session ended.
    pub why: String,
    /// The number of changes.
    pub changes: u64,
    /// The nodes that these changes are about.
    pub items: Vec<Item>,
    /// What else was to happen, for people to read.
    pub notes: Vec<String>,
    /// Nodes that the session has made and removed. One that reached the server is removed there.
    #[serde(default)]
    pub passing: Vec<Item>,
}

/// A node: how it was on the server, and how it was to become.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The node's number in the tree, which a mount shows as `st_ino`.
    pub ino: u64,
    /// The kind of node.
    pub kind: Kind,
    /// Its names on the server, as far as they are known here. A new node has none.
    pub was: Vec<TreePath>,
    /// The times, in seconds and nanoseconds, that the node on the server shows as its last change
    /// (`st_ctime`) if nothing but this session has changed it. Empty for a new node.
    pub unchanged_if: Vec<(i64, u32)>,
    /// The names that it is to have. If there are none, it is to be removed.
    pub names: Vec<TreePath>,
    /// Where it is to be moved from, if it keeps no name; a directory above may have moved already.
    pub moved_from: Vec<TreePath>,
    /// The names that are to be removed, as they are once all nodes have been moved.
    pub left: Vec<TreePath>,
    /// Other names that it had meanwhile. It has one of them if only the first changes reached the
    /// server.
    #[serde(default)]
    pub passed: Vec<TreePath>,
    /// The times that a new node shows as its last change if it reached the server, and nothing but
    /// this session has changed it.
    #[serde(default)]
    pub own_if: Vec<(i64, u32)>,
    /// The bytes of a file, if any changed.
    pub bytes: Option<FileBytes>,
    /// The target of a new symbolic link.
    pub target: Option<TreePath>,
    /// The attributes that were set.
    pub attributes: Attributes,
    /// Whether it was applied.
    #[serde(default)]
    pub applied: bool,
}

/// A kind of node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file, or a node that is older than the changes and no directory.
    File,
    /// A directory.
    Directory,
    /// A new symbolic link.
    Symlink,
    /// A new pipe, socket or device.
    Special,
}

/// The bytes of a file that are kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileBytes {
    /// The file that holds them, within the rescue.
    pub file: TreePath,
    /// The size that the file was to have; `None` if it was not known and did not shrink.
    pub size: Option<u64>,
    /// The ranges that are kept: each with its first byte and the byte after its last.
    pub ranges: Vec<(u64, u64)>,
    /// Whether that is all of the file.
    pub is_whole: bool,
    /// Ranges that were copied on the server from bytes that are not known here.
    pub unknown: Vec<(u64, u64)>,
}

/// Attributes that were set; those that are `None` were not.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// The permission bits.
    pub mode: Option<u16>,
    /// The owner's user number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
    /// The time of the last change of its data, in seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes that were set, or removed if there is no value.
    pub xattrs: Vec<(TreePath, Option<Vec<u8>>)>,
}

/// A path within a tree, or any other bytes that are text mostly.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TreePath {
    /// Bytes that are text.
    Text(String),
    /// Other bytes.
    Bytes(Vec<u8>),
}

impl TreePath {
    /// The bytes of a name or path.
    pub fn new(bytes: &[u8]) -> TreePath {
        match std::str::from_utf8(bytes) {
            Ok(text) => TreePath::Text(text.to_owned()),
            Err(_) => TreePath::Bytes(bytes.to_vec()),
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            TreePath::Text(text) => text.as_bytes(),
            TreePath::Bytes(bytes) => bytes,
        }
    }

    /// The same as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
    }
}

impl From<&PathBuf> for TreePath {
    fn from(path: &PathBuf) -> TreePath {
        TreePath::new(path.as_os_str().as_bytes())
    }
}

impl Contents {
    /// The number of nodes of which the changes are not applied.
    pub fn unapplied(&self) -> usize {
        self.items.iter().filter(|item| !item.applied).count()
    }
}

impl Item {
    /// Its first name, or the last that it had.
    pub fn name(&self) -> String {
        let name = self.names.first().or(self.was.first());
        name.map_or_else(String::new, |name| name.as_path().display().to_string())
    }
}

/// A moment as it is written here.
pub fn moment(time: Timestamp) -> (i64, u32) {
    (time.secs(), time.nanos())
}
