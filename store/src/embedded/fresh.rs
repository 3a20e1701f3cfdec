//! Where a new store may be made: in a directory that has nothing else. One that was mistyped would otherwise get
//! a store without accounts, and lose files that are called as those of a store.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::StoreError;

/// How the names of the database's files begin. If one of them is missing, that is for the database to say.
const DATABASE: &str = "xfer.db";

/// What else is in the directory of a store.
const OF_STORES: [&str; 6] = ["lock", "numbers", "tls", "contents", "claims", "control.sock"];

/// What filesystems have at their roots.
const OF_FILESYSTEMS: &str = "lost+found";

/// Whether there is a store in a directory. If there is none, one may be made.
///
/// # Errors
/// [`StoreError::Occupied`] if there is none, and something else.
pub(super) fn has_store_or_room(dir: &Path) -> Result<bool, StoreError> {
    let failed = |error| StoreError::io(format!("the store {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(failed)?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<io::Result<_>>().map_err(failed)?;
    if names.iter().any(|name| name.starts_with(DATABASE)) {
        return Ok(true);
    }
    // A server that was killed while it made a store had taken its lock first.
    let is_begun = dir.join("lock").is_file();
    let is_other = |name: &String| {
        let is_of_store = is_begun && OF_STORES.contains(&name.as_str());
        !is_of_store && name != OF_FILESYSTEMS && !name.starts_with('.')
    };
    match names.into_iter().find(is_other) {
        Some(name) => Err(StoreError::Occupied { place: dir.display().to_string(), name }),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(names: &[&str]) -> Result<bool, StoreError> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        has_store_or_room(dir.path())
    }

    #[test]
    fn a_store_is_made_only_where_nothing_else_is() {
        assert!(!has_store_or_room("/nowhere/at/all".as_ref()).unwrap());
        for none in [&[][..], &["lost+found", ".snapshots"], &["lock", "numbers", "tls"]] {
            assert!(!check(none).unwrap(), "{none:?}");
        }
        for store in [["xfer.db", "notes"], ["xfer.db-wal", "contents"]] {
            assert!(check(&store).unwrap(), "{store:?}");
        }
        for other in [&["numbers"][..], &["lock", "notes"], &["etc"]] {
            let refused = check(other).unwrap_err();
            assert!(matches!(refused, StoreError::Occupied { .. }), "{other:?}: {refused}");
        }
    }
}
