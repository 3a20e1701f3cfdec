//! An opened store, with all its waists.

use std::sync::Arc;

use crate::{
    Accounts, Answer, Contents, Deliveries, Failures, Keys, Later, Register, StoreError, Trees,
};

/// An opened store. Its housekeeping ends when the last copy is dropped.
#[derive(Clone)]
pub struct Store {
    /// The waist for rows, sessions and commits.
    pub trees: Arc<dyn Trees>,
    /// The waist for bytes.
    pub contents: Arc<dyn Contents>,
    /// The waist for deliveries and reservations.
    pub deliveries: Arc<dyn Deliveries>,
    /// The waist for accounts and claims.
    pub accounts: Arc<dyn Accounts>,
    /// The waist for wrong passwords.
    pub failures: Arc<dyn Failures>,
    /// The waist for the keys of devices.
    pub keys: Arc<dyn Keys>,
    /// The health of the store as a whole.
    pub keeper: Arc<dyn Keeper>,
}

impl Store {
    /// The parts that concern accounts alone.
    pub fn register(&self) -> Register {
        let Store { accounts, failures, keys, .. } = self.clone();
        Register { accounts, failures, keys }
    }
}

/// Calls that concern a store as a whole.
pub trait Keeper: Send + Sync {
    /// Completes when the store must not be written to any more: it was removed or replaced, or its
    /// database is older than its contents.
    fn failed(&self) -> Later<'_, StoreError>;

    /// Checks the store for the last time, after its last use, and notes how far its database has
    /// come. Fails as [`Keeper::failed`] would.
    fn close(&self) -> Answer<'_, ()>;
}
