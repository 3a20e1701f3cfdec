//! Where contents end, without opening them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use xfer_protocol::ContentId;

use super::shards::ShardPath;
use crate::StoreError;

/// The ends of the contents of a store.
pub struct Ends {
    root: PathBuf,
    whole_from: ContentId,
}

impl Ends {
    /// Those of the store in `dir`. See [`FileStore::whole_from`](super::FileStore::whole_from).
    pub fn of_store(dir: &Path, whole_from: ContentId) -> Ends {
        Ends { root: dir.join("contents"), whole_from }
    }

    /// The end of a content, in bytes; that of an older one, which may be shorter than its data, can't be
    /// told. `None` if it is missing.
    ///
    /// # Errors
    /// If its place can't be looked at.
    pub fn end(&self, content: ContentId) -> Result<Option<u64>, StoreError> {
        match ShardPath::of(content).path(&self.root).symlink_metadata() {
            Ok(found) if !found.is_file() => Ok(None),
            Ok(_) if content < self.whole_from => Ok(Some(u64::MAX)),
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(format!("looking at content {content}"), error)),
        }
    }
}
