//! An opened store, with all its waists.

use std::sync::Arc;

use crate::{Accounts, Answer, Contents, Deliveries, Failures, Later, StoreError, Trees};

/// An opened store. What it does for its own sake ends with the last copy.
#[derive(Clone)]
pub struct Store {
    /// Rows of trees.
    pub trees: Arc<dyn Trees>,
    /// Bytes of contents.
    pub contents: Arc<dyn Contents>,
    /// Deliveries, and room for them.
    pub deliveries: Arc<dyn Deliveries>,
    /// Accounts.
    pub accounts: Arc<dyn Accounts>,
    /// Wrong passwords.
    pub failures: Arc<dyn Failures>,
    /// The store as a whole.
    pub keeper: Arc<dyn Keeper>,
}

/// What concerns a store as a whole.
pub trait Keeper: Send + Sync {
    /// Completes when the store turns out to be one that nothing may be written to any more: it was
    /// removed or replaced, or its database is older than its contents.
    fn failed(&self) -> Later<'_, StoreError>;

    /// Takes a last look at the store when nothing uses it any more, and notes how far it has come.
    /// Fails as [`Keeper::failed`] would.
    fn close(&self) -> Answer<'_, ()>;
}
