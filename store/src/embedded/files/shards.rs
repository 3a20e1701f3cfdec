//! The path of a content's file: `contents/xx/yy/<number>`, all in hexadecimal.
//!
//! `yy` is the second lowest byte of the number and `xx` the third lowest. The lowest is left out,
//! so that 256 contents created in a row share a directory, which is then synced once for all of
//! them.

use std::io;
use std::path::{Path, PathBuf};

use xfer_protocol::ContentId;

/// No store ever grants so high a number, so a file with such a name is not a content.
const NEVER_REACHED: u64 = 1 << 62;

/// The position of a content's file in the directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ShardPath(ContentId);

/// A directory of the store's contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Directory {
    /// `contents` itself.
    Root,
    /// `contents/xx`.
    Top(u8),
    /// `contents/xx/yy`.
    Leaf(u8, u8),
}

impl ShardPath {
    pub(super) fn of(content: ContentId) -> ShardPath {
        ShardPath(content)
    }

    pub(super) fn path(self, root: &Path) -> PathBuf {
        self.leaf().path(root).join(format!("{:016x}", self.0.0))
    }

    pub(super) fn leaf(self) -> Directory {
        let [.., top, leaf, _] = self.0.0.to_be_bytes();
        Directory::Leaf(top, leaf)
    }

    pub(super) fn top(self) -> Directory {
        let [.., top, _, _] = self.0.0.to_be_bytes();
        Directory::Top(top)
    }
}

impl Directory {
    pub(super) fn path(self, root: &Path) -> PathBuf {
        match self {
            Directory::Root => root.to_owned(),
            Directory::Top(top) => root.join(format!("{top:02x}")),
            Directory::Leaf(top, leaf) => root.join(format!("{top:02x}/{leaf:02x}")),
        }
    }

    /// Whether the path of the content's file passes through this directory.
    pub(super) fn leads_to(self, content: ContentId) -> bool {
        let place = ShardPath::of(content);
        [Directory::Root, place.top(), place.leaf()].contains(&self)
    }
}

/// Calls `visit` for every content. `visit` may remove the content.
///
/// Files that don't have a content's name, or lie in the wrong place, are ignored.
pub(super) fn visit(root: &Path, visit: &mut dyn FnMut(ContentId)) -> io::Result<()> {
    for top in names(root, |kind| kind.is_dir())? {
        let top = root.join(top);
        for leaf in names(&top, |kind| kind.is_dir())? {
            let leaf = top.join(leaf);
            for name in names(&leaf, |kind| kind.is_file())? {
                let Ok(number) = u64::from_str_radix(&name, 16) else { continue };
                let content = ContentId(number);
                if number < NEVER_REACHED && ShardPath::of(content).path(root) == leaf.join(name) {
                    visit(content);
                }
            }
        }
    }
    Ok(())
}

/// The names of the `wanted` files in a directory.
pub(super) fn names(
    directory: &Path,
    wanted: impl Fn(std::fs::FileType) -> bool,
) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && wanted(entry.file_type()?)
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_made_one_after_the_other_share_a_directory() {
        let path = |number| ShardPath::of(ContentId(number)).path(Path::new("c"));
        assert_eq!(path(0x0001_0400), Path::new("c/01/04/0000000000010400"));
        assert_eq!(path(0x0001_04ff), Path::new("c/01/04/00000000000104ff"));
        assert_eq!(path(u64::MAX), Path::new("c/ff/ff/ffffffffffffffff"));
    }
}
