//! How much space all contents take.
//!
//! Each is asked for its size, so this takes long, and contents come and go meanwhile: the sum is that of
//! no one moment. Contents that were set aside don't count.

use std::os::unix::fs::MetadataExt;

use super::FileStore;
use super::shards::{self, ShardPath};
use crate::{ContentsSize, StoreError};

impl FileStore {
    /// Counts the contents and the space that is allocated for them. Slow.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn measure(&self) -> Result<ContentsSize, StoreError> {
        let mut size = ContentsSize::default();
        let visited = shards::visit(&self.root, &mut |content| {
            // One that was removed meanwhile takes nothing.
            if let Ok(metadata) = ShardPath::of(content).path(&self.root).symlink_metadata() {
                size.count += 1;
                size.bytes += metadata.blocks() * 512;
            }
        });
        visited.map_err(|error| StoreError::io("measuring the store's contents", error))?;
        Ok(size)
    }
}
