//! The data of a regular file, as its node has it.

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
