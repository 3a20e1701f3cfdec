//! The stores, as all parts of the engine have them.

use std::sync::Arc;

use xfer_store::{ContentStore, MetaStore};

use crate::engine::tree::rows_budget::RowsBudget;
use crate::engine::tree::space::Space;

/// The two stores and what stands before them, as everything in the engine has them.
#[derive(Clone)]
pub(super) struct Stores {
    /// Where rows live.
    pub(super) meta: Arc<dyn MetaStore>,
    /// Where bytes live.
    pub(super) contents: Arc<dyn ContentStore>,
    /// What trees may keep of the rows in memory.
    pub(super) rows: Arc<RowsBudget>,
    /// What sessions are promised of the disk.
    pub(super) space: Arc<Space>,
}
