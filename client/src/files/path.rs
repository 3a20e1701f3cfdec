//! Paths within a tree. They are parsed here, and looked up by the core.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use xfer_protocol::{Errno, Name};

/// A path from the root of a tree, as names. The root's own path has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TreePath(pub(super) Vec<Name>);

impl TreePath {
    /// Parses a path. A leading `/`, and `.` anywhere, change nothing.
    ///
    /// # Errors
    /// `EINVAL` for a path with `..`; `ENAMETOOLONG` if a name is too long.
    pub(super) fn parse(path: &Path) -> Result<TreePath, Errno> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => names.push(parse_name(name)?),
                // `..` can't be resolved by text: behind a symbolic link, it would lead elsewhere
                // than in a mount.
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::EINVAL),
            }
        }
        Ok(TreePath(names))
    }

    /// Splits into the path of the directory and the name in it.
    ///
    /// `EBUSY` for the root, as from rename(2) and rmdir(2).
    pub(super) fn split(mut self) -> Result<(TreePath, Name), Errno> {
        let name = self.0.pop().ok_or(Errno::EBUSY)?;
        Ok((self, name))
    }
}

fn parse_name(name: &OsStr) -> Result<Name, Errno> {
    Name::new(name.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<&[&str], Errno>) {
        let parsed = TreePath::parse(Path::new(path));
        let expected = expected.map(|names| {
            TreePath(names.iter().map(|name| Name::new(name.as_bytes()).unwrap()).collect())
        });
        assert_eq!(parsed, expected, "{path}");
    }

    #[test]
    fn a_path_is_the_names_on_the_way_from_the_root() {
        check("", Ok(&[]));
        check("/", Ok(&[]));
        check("a/b", Ok(&["a", "b"]));
        check("/./a//b/", Ok(&["a", "b"]));
        check("a/../b", Err(Errno::EINVAL));
        check(&"x".repeat(256), Err(Errno::ENAMETOOLONG));
    }
}
