//! The data of a regular file, as its node has it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Extents;
use crate::ContentId;

/// The data of a regular file: its size, its allocated blocks, and the content that holds the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileData {
    /// The size in bytes (`st_size`).
    pub size: u64,
    /// The content with the bytes; `None` until something is allocated.
    pub content: Option<ContentId>,
    /// Whether other nodes or deliveries may share the content. A sealed content is never written
    /// to: the first change takes a new content.
    pub sealed: bool,
    /// The allocated blocks. All others read as zeros, whatever the content holds there.
    pub extents: Extents,
}

impl FileData {
    /// Whether every byte of a range is data: none is in a hole or past the end.
    pub fn is_data(&self, range: &Range<u64>) -> bool {
        let mut runs = self.extents.data_in(self.size, range.clone()).into_iter();
        range.is_empty() || range.end <= self.size && runs.next().as_ref() == Some(range)
    }
}
