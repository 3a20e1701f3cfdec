//! The store, as all parts of the engine have it.

use std::sync::Arc;

use xfer_protocol::Timestamp;
use xfer_store::Store;

use crate::engine::clock::Clock;
use crate::engine::tree::rows_budget::RowsBudget;
use crate::engine::tree::space::Space;

/// The store and what stands before it, as everything in the engine has them.
#[derive(Clone)]
pub(crate) struct Stores {
    /// Where rows and bytes live.
    pub(crate) store: Store,
    /// What trees may keep of the rows in memory.
    pub(crate) rows: Arc<RowsBudget>,
    /// What sessions are promised of the disk.
    pub(crate) space: Arc<Space>,
    clock: Arc<dyn Clock>,
}

impl Stores {
    /// Before this store stands nothing yet. The trees of all sessions together keep about `rows_bytes`
    /// of their rows in memory, beyond those that are not durable.
    pub(crate) fn new(store: Store, rows_bytes: usize, clock: Arc<dyn Clock>) -> Stores {
        let space = Space::new(store.contents.clone());
        Stores { rows: RowsBudget::new(rows_bytes), space, store, clock }
    }

    /// The present time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
