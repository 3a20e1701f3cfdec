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
    /// Whether it was made when it was opened to be served.
    pub is_new: bool,
}

impl Store {
    /// The parts that concern accounts alone.
    pub fn register(&self) -> Register {
        let Store { accounts, failures, keys, .. } = self.clone();
        Register { accounts, failures, keys }
    }
}

/// The space that a store takes on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreSize {
    /// The database with its log, in bytes.
    pub database_bytes: u64,
    /// The contents, as they were counted last; `None` if they were not counted yet.
    pub contents: Option<ContentsSize>,
}

/// The space that contents take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ContentsSize {
    /// The number of contents.
    pub count: u64,
    /// The space that is allocated for them, in bytes.
    pub bytes: u64,
}

/// Calls that concern a store as a whole.
pub trait Keeper: Send + Sync {
    /// Completes when the store must not be written to any more: it was removed or replaced, or its
    /// database is older than its contents.
    fn failed(&self) -> Later<'_, StoreError>;

    /// Checks now whether the store is still in place. Fails as [`Keeper::failed`] would.
    fn check(&self) -> Answer<'_, ()>;

    /// The space that the store takes.
    fn size(&self) -> Answer<'_, StoreSize>;

    /// Checks the store for the last time, after its last use, and notes how far its database has
    /// come. Fails as [`Keeper::failed`] would.
    fn close(&self) -> Answer<'_, ()>;
}
