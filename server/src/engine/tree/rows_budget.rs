//! The memory for loaded rows: a budget that all trees share evenly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The least that a tree may keep, in bytes, however many trees there are. A session that works in
/// a few directories needs this much to avoid loading the same rows for each op.
const SHARE_MIN: usize = 1 << 20;

/// The budget for the rows of all trees.
#[derive(Debug)]
pub(crate) struct RowsBudget {
    bytes: usize,
    trees: AtomicUsize,
}

/// One tree's share, for as long as the tree exists.
#[derive(Debug)]
pub(crate) struct RowsShare(Arc<RowsBudget>);

impl RowsBudget {
    /// Makes a budget that no tree shares yet.
    pub(crate) fn new(bytes: usize) -> Arc<RowsBudget> {
        Arc::new(RowsBudget { bytes, trees: AtomicUsize::new(0) })
    }

    /// Makes a share for one more tree, which makes all other shares smaller.
    pub(crate) fn share(self: &Arc<Self>) -> RowsShare {
        self.trees.fetch_add(1, Ordering::Relaxed);
        RowsShare(self.clone())
    }
}

impl RowsShare {
    /// The present size of the share, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let trees = self.0.trees.load(Ordering::Relaxed).max(1);
        (self.0.bytes / trees).max(SHARE_MIN.min(self.0.bytes))
    }
}

impl Drop for RowsShare {
    fn drop(&mut self) {
        self.0.trees.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_share_evenly_and_give_back_what_they_had() {
        let budget = RowsBudget::new(64 << 20);
        let first = budget.share();
        assert_eq!(first.bytes(), 64 << 20);
        let others = [budget.share(), budget.share(), budget.share()];
        assert_eq!((first.bytes(), others[0].bytes()), (16 << 20, 16 << 20));
        drop(others);
        assert_eq!(first.bytes(), 64 << 20);
    }

    #[test]
    fn a_share_is_large_enough_to_work_with_however_many_there_are() {
        let budget = RowsBudget::new(64 << 20);
        let shares: Vec<RowsShare> = (0..1000).map(|_| budget.share()).collect();
        assert_eq!(shares[0].bytes(), SHARE_MIN);
    }
}
