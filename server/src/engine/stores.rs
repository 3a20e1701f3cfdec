//! The store and the budgets around it, as all parts of the engine share them.

use std::sync::Arc;

use xfer_protocol::Timestamp;
use xfer_store::Store;

use crate::engine::clock::Clock;
use crate::engine::tree::rows_budget::RowsBudget;
use crate::engine::tree::space::Space;

/// The store, with the budgets and the clock that go with it.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) store: Store,
    /// The budget for rows that trees keep in memory.
    pub(crate) rows: Arc<RowsBudget>,
    /// The room on the disk that sessions are promised.
    pub(crate) space: Arc<Space>,
    clock: Arc<dyn Clock>,
}

impl Stores {
    /// Nothing is promised to sessions yet. The trees of all sessions together keep about
    /// `rows_bytes` of rows in memory, in addition to rows that are not durable yet.
    pub(crate) fn new(store: Store, rows_bytes: usize, clock: Arc<dyn Clock>) -> Stores {
        let space = Space::new(store.contents.clone());
        Stores { rows: RowsBudget::new(rows_bytes), space, store, clock }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
